"""Inorganic crystals: space group, then composition, then lattice (Crystal-GFN's three parts)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pymatgen.core.composition import Composition
from torch import Tensor

from sampler.environment import Candidate, Environment
from sampler.environments.crystal_composition import CompositionRules, build_tree
from sampler.environments.crystal_elements import elements_by_electronegativity, oxidation_states
from sampler.environments.crystal_features import CrystalFeatures, group_features
from sampler.environments.crystal_index import CompositionIndex
from sampler.environments.crystal_lattice import LatticeGrid, LatticeOptions
from sampler.environments.crystal_options import check_options
from sampler.environments.crystal_placement import Blueprint, PlacementError, place, read
from sampler.environments.crystal_symmetry import SYSTEMS, space_group
from sampler.environments.crystal_text import format_key, parse_key
from sampler.environments.crystal_where import read_where

_GROUP, _NODE, _N_SET, _BINS = 0, 1, 2, slice(3, 9)


class Crystal(Environment):
    """Space group → composition → lattice of a conventional cell, with hard physical constraints.

    Milà et al. 2023, Crystal-GFN (arXiv 2310.04925). The masks allow only what some valid crystal
    needs, so every trajectory ends in one and none is rejected:

    - atom counts fill Wyckoff sites of the space group (those without a free coordinate once);
    - with `charge_neutral`, one non-zero oxidation state an element (ICSD's common ones) sums to
      0, which rules out pure elements;
    - the volume of an atom lies in `volume_per_atom`, and the cell is not flat.

    The lattice is a grid of `n_bins` log-spaced lengths and linear angles, ends included; its free
    parameters are those of the lattice system, trigonal groups in hexagonal axes and monoclinic
    ones with unique axis b. Every state has one parent: the space is a tree.

    State `(9)`: space group (1-based index, 0 unset), node of the composition tree, 0 or one more
    than the number of lattice parameters chosen, and the 1-based bins of alpha, beta, gamma, a, b,
    c. Actions: space groups, (element, count) pairs by electronegativity, "composition done",
    angle bins, length bins. A candidate is a pymatgen `Structure` whose atoms pyxtal placed at
    random, the same way for the same key.

    `elements`: symbols. `space_groups`: numbers 1 … 230. `n_elements`, `n_atoms` (conventional
    cell), `n_atoms_per_element`: inclusive ranges. `lengths` Å, `angles` degrees,
    `volume_per_atom` Å³: inclusive ranges. ValueError when no crystal satisfies them.
    """

    is_tree = True

    def __init__(
        self,
        elements: list[str],
        space_groups: list[int],
        n_elements: tuple[int, int] = (1, 3),
        n_atoms: tuple[int, int] = (2, 12),
        n_atoms_per_element: tuple[int, int] = (1, 8),
        charge_neutral: bool = True,
        lengths: tuple[float, float] = (2.5, 15.0),
        angles: tuple[float, float] = (60.0, 120.0),
        n_bins: int = 32,
        volume_per_atom: tuple[float, float] = (6.0, 40.0),
    ) -> None:
        lattice = LatticeOptions(lengths, angles, n_bins, volume_per_atom)
        check_options(elements, space_groups, n_elements, n_atoms, n_atoms_per_element, lattice)
        self.elements = elements_by_electronegativity(elements)
        self.space_groups = [space_group(number) for number in sorted(space_groups)]
        self.n_atoms = n_atoms
        self.grid = LatticeGrid(lattice, n_atoms[1])
        self._smallest_count = n_atoms_per_element[0]
        self._n_counts = n_atoms_per_element[1] - n_atoms_per_element[0] + 1
        self._systems = torch.tensor([group.system for group in self.space_groups])
        self._build(n_elements, n_atoms, n_atoms_per_element, charge_neutral)
        n_groups, n_kinds = len(self.space_groups), len(self.elements)
        self._first_pair = n_groups
        self._done = n_groups + n_kinds * self._n_counts
        self._first_angle = self._done + 1
        self._first_length = self._first_angle + n_bins
        self.n_actions = self._first_length + n_bins
        self._features = CrystalFeatures(self.elements, self.space_groups)
        self.n_features = self._features.width
        self._group_inputs = torch.cat(
            [torch.eye(n_groups), torch.stack(list(map(group_features, self.space_groups)))], dim=1
        ).float()
        self.n_policy_inputs = 8 + self._group_inputs.shape[1] + 2 * n_kinds + 2 + 6 + 2
        n_free = int(self.grid.n_free[self._systems].max())
        self.max_steps = 2 + min(n_elements[1], n_kinds) + n_free

    def _build(
        self,
        n_elements: tuple[int, int],
        n_atoms: tuple[int, int],
        n_atoms_per_element: tuple[int, int],
        charge_neutral: bool,
    ) -> None:
        """Enumerate the compositions, and lay their tree out in tensors."""
        states = tuple(map(oxidation_states, self.elements)) if charge_neutral else None
        rules = CompositionRules(n_elements, n_atoms, n_atoms_per_element, states)
        has_lattice = torch.stack([self.grid.has_lattice(i) for i in range(len(SYSTEMS))])
        tree = build_tree(
            rules, self.space_groups, has_lattice[self._systems].numpy(), len(self.elements)
        )
        n_pairs = len(self.elements) * self._n_counts
        self._compositions = CompositionIndex(tree, n_pairs)
        self._is_group_possible = self._compositions.possible_groups(len(self.space_groups))

    def initial_states(self, n: int) -> Tensor:
        """Nothing chosen: all columns 0."""
        return torch.zeros(n, 9, dtype=torch.int64)

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once every free lattice parameter is chosen."""
        return (states[:, _N_SET] > 0) & (states[:, _N_SET] > self._n_free(states))

    def forward_mask(self, states: Tensor) -> Tensor:
        """What some valid crystal needs next."""
        mask = torch.zeros(len(states), self.n_actions, dtype=torch.bool)
        has_group, in_lattice = states[:, _GROUP] > 0, states[:, _N_SET] > 0
        mask[~has_group, : self._first_pair] = self._is_group_possible
        self._allow_pairs(mask, states, (has_group & ~in_lattice).nonzero()[:, 0])
        rows = (in_lattice & ~self.is_terminal(states)).nonzero()[:, 0]
        if len(rows) > 0:
            self._allow_bins(mask, states, rows)
        return mask

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Choose a space group, atoms of an element, the end of the composition, or a bin."""
        children = states.clone()
        group = (actions < self._first_pair).nonzero()[:, 0]
        children[group, _GROUP] = actions[group] + 1
        pair = ((actions >= self._first_pair) & (actions < self._done)).nonzero()[:, 0]
        children[pair, _NODE] = self._compositions.child(
            states[pair, _NODE], actions[pair] - self._first_pair
        )
        in_bins = (actions >= self._first_angle).nonzero()[:, 0]
        bins = actions[in_bins] - self._first_angle
        slot = self._slot(states[in_bins], ahead=0)
        children[in_bins, 3 + slot] = bins % self.grid.n_bins + 1
        children[:, _N_SET] += actions >= self._done
        return children

    def backward_mask(self, states: Tensor) -> Tensor:
        """The one action that led here."""
        mask = torch.zeros(len(states), self.n_actions, dtype=torch.bool)
        rows = (states[:, _GROUP] > 0).nonzero()[:, 0]
        mask[rows, self._last_action(states[rows])] = True
        return mask

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Take back the last choice."""
        parents = states.clone()
        parents[actions < self._first_pair, _GROUP] = 0
        pair = ((actions >= self._first_pair) & (actions < self._done)).nonzero()[:, 0]
        parents[pair, _NODE] = self._compositions.parent[states[pair, _NODE]]
        in_bins = (actions >= self._first_angle).nonzero()[:, 0]
        parents[in_bins, 3 + self._slot(states[in_bins], ahead=-1)] = 0
        parents[:, _N_SET] -= (actions >= self._done).long()
        return parents

    def policy_inputs(self, states: Tensor) -> Tensor:
        """What comes next, the space group, atoms of each element, bins, and the volume's room."""
        n = len(states)
        has_group, n_set = states[:, _GROUP] > 0, states[:, _N_SET]
        in_lattice = (n_set > 0) & ~self.is_terminal(states)
        slot = self._slot(states, ahead=0)
        stage = torch.zeros(n, 8)
        stage[:, 0], stage[:, 1] = ~has_group, has_group & (n_set == 0)
        stage.scatter_(1, 2 + slot[:, None], in_lattice[:, None].float())
        groups = self._group_inputs[self._group(states)] * has_group[:, None]
        counts = self._compositions.counts[states[:, _NODE]].float()
        present = (counts > 0).float()
        totals = torch.stack(
            [counts.sum(dim=1) / self.n_atoms[1], present.sum(dim=1) / len(self.elements)], dim=1
        )
        bins = states[:, _BINS]
        places = ((2 * bins - 1 - self.grid.n_bins) / (self.grid.n_bins - 1)) * (bins > 0)
        room = self._room(states) * (in_lattice & (slot >= 3))[:, None]
        most = self._smallest_count + self._n_counts - 1
        return torch.cat([stage, groups, counts / most, present, totals, places, room], dim=1)

    def features(self, states: Tensor) -> Tensor:
        """See `CrystalFeatures`: elements stand in order of electronegativity."""
        group, systems, bins = self._group(states), self._system(states), states[:, _BINS]
        counts = self._compositions.counts[states[:, _NODE]]
        volumes = self.grid.log_volumes(systems, bins).exp()
        return self._features(counts, group, self.grid.parameters(systems, bins), volumes)

    def keys(self, states: Tensor) -> list[str]:
        """Such as `Mg4 O4 | 225 | 4.2100 4.2100 4.2100 | 90.00 90.00 90.00`: atoms of the
        conventional cell, space group, lengths in Å, angles in degrees.
        """
        return [blueprint.key for blueprint in self._blueprints(states)]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote; parameters may be a tenth of a bin off."""
        states = [self._state(parse_key(key), f"key {key!r}", snap=0.1) for key in keys]
        return torch.tensor(states, dtype=torch.int64).reshape(len(states), 9)

    def decode(self, states: Tensor) -> list[Candidate]:
        """Structures of the conventional cell; a `PlacementError` where atoms find no room."""
        return [_placed_or_error(blueprint) for blueprint in self._blueprints(states)]

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of pymatgen Structures, whose lattice parameters go to the nearest bin.

        The space group is `properties["space_group"]` (then the cell must be conventional), or
        else what spglib finds.
        """
        states = [self._state(read(s), s.formula, snap=0.5) for s in candidates]
        return torch.tensor(states, dtype=torch.int64).reshape(len(states), 9)

    def restricted(self, where: Mapping[str, Any]) -> Crystal:
        """Keys: see `sampler.environments.crystal_where.read_where`."""
        symbols = [element.symbol for element in self.elements]
        wanted = read_where(where, symbols, self.space_groups, self._compositions.counts)
        narrowed = copy.copy(self)
        narrowed._compositions = self._compositions.narrowed(wanted.nodes)
        possible = narrowed._compositions.possible_groups(len(self.space_groups))
        narrowed._is_group_possible = possible & wanted.groups
        if not bool(narrowed._is_group_possible.any()):
            raise ValueError(
                f"where: no crystal of this space satisfies {dict(where)}: no such composition "
                "fits the numbers of atoms, the charges and the Wyckoff sites of a space group"
            )
        return narrowed

    def families(self, states: Tensor) -> list[str]:
        """Reduced formula, such as `MgO`: polymorphs are variants of one compound.

        Space group and lattice are not enough to tell two crystals apart: relaxation often takes
        them to the same one.
        """
        return [Composition(dict(b.counts)).reduced_formula for b in self._blueprints(states)]

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns formula, space_group, n_atoms and volume_per_atom (Å³)."""
        volumes = self.grid.log_volumes(self._system(states), states[:, _BINS]).exp()
        rows: list[dict[str, str | float | int]] = []
        for blueprint, volume in zip(self._blueprints(states), volumes.tolist(), strict=True):
            n_atoms = sum(blueprint.counts.values())
            rows.append(
                {
                    "formula": Composition(dict(blueprint.counts)).reduced_formula,
                    "space_group": f"{space_group(blueprint.space_group).symbol} "
                    f"({blueprint.space_group})",
                    "n_atoms": n_atoms,
                    "volume_per_atom": volume / n_atoms,
                }
            )
        return rows

    def _allow_pairs(self, mask: Tensor, states: Tensor, rows: Tensor) -> None:
        """Set in `mask` what states amid their composition may do."""
        node, group = states[rows, _NODE], self._group(states[rows])
        mask[rows, self._done] = self._compositions.fits(node, group)
        owner, action = self._compositions.open_actions(node, group)
        mask[rows[owner], self._first_pair + action] = True

    def _allow_bins(self, mask: Tensor, states: Tensor, rows: Tensor) -> None:
        """Set in `mask` the bins of the next lattice parameter."""
        chosen = states[rows]
        n_set, n_atoms = chosen[:, _N_SET] - 1, self._compositions.n_atoms[chosen[:, _NODE]]
        allowed = self.grid.allowed_bins(self._system(chosen), chosen[:, _BINS], n_set, n_atoms)
        is_angle = (self._slot(chosen, ahead=0) < 3)[:, None]
        block = torch.cat([allowed & is_angle, allowed & ~is_angle], dim=1)
        mask[rows, self._first_angle :] = block

    def _last_action(self, states: Tensor) -> Tensor:
        """The action that led to each state but the initial one, `(n,)`."""
        node, n_set = states[:, _NODE], states[:, _N_SET]
        slot = self._slot(states, ahead=-1)
        bins = states[:, _BINS].gather(1, slot[:, None])[:, 0] - 1
        first = torch.where(slot < 3, self._first_angle, self._first_length)
        last = torch.where(
            node > 0, self._first_pair + self._compositions.action[node], states[:, _GROUP] - 1
        )
        last = torch.where(n_set == 1, self._done, last)
        return torch.where(n_set > 1, first + bins, last)

    def _room(self, states: Tensor) -> Tensor:
        """How far the lengths are from both ends of the volume window, in units of all bins."""
        room = self.grid.room(
            self._system(states),
            states[:, _BINS],
            self._compositions.n_atoms[states[:, _NODE]].clamp_min(1),
        )
        return (room.float() / (3 * self.grid.n_bins)).clamp(-1, 1)

    def _group(self, states: Tensor) -> Tensor:
        return (states[:, _GROUP] - 1).clamp_min(0)

    def _system(self, states: Tensor) -> Tensor:
        return self._systems[self._group(states)]

    def log_measure(self, states: Tensor) -> Tensor:
        """-log(n_bins) for each free lattice parameter: bins stand for a continuous range."""
        return -math.log(self.grid.n_bins) * self._n_free(states).double()

    def _n_free(self, states: Tensor) -> Tensor:
        return self.grid.n_free[self._system(states)]

    def _slot(self, states: Tensor, ahead: int) -> Tensor:
        """Slot of the lattice parameter chosen next (`ahead` 0) or last (-1), `(n,)`."""
        return self.grid.slot[self._system(states), (states[:, _N_SET] - 1 + ahead).clamp_min(0)]

    def _blueprints(self, states: Tensor) -> list[Blueprint]:
        systems = self._system(states)
        lattices = self.grid.parameters(systems, states[:, _BINS]).tolist()
        counts = self._compositions.counts[states[:, _NODE]].tolist()
        groups = self._group(states).tolist()
        made = []
        for group, row, lattice in zip(groups, counts, lattices, strict=True):
            number = self.space_groups[group].number
            atoms = {e.symbol: n for e, n in zip(self.elements, row, strict=True) if n > 0}
            key = format_key(number, atoms, lattice)
            made.append(Blueprint(key, number, atoms, tuple(lattice)))
        return made

    def _state(self, blueprint: Blueprint, name: str, snap: float) -> list[int]:
        """The state of a blueprint, for messages called `name`; ValueError if it is not here."""
        numbers = [group.number for group in self.space_groups]
        if blueprint.space_group not in numbers:
            raise ValueError(f"{name}: space group {blueprint.space_group} is not in this space")
        group = numbers.index(blueprint.space_group)
        node = self._node(blueprint, group, name)
        system = self.space_groups[group].system
        try:
            bins = self.grid.nearest_bins(system, blueprint.lattice, snap)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        state = [group + 1, node, 1 + int(self.grid.n_free[system]), *bins]
        room = self.grid.room(
            torch.tensor([system]),
            torch.tensor([bins]),
            self._compositions.n_atoms[node : node + 1],
        )[0]
        if room[0] > 0 or room[1] < 0:
            low, high = self.grid.options.volume_per_atom
            raise ValueError(f"{name}: volume an atom is not within {low:g} to {high:g} Å³")
        return state

    def _node(self, blueprint: Blueprint, group: int, name: str) -> int:
        """The node of a composition in the tree."""
        symbols = [element.symbol for element in self.elements]
        unknown = [symbol for symbol in blueprint.counts if symbol not in symbols]
        if unknown:
            raise ValueError(f"{name}: element {unknown[0]} is not in this space")
        counts = [blueprint.counts.get(symbol, 0) for symbol in symbols]
        pairs = [(kind, n - self._smallest_count) for kind, n in enumerate(counts) if n > 0]
        in_range = all(0 <= extra < self._n_counts for _, extra in pairs)
        path = [kind * self._n_counts + extra for kind, extra in pairs]
        node = self._compositions.find(path) if in_range else None
        groups = torch.tensor([group])
        if node is None or not bool(self._compositions.fits(torch.tensor([node]), groups)):
            atoms = " ".join(f"{symbol}{n}" for symbol, n in blueprint.counts.items())
            raise ValueError(
                f"{name}: {atoms} with space group {blueprint.space_group} is not in this space "
                "(numbers of atoms, charges, or Wyckoff sites)"
            )
        return node


def _placed_or_error(blueprint: Blueprint) -> Candidate:
    try:
        return place(blueprint)
    except PlacementError as error:
        return error

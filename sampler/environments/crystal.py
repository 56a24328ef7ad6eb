"""Inorganic crystals: space group, composition, lattice (Crystal-GFN's three parts), positions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from pymatgen.core.composition import Composition
from torch import Tensor

from sampler.environment import Candidate, Environment
from sampler.environments.crystal_cell import Cell
from sampler.environments.crystal_classes import CRYSTAL_LATTICE_SYSTEMS, POINT_SYMMETRIES
from sampler.environments.crystal_elements import elements_by_electronegativity
from sampler.environments.crystal_features import CrystalFeatures
from sampler.environments.crystal_options import PARTS, check_options
from sampler.environments.crystal_part import STAGE, Columns, Part
from sampler.environments.crystal_part_composition import CompositionPart
from sampler.environments.crystal_part_lattice import LatticePart
from sampler.environments.crystal_part_positions import PositionsPart
from sampler.environments.crystal_part_space_group import SpaceGroupPart
from sampler.environments.crystal_reader import CrystalReader
from sampler.environments.crystal_rules import CrystalRules
from sampler.environments.crystal_symmetry import space_group
from sampler.environments.crystal_where import read_where


class Crystal(Environment):
    """Conventional cells with hard physical constraints, all of them in the masks.

    Every trajectory ends in a crystal that obeys them and none is rejected:

    - atom counts fill Wyckoff sites of the space group (those without a free coordinate once);
    - with `charge_neutral`, one non-zero oxidation state an element (the ICSD's common ones) sums
      to 0. With `mixed_valence` each atom may have its own (Fe3O4); with `pure_elements` a crystal
      of one element passes too;
    - lattice parameters are real numbers inside their ranges, tied or fixed as the lattice system
      demands (trigonal groups in hexagonal axes, monoclinic ones with unique axis b), the cell is
      not flat, and the volume of an atom is inside `volume_per_atom` if that is given;
    - with `positions: wyckoff`, atoms fill sites one by one, with their free coordinates.

    `elements`: symbols. `space_groups`: numbers 1 … 230, all by default. `n_elements`, `n_atoms`
    (conventional cell), `n_atoms_per_element`: inclusive ranges. `lengths` Å, `angles` degrees,
    `volume_per_atom` Å³: inclusive ranges. `min_distance`: the least between two sampled
    positions, in units of half the sum of the covalent radii (pyxtal's tolerance). `order`: of
    the parts; the lattice comes after the space group. ValueError when no crystal satisfies them.

    A candidate is a pymatgen `Structure` with `properties["space_group"]`. Without positions its
    atoms are placed at random on Wyckoff sites, the same way for the same key. One that leaves no
    room for its atoms, or whose symmetry spglib does not confirm, is a `PlacementError`.

    State: one float64 row, see `sampler.environments.crystal_part`. Actions: those of the parts,
    one after another. Densities of lattice parameters refer to the uniform measure of those that
    are free, lengths on a logarithmic scale.

    Source: Mila AI4Science et al. 2023, Crystal-GFN (arXiv 2310.04925).
    """

    systems = CRYSTAL_LATTICE_SYSTEMS
    point_symmetries = POINT_SYMMETRIES

    def __init__(
        self,
        elements: list[str],
        space_groups: list[int] | None = None,
        n_elements: tuple[int, int] = (1, 5),
        n_atoms: tuple[int, int] = (1, 80),
        n_atoms_per_element: tuple[int, int] = (1, 16),
        charge_neutral: bool = True,
        mixed_valence: bool = False,
        pure_elements: bool = False,
        lengths: tuple[float, float] = (0.9, 100.0),
        angles: tuple[float, float] = (50.0, 150.0),
        volume_per_atom: tuple[float, float] | None = None,
        positions: Literal["none", "wyckoff"] = "none",
        min_distance: float = 1.0,
        order: Sequence[str] = PARTS,
    ) -> None:
        numbers = list(range(1, 231)) if space_groups is None else sorted(space_groups)
        check_options(
            elements, numbers, n_elements, n_atoms, n_atoms_per_element, volume_per_atom, order
        )
        self.elements = elements_by_electronegativity(elements)
        self.space_groups = [space_group(number) for number in numbers]
        self.order = tuple(order)
        self._min_distance = min_distance
        self._cell = Cell(lengths, angles, volume_per_atom)
        self._rules = CrystalRules(
            self.elements,
            self.space_groups,
            n_elements,
            n_atoms,
            n_atoms_per_element,
            charge_neutral,
            mixed_valence,
            pure_elements,
            is_group_first=order[0] == "space_group",
        )
        self._systems = torch.tensor([group.system for group in self.space_groups])
        self._features = CrystalFeatures(self.elements, self.space_groups)
        self._add_parts(positions == "wyckoff")

    def _add_parts(self, has_positions: bool) -> None:
        rules = self._rules
        self._wish = rules.everything(self._cell)
        formulas = rules.compositions(self._wish)
        sites = rules.wyckoff_sites() if has_positions else None
        self._columns = columns = Columns(len(self.elements), sites.width if sites else 0)
        is_group_first = self.order[0] == "space_group"
        group_part = SpaceGroupPart(
            columns,
            self.space_groups,
            formulas.possible_groups,
            None if is_group_first else formulas,
        )
        parts: dict[str, Part] = {
            "space_group": group_part,
            "composition": CompositionPart(
                columns, formulas, rules.most, rules.n_elements[1], rules.n_atoms[1]
            ),
            "lattice": LatticePart(columns, self._cell, self._systems),
        }
        self._parts = {name: parts[name] for name in self.order}
        if sites is not None:
            self._parts["positions"] = PositionsPart(columns, sites)
        self.n_features = self._features.width + (sites.n_inputs if sites is not None else 0)
        sizes = [part.n_actions for part in self._parts.values()]
        self._first = [sum(sizes[:k]) for k in range(len(sizes))]
        self.n_actions = sum(sizes)
        self._part_of = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)])
        self._stage_inputs = torch.eye(len(sizes) + 1)
        self.n_policy_inputs = len(sizes) + 1 + sum(p.n_inputs for p in self._parts.values())
        self.max_steps = sum(part.max_steps for part in self._parts.values())
        self.action_heads, self.circular_heads = self._heads()
        self._has_no_amount = self.action_heads < 0
        classes = group_part.complete(torch.arange(len(self.space_groups)))
        self._reader = CrystalReader(
            columns, classes, rules, self._cell, formulas, sites, self._min_distance, len(sizes)
        )

    def _heads(self) -> tuple[Tensor, tuple[bool, ...]]:
        """One head a lattice parameter, and one for each of the three coordinates."""
        heads = torch.full((self.n_actions,), -1)
        n_heads = 0
        for first, part in zip(self._first, self._parts.values(), strict=True):
            heads[first + part.n_actions - part.n_heads : first + part.n_actions] = torch.arange(
                n_heads, n_heads + part.n_heads
            )
            n_heads += part.n_heads
        return heads, (False,) * n_heads

    def initial_states(self, n: int) -> Tensor:
        """Nothing chosen: zeros."""
        return self._stage_inputs.new_zeros(n, self._columns.width, dtype=torch.float64)

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once every part is finished."""
        return states[:, STAGE] == len(self._parts)

    def forward_mask(self, states: Tensor) -> Tensor:
        """What some valid crystal needs next."""
        mask = torch.zeros(len(states), self.n_actions, dtype=torch.bool, device=states.device)
        for first, part, rows in self._split(states[:, STAGE]):
            mask[rows, first : first + part.n_actions] = part.forward_mask(states[rows])
        return mask

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Step in the part under way; the next follows once it is finished."""
        children = states.clone()
        amounts = states.new_zeros(len(states)) if amounts is None else amounts.double()
        for first, part, rows in self._split(states[:, STAGE]):
            moved = children[rows]
            is_finished = part.step(moved, actions[rows] - first, amounts[rows])
            moved[:, STAGE] += is_finished
            children[rows] = moved
        return children

    def backward_mask(self, states: Tensor) -> Tensor:
        """What undoes the last step of the part under way, or of the one before if it is new."""
        mask = torch.zeros(len(states), self.n_actions, dtype=torch.bool, device=states.device)
        last = states[:, STAGE] - 1
        for _, part, rows in self._split(states[:, STAGE]):
            last[rows] += part.has_begun(states[rows])
        for first, part, rows in self._split(last):
            mask[rows, first : first + part.n_actions] = part.backward_mask(states[rows])
        return mask

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Step back in the part that the action belongs to, which is then under way again."""
        parents = states.clone()
        stage = self._part_of[actions]
        parents[:, STAGE] = stage.double()
        for first, part, rows in self._split(stage):
            moved = parents[rows]
            part.step_back(moved, actions[rows] - first)
            parents[rows] = moved
        return parents

    def policy_inputs(self, states: Tensor) -> Tensor:
        """The part under way one-hot, then the inputs of all parts."""
        stage = self._stage_inputs[states[:, STAGE].long()]
        return torch.cat([stage, *(part.inputs(states) for part in self._parts.values())], dim=1)

    def amount_range(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """All of (0, 1), or what a restriction leaves."""
        low, high = super().amount_range(states, actions)
        for first, part, rows in self._continuous(actions):
            low[rows], high[rows] = part.amount_range(states[rows], actions[rows] - first)
        return low, high

    def amounts_between(self, parents: Tensor, actions: Tensor, children: Tensor) -> Tensor:
        """Where in its range each new parameter or coordinate lies."""
        amounts = super().amounts_between(parents, actions, children)
        for first, part, rows in self._continuous(actions):
            amounts[rows] = part.amounts_between(
                parents[rows], actions[rows] - first, children[rows]
            )
        return amounts

    def log_width(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log of the share of a parameter's whole range that is open."""
        widths = super().log_width(states, actions)
        for first, part, rows in self._continuous(actions):
            widths[rows] = part.log_width(states[rows], actions[rows] - first)
        return widths

    def features(self, states: Tensor) -> Tensor:
        """See `CrystalFeatures`; with positions also `WyckoffSites.inputs`, scaled to [0, 1]."""
        lattice = self._cell.complete(states[:, self._columns.lattice], self._system(states))
        features = self._features(
            states[:, self._columns.counts],
            self._group(states),
            lattice[:, [3, 4, 5, 0, 1, 2]],
            self.volumes(states),
        )
        positions = self._parts.get("positions")
        if positions is None:
            return features
        return torch.cat([features, (1 + positions.inputs(states).double()) / 2], dim=1)

    def volumes(self, states: Tensor) -> Tensor:
        """Volume of each conventional cell, `(n,)` Å³."""
        return self._cell.volume(states[:, self._columns.lattice], self._system(states))

    def counts(self, states: Tensor) -> Tensor:
        """Atoms of each of `elements` in the conventional cell, `(n, e)` float64."""
        return states[:, self._columns.counts]

    def keys(self, states: Tensor) -> list[str]:
        """Such as `Mg4 O4 | 225 | 4.2100 4.2100 4.2100 | 90.00 90.00 90.00`: atoms of the
        conventional cell, space group, lengths in Å, angles in degrees; with positions also a
        site an orbit, such as `| Mg:a O:b`, with its coordinates where it has free ones.
        """
        return self._reader.keys(states)

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote."""
        return self._reader.from_keys(keys)

    def decode(self, states: Tensor) -> list[Candidate]:
        """Structures of the conventional cell; a `PlacementError` where atoms find no room."""
        return self._reader.structures(states)

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of pymatgen Structures, lattice parameters to 0.0001 Å and 0.01 degrees.

        The space group is `properties["space_group"]` (then the cell must be conventional), or
        else what spglib finds. ValueError says why a structure is not in this space.
        """
        return self._reader.from_structures(candidates)

    def restricted(self, where: Mapping[str, Any]) -> Crystal:
        """Keys: see `sampler.environments.crystal_where.read_where`. Restrictions add up."""
        wish = read_where(where, self._rules, self._wish)
        try:
            formulas = self._rules.compositions(wish)
        except ValueError as error:
            raise ValueError(f"where: {dict(where)}: {error}") from error
        narrowed = copy.copy(self)
        narrowed._wish = wish
        narrowed._parts = {
            name: part.narrowed(formulas, wish) for name, part in self._parts.items()
        }
        return narrowed

    def families(self, states: Tensor) -> list[str]:
        """Reduced formula, such as `MgO`: polymorphs are variants of one compound.

        Space group and lattice are not enough to tell two crystals apart: relaxation often takes
        them to the same one.
        """
        atoms = self._reader.atoms(states)
        return [Composition(counts).reduced_formula for counts in atoms]

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns formula, space_group, n_atoms and volume_per_atom (Å³)."""
        rows = zip(
            self._reader.atoms(states),
            self._group(states).tolist(),
            self.volumes(states).tolist(),
            strict=True,
        )
        return [
            {
                "formula": Composition(counts).reduced_formula,
                "space_group": f"{self.space_groups[group].symbol} "
                f"({self.space_groups[group].number})",
                "n_atoms": sum(counts.values()),
                "volume_per_atom": volume / sum(counts.values()),
            }
            for counts, group, volume in rows
        ]

    def _split(self, stages: Tensor) -> Iterator[tuple[int, Part, Tensor | slice]]:
        """For each part whose number is in `stages` `(n,)`: first action, part, its rows."""
        if len(stages) == 0:
            return
        parts = list(self._parts.values())
        low, high = (int(end) for end in torch.aminmax(stages))
        if low == high:  # no look-up, no copies
            if 0 <= low < len(parts):
                yield self._first[low], parts[low], slice(None)
            return
        for k in range(max(low, 0), min(high + 1, len(parts))):
            rows = (stages == k).nonzero()[:, 0]
            if len(rows) > 0:
                yield self._first[k], parts[k], rows

    def _continuous(self, actions: Tensor) -> Iterator[tuple[int, Part, Tensor | slice]]:
        """As `_split`, by the part of each action, actions with amounts only."""
        stages = self._part_of[actions].masked_fill(self._has_no_amount[actions], -1)
        return self._split(stages)

    def _group(self, states: Tensor) -> Tensor:
        return (states[:, self._columns.group].long() - 1).clamp_min(0)

    def _system(self, states: Tensor) -> Tensor:
        return self._systems[self._group(states)]

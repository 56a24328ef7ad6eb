"""Inorganic crystals: space group, composition, lattice (Crystal-GFN's three parts), positions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sampler.distances import euclidean
from sampler.environment import Candidate
from sampler.environments.crystal_cell import Cell
from sampler.environments.crystal_classes import CRYSTAL_LATTICE_SYSTEMS, POINT_SYMMETRIES
from sampler.environments.crystal_elements import elements_by_electronegativity
from sampler.environments.crystal_features import CrystalFeatures
from sampler.environments.crystal_metric import CrystalParts, crystal_distances
from sampler.environments.crystal_part import Columns, Part
from sampler.environments.crystal_part_by_part import PartByPart
from sampler.environments.crystal_part_composition import CompositionPart
from sampler.environments.crystal_part_lattice import LatticePart
from sampler.environments.crystal_part_positions import PositionsPart
from sampler.environments.crystal_part_space_group import SpaceGroupPart
from sampler.environments.crystal_reader import CrystalReader
from sampler.environments.crystal_rules import PARTS, CrystalRules, check_options
from sampler.environments.crystal_symmetry import space_group
from sampler.environments.crystal_where import check_wanted, read_where
from sampler.environments.crystal_writer import CrystalWriter


class Crystal(PartByPart):
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
    the parts; the lattice comes after the space group. `measure`: what each crystal counts by
    before a reward speaks (`log_measure`): `per_group`, as `sampler.environments.crystal_measure`
    says, so that groups and numbers of elements with few compositions do not drown, or `uniform`.
    ValueError when no crystal satisfies them.

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
    n_ways = 2  # crystal-lattice system or point symmetry first; all else has one order

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
        measure: Literal["uniform", "per_group"] = "uniform",
    ) -> None:
        check_options(locals())
        numbers = range(1, 231) if space_groups is None else sorted(space_groups)
        self.elements = elements_by_electronegativity(elements)
        self.space_groups = [space_group(number) for number in numbers]
        self.order = tuple(order)
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
        self._add_parts(positions == "wyckoff", min_distance)
        # That of the whole space, also where a restriction leaves a part of it.
        self._log_n = self._rules.log_n_compositions(self._cell) if measure == "per_group" else None

    def _add_parts(self, has_positions: bool, min_distance: float) -> None:
        rules = self._rules
        self._wish = rules.everything(self._cell)
        self._where: tuple[Mapping[str, Any], ...] = ()
        self._formulas = formulas = rules.compositions(self._wish)
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
        parts = {name: parts[name] for name in self.order}
        if sites is not None:
            parts["positions"] = PositionsPart(columns, sites)
        self._set_parts(parts, columns.width)
        self.n_features = self._features.width + (sites.n_inputs if sites is not None else 0)
        classes = group_part.complete(torch.arange(len(self.space_groups)))
        self._reader = CrystalReader(
            columns, classes, rules, self._cell, formulas, sites, len(parts)
        )
        self._writer = CrystalWriter(
            columns, self.elements, self.space_groups, self._cell, sites, min_distance
        )

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
        return self._writer.keys(states)

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote."""
        return self._wanted(self._reader.from_keys(keys))

    def decode(self, states: Tensor) -> list[Candidate]:
        """Structures of the conventional cell; a `PlacementError` where atoms find no room."""
        return self._writer.structures(states)

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of pymatgen Structures, lattice parameters to 0.0001 Å and 0.01 degrees.

        The space group is what spglib finds, by elements whatever their charges and spins; of a
        structure that `decode` made (its `properties` have a key) it is the one it was made in.
        ValueError says why a structure is not in this space.
        """
        return self._wanted(self._reader.from_structures(candidates))

    def restricted(self, where: Mapping[str, Any]) -> Crystal:
        """Keys: see `sampler.environments.crystal_where.read_where`. Restrictions add up."""
        wish = read_where(where, self._rules, self._wish)
        try:
            formulas = self._rules.compositions(wish)
        except ValueError as error:
            raise ValueError(f"where: {dict(where)}: {error}") from error
        narrowed = copy.copy(self)
        narrowed._wish, narrowed._formulas = wish, formulas
        narrowed._where = (*self._where, where)
        narrowed._parts = {
            name: part.narrowed(formulas, wish) for name, part in self._parts.items()
        }
        return narrowed

    def families(self, states: Tensor) -> list[str]:
        """Reduced formula, such as `MgO`: polymorphs are variants of one compound.

        Space group and lattice are not enough to tell two crystals apart: relaxation often takes
        them to the same one.
        """
        return self._writer.families(states)

    def log_measure(self, states: Tensor) -> Tensor:
        """0, or with `measure: per_group` -log N of group and number of elements, `(n,)`.

        See `sampler.environments.crystal_measure`.
        """
        if self._log_n is None:
            return super().log_measure(states)
        return -self._log_n[self._group(states), (self.counts(states) > 0).sum(dim=1)]

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """See `crystal_distances`; with positions the mean of it and of the differing sites."""
        apart = crystal_distances(self._compared(a), self._compared(b))
        positions = self._parts.get("positions")
        if positions is None:
            return apart
        sites = euclidean((1 + positions.inputs(a)) / 2, (1 + positions.inputs(b)) / 2)
        return (apart + sites) / 2

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns formula, space_group, n_atoms and volume_per_atom (Å³)."""
        return self._writer.describe(states)

    def _compared(self, states: Tensor) -> CrystalParts:
        group, system = self._group(states), self._system(states)
        lattice = self._cell.complete(states[:, self._columns.lattice], system)
        lengths_first = lattice[:, [3, 4, 5, 0, 1, 2]]
        return CrystalParts(self.counts(states), lengths_first, group, system)

    def _wanted(self, states: Tensor) -> Tensor:
        """Return finished `states` of the whole space; ValueError where a restriction bars one."""
        if self._where:
            cells = self._cell.complete(states[:, self._columns.lattice], self._system(states))
            fits = self._formulas.group_mask(self.counts(states).long())
            is_wanted = fits.gather(1, self._group(states)[:, None])[:, 0]
            is_wanted &= self._wish.groups.to(states.device)[self._group(states)]
            is_wanted &= self._wish.cell.are_inside(cells)
            check_wanted(is_wanted, self._where, lambda rows: self.keys(states[rows]))
        return states

    def _group(self, states: Tensor) -> Tensor:
        return (states[:, self._columns.group].long() - 1).clamp_min(0)

    def _system(self, states: Tensor) -> Tensor:
        return self._systems[self._group(states)]

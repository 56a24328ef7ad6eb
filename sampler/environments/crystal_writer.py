"""From states of crystals to text, structures and columns of tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure
from torch import Tensor

from sampler.environment import Candidate
from sampler.environments.crystal_cell import Cell
from sampler.environments.crystal_part import Columns
from sampler.environments.crystal_placement import Blueprint, PlacementError, place
from sampler.environments.crystal_sites import WyckoffSites
from sampler.environments.crystal_structures import SitedCrystal, build
from sampler.environments.crystal_symmetry import SpaceGroup
from sampler.environments.crystal_text import NamedSite, format_key, format_sites


class CrystalWriter:
    """What terminal states `(n, w)` say. `CrystalReader` leads back.

    `sites`: None in a space without positions, whose structures get some at random.
    """

    def __init__(
        self,
        columns: Columns,
        elements: Sequence[Element],
        groups: Sequence[SpaceGroup],
        cell: Cell,
        sites: WyckoffSites | None,
        min_distance: float,
    ) -> None:
        self._columns, self._cell = columns, cell
        self._sites, self._min_distance = sites, min_distance
        self._symbols = [element.symbol for element in elements]
        self._groups = list(groups)
        self._systems = torch.tensor([group.system for group in groups])

    def atoms(self, states: Tensor) -> list[dict[str, int]]:
        """Atoms of each element in the conventional cell."""
        rows = states[:, self._columns.counts].long().tolist()
        return [
            {symbol: n for symbol, n in zip(self._symbols, row, strict=True) if n > 0}
            for row in rows
        ]

    def blueprints(self, states: Tensor) -> list[Blueprint]:
        """What each terminal state says."""
        groups = states[:, self._columns.group].long() - 1
        lattices = self._cell.complete(states[:, self._columns.lattice], self._systems[groups])
        made = []
        for atoms, group, row in zip(
            self.atoms(states), groups.tolist(), lattices.tolist(), strict=True
        ):
            number, lattice = self._groups[group].number, (*row[3:], *row[:3])
            made.append(Blueprint(format_key(number, atoms, lattice), number, atoms, lattice))
        return made

    def keys(self, states: Tensor) -> list[str]:
        """See `Crystal.keys`."""
        keys = [blueprint.key for blueprint in self.blueprints(states)]
        if self._sites is None:
            return keys
        return [
            f"{key} | {format_sites(number, sites)}"
            for key, (number, sites) in zip(keys, self._placed(states), strict=True)
        ]

    def structures(self, states: Tensor) -> list[Candidate]:
        """A Structure of each state, or the `PlacementError` that says why there is none."""
        blueprints = self.blueprints(states)
        if self._sites is None:
            return [_or_error(partial(place, blueprint)) for blueprint in blueprints]
        crystals = [
            SitedCrystal(number, blueprint.lattice, tuple(sites))
            for blueprint, (number, sites) in zip(blueprints, self._placed(states), strict=True)
        ]
        return [
            _or_error(partial(build, crystal, self._min_distance, key=key))
            for crystal, key in zip(crystals, self.keys(states), strict=True)
        ]

    def families(self, states: Tensor) -> list[str]:
        """See `Crystal.families`."""
        return [Composition(counts).reduced_formula for counts in self.atoms(states)]

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """See `Crystal.describe`."""
        groups = states[:, self._columns.group].long() - 1
        volumes = self._cell.volume(states[:, self._columns.lattice], self._systems[groups])
        rows = zip(self.atoms(states), groups.tolist(), volumes.tolist(), strict=True)
        return [
            {
                "formula": Composition(counts).reduced_formula,
                "space_group": f"{self._groups[group].symbol} ({self._groups[group].number})",
                "n_atoms": sum(counts.values()),
                "volume_per_atom": volume / sum(counts.values()),
            }
            for counts, group, volume in rows
        ]

    def _placed(self, states: Tensor) -> list[tuple[int, list[NamedSite]]]:
        """Space group and sites of each state."""
        if self._sites is None:
            return []
        groups = states[:, self._columns.group].long() - 1
        rows = self._sites.sites(
            states[:, self._columns.positions], groups, states[:, self._columns.counts].long()
        )
        return [
            (
                self._groups[group].number,
                [(self._symbols[e], letter, xyz) for e, letter, xyz in row],
            )
            for group, row in zip(groups.tolist(), rows, strict=True)
        ]


def _or_error(make: Callable[[], Structure]) -> Candidate:
    try:
        return make()
    except PlacementError as error:
        return error

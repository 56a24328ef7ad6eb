"""From states of crystals to text and structures, and back: why a crystal is not in a space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from pymatgen.core.structure import Structure
from torch import Tensor

from sampler.environment import Candidate
from sampler.environments.crystal_alternatives import Compositions
from sampler.environments.crystal_cell import Cell
from sampler.environments.crystal_part import STAGE, Columns
from sampler.environments.crystal_placement import Blueprint, PlacementError, place, read
from sampler.environments.crystal_ranges import lattice_of
from sampler.environments.crystal_rules import CrystalRules
from sampler.environments.crystal_sites import WyckoffSites
from sampler.environments.crystal_structures import SitedCrystal, build, read_sites
from sampler.environments.crystal_symmetry import SpaceGroup, is_compatible
from sampler.environments.crystal_text import (
    Site,
    format_key,
    format_sites,
    parse_key,
    parse_key_with_sites,
)

TOLERANCES = (0.1, 0.01)
"""Degrees and Å by which a given cell may be off what its lattice system demands."""


class CrystalReader:
    """Blueprints of terminal states, and terminal states of blueprints.

    `classes` `(g, 3)`: the columns system, point and group of each space group. `sites`: None in
    a space without positions, whose structures get some at random.
    """

    def __init__(
        self,
        columns: Columns,
        classes: Tensor,
        rules: CrystalRules,
        cell: Cell,
        formulas: Compositions,
        sites: WyckoffSites | None,
        min_distance: float,
        n_parts: int,
    ) -> None:
        self._columns, self._classes, self._rules = columns, classes, rules
        self._cell, self._formulas = cell, formulas
        self._sites, self._min_distance = sites, min_distance
        self._n_parts = n_parts
        self._symbols = [element.symbol for element in rules.elements]
        self._numbers = [group.number for group in rules.groups]
        self._index = {number: group for group, number in enumerate(self._numbers)}

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
        systems = torch.tensor([group.system for group in self._rules.groups])[groups.cpu()]
        lattices = self._cell.complete(states[:, self._columns.lattice], systems.to(states.device))
        made = []
        for atoms, group, row in zip(
            self.atoms(states), groups.tolist(), lattices.tolist(), strict=True
        ):
            number, lattice = self._numbers[group], (*row[3:], *row[:3])
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

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """The states that `keys` name, `(n, w)`; ValueError says which is not in this space."""
        names = [f"key {key!r}" for key in keys]
        if self._sites is None:
            return self._states([parse_key(key) for key in keys], [[] for _ in keys], names)
        parsed = [parse_key_with_sites(key) for key in keys]
        return self._states([each for each, _ in parsed], [sites for _, sites in parsed], names)

    def from_structures(self, structures: Sequence[Structure]) -> Tensor:
        """The states of pymatgen Structures, `(n, w)`; ValueError as in `from_keys`."""
        for structure in structures:
            if not isinstance(structure, Structure):
                raise ValueError(f"expected a pymatgen Structure, got {type(structure).__name__}")
        names = [structure.formula for structure in structures]
        if self._sites is None:
            return self._states([read(each) for each in structures], [[] for _ in names], names)
        crystals = [read_sites(each) for each in structures]
        blueprints = [Blueprint("", c.space_group, c.counts, c.lattice) for c in crystals]
        return self._states(blueprints, [list(crystal.sites) for crystal in crystals], names)

    def _placed(self, states: Tensor) -> list[tuple[int, list[Site]]]:
        """Space group and sites of each state."""
        if self._sites is None:
            return []
        groups = states[:, self._columns.group].long() - 1
        rows = self._sites.sites(
            states[:, self._columns.positions], groups, states[:, self._columns.counts].long()
        )
        return [
            (self._numbers[group], [(self._symbols[e], letter, xyz) for e, letter, xyz in row])
            for group, row in zip(groups.tolist(), rows, strict=True)
        ]

    def _states(
        self,
        blueprints: Sequence[Blueprint],
        sites: Sequence[Sequence[Site]],
        names: Sequence[str],
    ) -> Tensor:
        """States of crystals, `(n, w)`; ValueError names one that is not in this space."""
        device = self._classes.device
        groups, counts, lattices = [], [], []
        for blueprint, name in zip(blueprints, names, strict=True):
            with _named(name):
                group = self._group(blueprint)
                groups.append(group)
                counts.append(self._counts(blueprint, group))
                system = self._rules.groups[group].system
                lattices.append(lattice_of(system, blueprint.lattice, TOLERANCES))
        group_column = torch.tensor(groups, dtype=torch.int64, device=device)
        atoms = torch.tensor(counts, dtype=torch.int64, device=device)
        atoms = atoms.view(len(names), len(self._symbols))
        values = torch.tensor(lattices, dtype=torch.float64, device=device).view(len(names), 6)
        self._check_balance(blueprints, group_column, atoms, names)
        self._check_cells(blueprints, groups, atoms, values, names)
        states = torch.zeros(len(names), self._columns.width, dtype=torch.float64, device=device)
        states[:, STAGE] = self._n_parts
        states[:, self._columns.system : self._columns.group + 1] = self._classes[group_column]
        states[:, self._columns.pending] = -1.0
        states[:, self._columns.counts] = atoms.double()
        states[:, self._columns.lattice] = values
        if self._sites is not None:
            for row, (placed, name) in enumerate(zip(sites, names, strict=True)):
                with _named(name):
                    states[row, self._columns.positions] = self._positions(
                        self._sites, placed, group_column[row : row + 1], atoms[row : row + 1]
                    )
        return states

    def _positions(
        self, machine: WyckoffSites, sites: Sequence[Site], group: Tensor, counts: Tensor
    ) -> Tensor:
        for symbol, _, _ in sites:
            if symbol not in self._symbols:
                raise ValueError(f"element {symbol} is not among elements")
        row = [(self._symbols.index(symbol), letter, xyz) for symbol, letter, xyz in sites]
        return machine.columns_of([row], group, counts)[0]

    def _check_balance(
        self, blueprints: Sequence[Blueprint], groups: Tensor, counts: Tensor, names: Sequence[str]
    ) -> None:
        fits = self._formulas.group_mask(counts).gather(1, groups[:, None])[:, 0]
        for row in (~fits).nonzero()[:1, 0].tolist():
            atoms = blueprints[row].counts
            with _named(names[row]):
                raise ValueError(f"{_text(atoms)} is not neutral with {self._states_text(atoms)}")

    def _check_cells(
        self,
        blueprints: Sequence[Blueprint],
        groups: Sequence[int],
        counts: Tensor,
        values: Tensor,
        names: Sequence[str],
    ) -> None:
        kinds = [self._rules.groups[group].system for group in groups]
        systems = torch.tensor(kinds, dtype=torch.int64, device=values.device)
        n_atoms = counts.sum(dim=1)
        is_inside = self._cell.contains(values, systems, n_atoms)
        for row in (~is_inside).nonzero()[:1, 0].tolist():
            with _named(names[row]):  # which says why
                lattice = blueprints[row].lattice
                self._cell.nearest(lattice, kinds[row], int(n_atoms[row]), TOLERANCES)

    def _group(self, blueprint: Blueprint) -> int:
        if blueprint.space_group not in self._index:
            raise ValueError(f"space group {blueprint.space_group} is not among space_groups")
        return self._index[blueprint.space_group]

    def _counts(self, blueprint: Blueprint, group: int) -> list[int]:
        """Atoms of each element; ValueError names the rule that they break, charges apart."""
        rules, atoms = self._rules, blueprint.counts
        for symbol, n in atoms.items():
            if symbol not in self._symbols:
                raise ValueError(f"element {symbol} is not among elements")
            _check_range(n, rules.n_atoms_per_element, f"n_atoms_per_element: {symbol}")
        _check_range(len(atoms), rules.n_elements, "n_elements")
        _check_range(sum(atoms.values()), rules.n_atoms, "n_atoms")
        if not is_compatible(rules.groups[group], list(atoms.values())):
            raise ValueError(
                f"{_text(atoms)} fills no Wyckoff sites of {_name(rules.groups[group])}"
            )
        return [atoms.get(symbol, 0) for symbol in self._symbols]

    def _states_text(self, atoms: Mapping[str, int]) -> str:
        charges = self._rules.charges or ()
        return "oxidation states " + ", ".join(
            f"{symbol} {'/'.join(f'{state:+d}' for state in states)}"
            for symbol, states in zip(self._symbols, charges, strict=True)
            if symbol in atoms
        )


def _check_range(value: int, allowed: tuple[int, int], name: str) -> None:
    if not allowed[0] <= value <= allowed[1]:
        raise ValueError(f"{name}: {value} is not within {allowed[0]} to {allowed[1]}")


def _text(atoms: Mapping[str, int]) -> str:
    return " ".join(f"{symbol}{n}" for symbol, n in atoms.items())


@contextmanager
def _named(name: str) -> Iterator[None]:
    """A ValueError inside says that crystal `name` is not in this space."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name} is not in this space: {error}") from error


def _name(group: SpaceGroup) -> str:
    return f"space group {group.symbol} ({group.number})"


def _or_error(make: Callable[[], Structure]) -> Candidate:
    try:
        return make()
    except PlacementError as error:
        return error

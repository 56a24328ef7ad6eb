"""From states of crystals to text and structures, and back: why a crystal is not in a space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from pymatgen.core.structure import Structure
from torch import Tensor

from sampler.environment import Candidate
from sampler.environments.crystal_alternatives import Compositions
from sampler.environments.crystal_cell import Cell
from sampler.environments.crystal_part import STAGE, Columns
from sampler.environments.crystal_placement import Blueprint, PlacementError, place, read
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

    def from_key(self, key: str) -> Tensor:
        """The state that `key` names, `(1, w)`."""
        if self._sites is None:
            return self._state(parse_key(key), None, f"key {key!r}")
        blueprint, sites = parse_key_with_sites(key)
        return self._state(blueprint, sites, f"key {key!r}")

    def from_structure(self, structure: Structure) -> Tensor:
        """The state of a pymatgen Structure, `(1, w)`; ValueError if it is not in this space."""
        if not isinstance(structure, Structure):
            raise ValueError(f"expected a pymatgen Structure, got {type(structure).__name__}")
        if self._sites is None:
            return self._state(read(structure), None, structure.formula)
        crystal = read_sites(structure)
        blueprint = Blueprint("", crystal.space_group, crystal.counts, crystal.lattice)
        return self._state(blueprint, list(crystal.sites), structure.formula)

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

    def _state(self, blueprint: Blueprint, sites: Sequence[Site] | None, name: str) -> Tensor:
        try:
            group = self._group(blueprint)
            counts = self._counts(blueprint, group)
            system = torch.tensor([self._rules.groups[group].system])
            values = self._cell.nearest(blueprint.lattice, system, int(counts.sum()))
            positions = self._positions(sites or [], group, counts)
        except ValueError as error:
            raise ValueError(f"{name} is not in this space: {error}") from error
        state = torch.zeros(1, self._columns.width, dtype=torch.float64)
        state[:, STAGE] = self._n_parts
        state[:, self._columns.system : self._columns.group + 1] = self._classes[group].cpu()
        state[:, self._columns.pending] = -1.0
        state[:, self._columns.counts] = counts.double()
        state[:, self._columns.lattice] = values.cpu()
        state[:, self._columns.positions] = positions
        return state.to(self._classes.device)

    def _positions(self, sites: Sequence[Site], group: int, counts: Tensor) -> Tensor:
        if self._sites is None:
            return torch.zeros(1, 0, dtype=torch.float64)
        device = self._classes.device
        row = [(self._symbols.index(symbol), letter, xyz) for symbol, letter, xyz in sites]
        groups = torch.tensor([group], device=device)
        return self._sites.columns_of([row], groups, counts.to(device)).cpu()

    def _group(self, blueprint: Blueprint) -> int:
        if blueprint.space_group not in self._numbers:
            raise ValueError(f"space group {blueprint.space_group} is not among space_groups")
        return self._numbers.index(blueprint.space_group)

    def _counts(self, blueprint: Blueprint, group: int) -> Tensor:
        """Atoms of each element, `(1, e)`; ValueError names the rule that they break."""
        rules, atoms = self._rules, blueprint.counts
        for symbol, n in atoms.items():
            if symbol not in self._symbols:
                raise ValueError(f"element {symbol} is not among elements")
            _check_range(n, rules.n_atoms_per_element, f"n_atoms_per_element: {symbol}")
        _check_range(len(atoms), rules.n_elements, "n_elements")
        _check_range(sum(atoms.values()), rules.n_atoms, "n_atoms")
        text = " ".join(f"{symbol}{n}" for symbol, n in atoms.items())
        if not is_compatible(rules.groups[group], list(atoms.values())):
            raise ValueError(f"{text} fills no Wyckoff sites of {_name(rules.groups[group])}")
        counts = torch.tensor([[atoms.get(symbol, 0) for symbol in self._symbols]])
        fits = self._formulas.group_mask(counts.to(self._classes.device))
        if not bool(fits[0, group]):
            raise ValueError(f"{text} is not neutral with {self._states_text(atoms)}")
        return counts

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


def _name(group: SpaceGroup) -> str:
    return f"space group {group.symbol} ({group.number})"


def _or_error(make: Callable[[], Structure]) -> Candidate:
    try:
        return make()
    except PlacementError as error:
        return error

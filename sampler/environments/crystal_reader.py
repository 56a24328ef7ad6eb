"""From text and structures of crystals to states: why a crystal is not in a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from pymatgen.core.structure import Structure
from torch import Tensor

from sampler.environments.crystal_cell import Cell
from sampler.environments.crystal_formula_rules import Compositions
from sampler.environments.crystal_parameters import lattice_of
from sampler.environments.crystal_part import STAGE, Columns
from sampler.environments.crystal_placement import Blueprint
from sampler.environments.crystal_rules import CrystalRules
from sampler.environments.crystal_sites import WyckoffSites
from sampler.environments.crystal_standard import standard
from sampler.environments.crystal_structures import read_structure
from sampler.environments.crystal_symmetry import SpaceGroup, is_compatible
from sampler.environments.crystal_text import NamedSite, parse_key, parse_key_with_sites

TOLERANCES = (0.1, 0.01)
"""Degrees and Å by which a given cell may be off what its lattice system demands."""


Read = tuple[Blueprint, list[NamedSite]]
"""A crystal and, in a space with positions, its sites."""


class CrystalReader:
    """Terminal states of crystals.

    `classes` `(g, 3)`: the columns system, point and group of each space group. `sites`: None in
    a space without positions.
    """

    def __init__(
        self,
        columns: Columns,
        classes: Tensor,
        rules: CrystalRules,
        cell: Cell,
        formulas: Compositions,
        sites: WyckoffSites | None,
        n_parts: int,
    ) -> None:
        self._columns, self._classes, self._rules = columns, classes, rules
        self._cell, self._formulas = cell, formulas
        self._sites, self._n_parts = sites, n_parts
        self._symbols = [element.symbol for element in rules.elements]
        self._index = {group.number: index for index, group in enumerate(rules.groups)}

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """The states that `keys` name, `(n, w)`; ValueError says which is not in this space."""
        names = [f"key {key!r}" for key in keys]
        if self._sites is None:
            return self._states([(parse_key(key), []) for key in keys], names)
        return self._states([parse_key_with_sites(key) for key in keys], names)

    def from_structures(self, structures: Sequence[Structure]) -> Tensor:
        """The states of pymatgen Structures, `(n, w)`; ValueError as in `from_keys`."""
        for structure in structures:
            if not isinstance(structure, Structure):
                raise ValueError(f"expected a pymatgen Structure, got {type(structure).__name__}")
        names = [structure.formula or "an empty structure" for structure in structures]
        read = _blueprint if self._sites is None else _blueprint_and_sites
        crystals = []
        for structure, name in zip(structures, names, strict=True):
            with _named(name):
                crystals.append(read(structure))
        return self._states(crystals, names)

    def _states(self, crystals: Sequence[Read], names: Sequence[str]) -> Tensor:
        """States of crystals, `(n, w)`; ValueError names one that is not in this space."""
        blueprints = [blueprint for blueprint, _ in crystals]
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
        self._check_cells(blueprints, groups, atoms, values, names)
        self._check_balance(blueprints, group_column, atoms, names)
        states = torch.zeros(len(names), self._columns.width, dtype=torch.float64, device=device)
        states[:, STAGE] = self._n_parts
        states[:, self._columns.system : self._columns.group + 1] = self._classes[group_column]
        states[:, self._columns.pending] = -1.0
        states[:, self._columns.counts] = atoms.double()
        states[:, self._columns.lattice] = values
        if self._sites is not None:
            for row, ((_, placed), name) in enumerate(zip(crystals, names, strict=True)):
                with _named(name):
                    states[row, self._columns.positions] = self._positions(
                        self._sites, placed, group_column[row : row + 1], atoms[row : row + 1]
                    )
        return states

    def _positions(
        self, machine: WyckoffSites, sites: Sequence[NamedSite], group: Tensor, counts: Tensor
    ) -> Tensor:
        for symbol, _, _ in sites:
            if symbol not in self._symbols:
                raise ValueError(f"element {symbol} is not among elements")
        row = [(self._symbols.index(symbol), letter, xyz) for symbol, letter, xyz in sites]
        return machine.columns_of([row], group, counts)[0]

    def _check_balance(
        self, blueprints: Sequence[Blueprint], groups: Tensor, counts: Tensor, names: Sequence[str]
    ) -> None:
        """Charges: all that numbers of atoms, sites and cells, checked before, leave to break."""
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


def _blueprint(structure: Structure) -> Read:
    number, cell, _ = standard(structure)
    counts = {symbol: round(n) for symbol, n in cell.composition.get_el_amt_dict().items()}
    return Blueprint("", number, counts, tuple(cell.lattice.parameters)), []


def _blueprint_and_sites(structure: Structure) -> Read:
    crystal = read_structure(structure)
    blueprint = Blueprint("", crystal.space_group, crystal.counts, crystal.lattice)
    return blueprint, list(crystal.sites)


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

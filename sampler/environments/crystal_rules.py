"""What a crystal has to obey, from checked options or a restriction to exact masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from pymatgen.core.periodic_table import Element
from torch import Tensor

from sampler.environments.crystal_cell import Cell
from sampler.environments.crystal_elements import oxidation_states
from sampler.environments.crystal_formula import FormulaRules, Formulas
from sampler.environments.crystal_formula_rules import Alternatives, Compositions
from sampler.environments.crystal_measure import MEASURES, log_n_compositions
from sampler.environments.crystal_site_automaton import site_automaton
from sampler.environments.crystal_site_classes import SiteClasses, site_classes
from sampler.environments.crystal_sites import WyckoffSites
from sampler.environments.crystal_symmetry import SpaceGroup

PARTS = ("space_group", "composition", "lattice")
POSITIONS = ("none", "wyckoff")

_MOST = {"n_elements": 7, "n_atoms": 400, "n_atoms_per_element": 400}
"""Tables of larger numbers would take minutes and gigabytes."""


@dataclass(frozen=True)
class Wish:
    """Which crystals are wanted.

    `groups` `(g,)` bool. `allowed`: alternatives, each `(e, c + 1)` bool: whether an element may
    have so many atoms, column 0 for none.
    """

    groups: Tensor
    allowed: tuple[Tensor, ...]
    n_elements: tuple[int, int]
    n_atoms: tuple[int, int]
    cell: Cell


class CrystalRules:
    """The options of a crystal space that concern composition and space group."""

    def __init__(
        self,
        elements: Sequence[Element],
        groups: Sequence[SpaceGroup],
        n_elements: tuple[int, int],
        n_atoms: tuple[int, int],
        n_atoms_per_element: tuple[int, int],
        charge_neutral: bool,
        mixed_valence: bool,
        pure_elements: bool,
        is_group_first: bool,
    ) -> None:
        self.elements, self.groups = elements, groups
        self.n_elements = (n_elements[0], min(n_elements[1], len(elements)))
        # More atoms than the elements may have together are no limit.
        self.n_atoms = (n_atoms[0], min(n_atoms[1], self.n_elements[1] * n_atoms_per_element[1]))
        self.n_atoms_per_element = n_atoms_per_element
        self.most = min(n_atoms_per_element[1], n_atoms[1])
        self.pure_elements = pure_elements
        self._is_group_first = is_group_first
        self.mixed_valence = mixed_valence
        self.charges = _charges(elements, pure_elements) if charge_neutral else None
        self.automaton = site_automaton(groups, self.most, self.n_elements[1])
        self._systems = torch.tensor([group.system for group in groups])

    def wyckoff_sites(self) -> WyckoffSites:
        """The sites that such compositions may take."""
        return WyckoffSites(self.groups, self.most, self.n_elements[1], self.n_atoms[1])

    def everything(self, cell: Cell) -> Wish:
        """All crystals whose cells `cell` allows."""
        allowed = torch.zeros(len(self.elements), self.most + 1, dtype=torch.bool)
        allowed[:, 0] = True
        allowed[:, self.n_atoms_per_element[0] :] = True
        everything = torch.ones(len(self.groups), dtype=torch.bool)
        return Wish(everything, (allowed,), self.n_elements, self.n_atoms, cell)

    def compositions(self, wish: Wish) -> Compositions:
        """Masks of the compositions that `wish` leaves; ValueError says why there are none."""
        classes = self._classes(wish)
        choices, reasons = [], []
        for allowed in wish.allowed:
            rules = self._formula_rules(wish, allowed)
            formulas = Formulas(rules, classes)
            if bool(formulas.possible_groups.any()):
                choices.append(formulas)
            else:
                reasons.append(formulas.why_none())
        if not choices:
            raise ValueError(f"no crystal is possible: {reasons[0]}")
        return choices[0] if len(choices) == 1 else Alternatives(choices)

    def log_n_compositions(self, cell: Cell) -> Tensor:
        """Of all crystals whose cells `cell` allows: see `crystal_measure`, `(g, k + 1)`."""
        wish = self.everything(cell)
        return log_n_compositions(self._formula_rules(wish, wish.allowed[0]), self._classes(wish))

    def _formula_rules(self, wish: Wish, allowed: Tensor) -> FormulaRules:
        return FormulaRules(
            allowed=allowed,
            n_elements=wish.n_elements,
            n_atoms=wish.n_atoms,
            charges=self.charges,
            mixed_valence=self.mixed_valence,
            pure_elements=self.pure_elements,
        )

    def _classes(self, wish: Wish) -> SiteClasses:
        """States of the sites of the wanted groups that have a cell."""
        possible = wish.cell.possible_n_atoms(wish.n_atoms[1])[self._systems]  # (g, n_atoms + 1)
        has_cell = possible[:, wish.n_atoms[0] :].any(dim=1)
        if not bool((has_cell & wish.groups).any()):
            raise ValueError(
                f"no crystal is possible: no wanted space group has a cell of {wish.n_atoms[0]} to "
                f"{wish.n_atoms[1]} atoms within {wish.cell.ranges()}" + self._why_no_cell(wish)
            )
        is_any = bool(possible[has_cell, 1:].all())
        classes = site_classes(self.automaton, self.n_elements[1], None if is_any else possible)
        if not self._is_group_first:
            classes = classes.joined()
        groups = wish.groups & has_cell
        return classes if bool(groups.all()) else classes.only(groups)

    def _why_no_cell(self, wish: Wish) -> str:
        """What stands against a cell in the first lattice system that is wanted."""
        system = int(self._systems[wish.groups][0])
        reason = wish.cell.conflict(system) or wish.cell.conflict(system, wish.n_atoms[0])
        return "" if reason is None else f": {reason}"


def _charges(elements: Sequence[Element], pure_elements: bool) -> tuple[tuple[int, ...], ...]:
    states = tuple(oxidation_states(element) for element in elements)
    inert = [e.symbol for e, known in zip(elements, states, strict=True) if not known]
    if inert and not pure_elements:
        raise ValueError(
            f"elements: {', '.join(inert)}: no oxidation state is known, so no crystal with it is "
            "charge_neutral; leave it out, or set pure_elements: true or charge_neutral: false"
        )
    return states


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a ValueError, one line, that names the first impossible option.

    The cell's ranges are `Cell`'s to check, single elements `elements_by_electronegativity`'s.
    """
    elements = options["elements"]
    if not _is_list(elements, str) or len(elements) == 0:
        raise _expected("elements", "a list of at least one symbol", elements)
    for name, most in _MOST.items():
        _check_numbers(name, options[name], most)
    if options["n_elements"][0] > len(elements):
        raise ValueError(
            f"n_elements: at least {options['n_elements'][0]} asked, {len(elements)} listed"
        )
    _check_groups(options["space_groups"])
    for name in ("charge_neutral", "mixed_valence", "pure_elements"):
        if not isinstance(options[name], bool):
            raise _expected(name, "true or false", options[name])
    for name, known in (("positions", POSITIONS), ("measure", MEASURES)):
        if options[name] not in known:
            raise _expected(name, f"one of {', '.join(known)}", options[name])
    distance = options["min_distance"]
    if not _is_a(distance, Real) or not 0 <= distance < math.inf:
        raise _expected("min_distance", "a number of 0 or more", distance)
    _check_order(options["order"], options["volume_per_atom"] is not None)


def _check_numbers(name: str, given: Any, most: int) -> None:
    if not _is_list(given, Integral) or len(given) != 2 or not 1 <= given[0] <= given[1]:
        raise _expected(name, "two whole numbers with 1 <= low <= high", given)
    if given[1] > most:
        raise ValueError(f"{name}: expected at most {most}, got {given[1]}")


def _check_groups(numbers: Any) -> None:
    if numbers is None:
        return
    is_set = _is_list(numbers, Integral) and 0 < len(numbers) == len(set(numbers))
    if not is_set or not 1 <= min(numbers) <= max(numbers) <= 230:
        raise _expected("space_groups", "a list of numbers from 1 to 230, none twice", numbers)


def _check_order(order: Any, has_volume: bool) -> None:
    if not _is_list(order, str) or sorted(order) != sorted(PARTS):
        raise _expected("order", f"{', '.join(PARTS)} in some order", order)
    if order.index("lattice") < order.index("space_group"):
        raise ValueError("order: the lattice comes after the space_group, which says what is free")
    if has_volume and order[-1] != "lattice":
        raise ValueError(
            f"order: with volume_per_atom the lattice comes last, got {list(order)}: which cells "
            "are allowed then depends on the number of atoms"
        )


def _is_list(given: Any, kind: type) -> bool:
    return isinstance(given, list | tuple | range) and all(_is_a(each, kind) for each in given)


def _is_a(given: Any, kind: type) -> bool:
    return isinstance(given, kind) and not isinstance(given, bool)


def _expected(name: str, what: str, given: Any) -> ValueError:
    return ValueError(f"{name}: expected {what}, got {given!r}")

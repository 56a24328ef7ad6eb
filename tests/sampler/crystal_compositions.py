"""Small spaces of compositions, and by brute force which of them are valid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import torch
from torch import Tensor

from sampler.environments.crystal_formula import FormulaRules, Formulas
from sampler.environments.crystal_site_automaton import site_automaton
from sampler.environments.crystal_site_classes import SiteClasses, site_classes
from sampler.environments.crystal_symmetry import is_compatible, space_group

MOST = 4
GROUPS = (2, 47, 221, 225)
RIVALS = (86, 180, 200)  # each takes numbers of atoms that the others do not
CHARGES = ((1,), (2, 3), (-1, 4), (-2,))


def rules(**changes: object) -> FormulaRules:
    given = FormulaRules(
        allowed=torch.ones(len(CHARGES), MOST + 1, dtype=torch.bool),
        n_elements=(1, 3),
        n_atoms=(1, 99),
        charges=CHARGES,
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def allowed(*rows: str) -> Tensor:
    """One string an element, a digit for each number of atoms that it may have."""
    return torch.tensor([[str(n) in row for n in range(MOST + 1)] for row in rows])


@dataclass(frozen=True)
class Case:
    rules: FormulaRules
    groups: tuple[int, ...] = GROUPS
    cells: Tensor | None = None


CASES = {
    "sites": Case(rules(charges=None)),
    "charges": Case(rules(), (1, 2)),
    "both": Case(rules()),
    "few elements": Case(rules(n_elements=(1, 1), charges=None)),
    "many elements": Case(rules(n_elements=(3, 9))),
    "atoms from above": Case(rules(n_atoms=(1, 6))),
    "atoms from below": Case(rules(n_atoms=(8, 99))),
    "atoms from both sides": Case(rules(n_atoms=(7, 9), charges=None)),
    "required": Case(rules(allowed=allowed("01234", "1234", "01234", "01234"))),
    "two required": Case(rules(allowed=allowed("01234", "1234", "01234", "234"), n_atoms=(5, 8))),
    "exact formula": Case(rules(allowed=allowed("0", "2", "0", "3"))),
    "gaps": Case(rules(allowed=allowed("024", "013", "0", "0234"))),
    "mixed valence": Case(rules(mixed_valence=True)),
    "mixed valence, atoms": Case(rules(mixed_valence=True, n_atoms=(5, 7))),
    "pure elements": Case(rules(pure_elements=True)),
    "pure elements, atoms": Case(rules(pure_elements=True, n_atoms=(3, 5))),
    "pure elements, required": Case(
        rules(pure_elements=True, allowed=allowed("01234", "01234", "01234", "124"))
    ),
    "pure elements, two required": Case(
        rules(pure_elements=True, allowed=allowed("01234", "1234", "01234", "124"))
    ),
    "pure elements not asked for": Case(rules(pure_elements=True, n_elements=(2, 3))),
    "no oxidation state": Case(rules(charges=((1,), (), (-1, 4), (-2,)), pure_elements=True)),
    "same sign": Case(rules(charges=((1,), (2,), (3,), (1, 2)), pure_elements=True)),
    "negative first": Case(rules(charges=((-2, -3), (-1, 4), (2,), (1, 5)))),
    "rivals": Case(rules(), RIVALS),
    "rivals, no charges": Case(rules(charges=None), RIVALS),
    "rivals, atoms": Case(rules(mixed_valence=True, n_atoms=(3, 9)), RIVALS),
    "cells": Case(
        rules(), GROUPS, torch.tensor([[n % 3 != g % 3 for n in range(11)] for g in range(4)])
    ),
    "cells that groups share": Case(
        rules(charges=None), (3, 3, 221, 221), torch.tensor([[1] * 4, [0] * 4] * 2).bool()
    ),
}


@dataclass(frozen=True)
class Space:
    """All compositions v of the small space, each also seen as a state n."""

    counts: Tensor
    agrees: Tensor
    """Whether v agrees with what n has decided, `(n, v)`."""
    element: Tensor
    """The element that v has next behind those of n, e for none, `(n, v)`."""


@cache
def space() -> Space:
    counts = torch.tensor(list(product(range(MOST + 1), repeat=len(CHARGES))))
    index = torch.arange(len(CHARGES))
    last = ((counts > 0) * (index + 1)).amax(dim=1) - 1
    is_decided = (index <= last[:, None])[:, None]
    agrees = ((counts[:, None] == counts[None]) | ~is_decided).all(dim=2)
    element = torch.where((counts[None] > 0) & ~is_decided, index, len(CHARGES)).amin(dim=2)
    return Space(counts, agrees, element)


@cache
def valid_in(name: str) -> Tensor:
    """Which compositions are valid in which group, and in any as the last column, `(v, g + 1)`."""
    case = CASES[name]
    fits: dict[tuple[int, tuple[int, ...]], bool] = {}
    valid = []
    for counts in space().counts.tolist():
        present = tuple(sorted(n for n in counts if n > 0))
        row = [False] * len(case.groups)
        if present and follows(counts, case.rules):
            for i, number in enumerate(case.groups):
                if (number, present) not in fits:
                    fits[number, present] = is_compatible(space_group(number), present)
                row[i] = fits[number, present] and has_cell(case, i, sum(counts))
        valid.append([*row, any(row)])
    return torch.tensor(valid)


def has_cell(case: Case, group: int, total: int) -> bool:
    if case.cells is None:
        return True
    return total < case.cells.shape[1] and bool(case.cells[group, total])


def follows(counts: list[int], given: FormulaRules) -> bool:
    """The rules one by one, without sites."""
    low, high = given.n_elements
    in_range = low <= sum(n > 0 for n in counts) <= high
    in_range &= given.n_atoms[0] <= sum(counts) <= given.n_atoms[1]
    in_range &= all(bool(given.allowed[i, n]) for i, n in enumerate(counts))
    is_pure = given.pure_elements and sum(n > 0 for n in counts) == 1
    return in_range and (given.charges is None or is_pure or is_neutral(counts, given))


def is_neutral(counts: list[int], given: FormulaRules) -> bool:
    totals = {0}
    for n, states in zip(counts, given.charges or (), strict=True):
        if n > 0 and given.mixed_valence:
            for _ in range(n):
                totals = {q + s for q in totals for s in states}
        elif n > 0:
            totals = {q + n * s for q in totals for s in states}
    return 0 in totals


def classes_of(case: Case, n_elements: int = 4) -> SiteClasses:
    automaton = site_automaton([space_group(n) for n in case.groups], MOST, n_elements)
    return site_classes(automaton, n_elements, case.cells)


@cache
def formulas_of(name: str) -> Formulas:
    return Formulas(CASES[name].rules, classes_of(CASES[name]).joined())


def n_groups(name: str) -> int:
    return len(CASES[name].groups)

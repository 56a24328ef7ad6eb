"""Compositions: masks against brute force over small spaces, and against pymatgen and pyxtal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import gcd, prod
from typing import NamedTuple

import pytest
import torch
from pymatgen.core.composition import Composition
from torch import Tensor

from sampler.environment import _moved
from sampler.environments import crystal_completions, crystal_site_classes
from sampler.environments.crystal_elements import elements_by_electronegativity, oxidation_states
from sampler.environments.crystal_formula import FormulaRules, Formulas
from sampler.environments.crystal_site_automaton import site_automaton
from sampler.environments.crystal_site_classes import SiteClasses, any_sites, site_classes
from sampler.environments.crystal_symmetry import is_compatible, space_group

MOST = 4
GROUPS = (2, 47, 221, 225)
RIVALS = (86, 180, 200)  # each takes numbers of atoms that the others do not
CHARGES = ((1,), (2, 3), (-1, 4), (-2,))
REFERENCE = ["H", "Li", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "V"]
REFERENCE += ["Mn", "Fe", "Co", "Ni", "Cu", "Se"]
MANY_GROUPS = (1, 2, 14, 15, 47, 62, 74, 123, 139, 166, 194, 198, 216, 220, 221, 225, 227, 230)


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


@pytest.mark.parametrize("name", CASES)
class TestBruteForce:
    """Every state there is, whether or not a walk reaches it, in every group and in none."""

    def test_elements_and_counts(self, name: str) -> None:
        formulas, counts, element = formulas_of(name), space().counts, space().element
        for column, valid in enumerate(valid_in(name).T):
            groups = torch.full((len(counts),), column if column < n_groups(name) else -1)
            reachable = space().agrees & valid
            mask = formulas.element_mask(counts, groups)
            for j in range(len(CHARGES)):
                via = reachable & (element == j)
                assert torch.equal(mask[:, j], via.any(dim=1))
                expected = [(via & (counts[:, j] == k)).any(dim=1) for k in range(1, MOST + 1)]
                counted = formulas.count_mask(counts, groups, torch.full_like(groups, j))
                assert torch.equal(counted, torch.stack(expected, dim=1))

    def test_ends(self, name: str) -> None:
        formulas, counts = formulas_of(name), space().counts
        for column, valid in enumerate(valid_in(name).T):
            groups = torch.full((len(counts),), column if column < n_groups(name) else -1)
            assert torch.equal(formulas.done_mask(counts, groups), valid)
            both = formulas.next_mask(counts, groups)
            assert torch.equal(both[:, -1], valid)
            assert torch.equal(both[:, :-1], formulas.element_mask(counts, groups))

    def test_groups(self, name: str) -> None:
        valid = valid_in(name)[:, :-1]
        assert valid.any()
        assert torch.equal(formulas_of(name).group_mask(space().counts), valid)
        assert torch.equal(formulas_of(name).possible_groups, valid.any(dim=0))

    def test_fewer_groups(self, name: str) -> None:
        counts = space().counts
        wanted = torch.arange(n_groups(name)) != 0
        narrow = Formulas(CASES[name].rules, formulas_of(name).classes.only(wanted))
        valid = valid_in(name)[:, :-1] & wanted
        assert torch.equal(narrow.group_mask(counts), valid)
        none = torch.full((len(counts),), -1)
        assert torch.equal(narrow.done_mask(counts, none), valid.any(dim=1))
        reachable = space().agrees & valid.any(dim=1)
        expected = [(reachable & (space().element == j)).any(dim=1) for j in range(len(CHARGES))]
        assert torch.equal(narrow.element_mask(counts, none), torch.stack(expected, dim=1))


def n_groups(name: str) -> int:
    return len(CASES[name].groups)


class TestBadStates:
    """Compositions from outside the space, such as a user's crystals."""

    def test_more_atoms_than_columns(self) -> None:
        counts = torch.tensor([[0, 20, 0, 30], [0, 4, 0, 4]])
        groups = torch.zeros(2, dtype=torch.int64)
        assert formulas_of("both").done_mask(counts, groups).tolist() == [False, True]

    def test_more_elements_than_the_most(self) -> None:
        counts = torch.tensor([[4, 4, 4, 4]])
        formulas, group = formulas_of("few elements"), torch.zeros(1, dtype=torch.int64)
        assert not formulas.next_mask(counts, group).any()
        assert not formulas.group_mask(counts).any()

    def test_nothing_pending(self) -> None:
        counts = torch.zeros(1, 4, dtype=torch.int64)
        none = torch.tensor([-1])
        assert not formulas_of("both").count_mask(counts, none + 1, none).any()

    def test_no_rows(self) -> None:
        counts, none = torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        formulas = formulas_of("both")
        assert formulas.next_mask(counts, none).shape == (0, 5)
        assert formulas.count_mask(counts, none, none).shape == (0, MOST)
        assert formulas.group_mask(counts).shape == (0, 4)

    def test_no_group_needs_joined_classes(self) -> None:
        formulas = Formulas(rules(), classes_of(CASES["both"]))
        counts = torch.zeros(1, 4, dtype=torch.int64)
        with pytest.raises(ValueError, match="joined"):
            formulas.element_mask(counts, torch.tensor([-1]))


def walk(formulas: Formulas, groups: Tensor, seed: int) -> Tensor:
    """Finished compositions of uniformly random walks, one for each of `groups`, `(n, e)`."""
    random = torch.Generator().manual_seed(seed)
    n, n_elements = len(groups), len(formulas.rules.allowed)
    counts = torch.zeros(n, n_elements, dtype=torch.int64)
    is_done = torch.zeros(n, dtype=torch.bool)
    while not is_done.all():
        mask = formulas.next_mask(counts, groups)
        assert (mask.any(dim=1) | is_done).all(), "a dead end"
        mask[is_done, -1] = True
        action = torch.multinomial(mask.double(), 1, generator=random)[:, 0]
        is_done = action == n_elements
        pending = torch.where(is_done, -1, action)
        mask = formulas.count_mask(counts, groups, pending)
        assert (mask.any(dim=1) | is_done).all(), "a dead end"
        mask[is_done, 0] = True
        atoms = torch.multinomial(mask.double(), 1, generator=random)[:, 0] + 1
        rows = (~is_done).nonzero()[:, 0]
        counts[rows, pending[rows]] = atoms[rows]
    return counts


def reference_rules(symbols: list[str], **changes: object) -> FormulaRules:
    elements = elements_by_electronegativity(symbols)
    given = FormulaRules(
        allowed=torch.ones(len(elements), 17, dtype=torch.bool),
        n_elements=(1, 5),
        n_atoms=(1, 80),
        charges=tuple(oxidation_states(element) for element in elements),
    )
    return replace(given, **changes)  # type: ignore[arg-type]


@cache
def reference_classes() -> SiteClasses:
    return site_classes(site_automaton([space_group(n) for n in MANY_GROUPS], 16, 5), 5)


@pytest.fixture(scope="module")
def reference() -> Formulas:
    return Formulas(reference_rules(REFERENCE), reference_classes())


class TestReferenceSet:
    """Crystal-GFN's elements and numbers, against libraries that know nothing of the tables."""

    def test_walks_end_in_compositions_that_pymatgen_calls_neutral(
        self, reference: Formulas
    ) -> None:
        counts = walk(reference, torch.arange(300) % len(MANY_GROUPS), seed=0)
        assert all(follows(row, reference.rules) for row in counts.tolist())
        # pymatgen takes seconds for large ones.
        for amounts in sorted(map(amounts_of, counts.tolist()), key=guessing_cost)[:120]:
            states = {symbol: oxidation_states_of(symbol) for symbol in amounts}
            guesses = Composition(amounts).oxi_state_guesses(
                oxi_states_override=states, max_sites=-1
            )
            assert guesses, amounts

    def test_walks_end_in_compositions_that_pyxtal_calls_compatible(
        self, reference: Formulas
    ) -> None:
        pyxtal = pytest.importorskip("pyxtal.symmetry")
        groups = torch.arange(100) % len(MANY_GROUPS)
        pyxtal_groups = [pyxtal.Group(number) for number in MANY_GROUPS]
        counts = walk(reference, groups, seed=1)
        for row, group in zip(counts.tolist(), groups.tolist(), strict=True):
            present = [n for n in row if n > 0]
            assert pyxtal_groups[group].check_compatible(present)[0], (row, MANY_GROUPS[group])

    def test_thousands_of_walks_without_a_dead_end(self, reference: Formulas) -> None:
        groups = torch.arange(3000) % len(MANY_GROUPS)
        counts = walk(reference, groups, seed=2)
        assert reference.done_mask(counts, groups).all()
        assert (counts > 0).any(dim=0).all(), "an element that no walk has chosen"
        assert (counts == 16).any()

    @pytest.mark.parametrize(
        "changes",
        [
            {"n_atoms": (5, 30)},
            {"mixed_valence": True},
            {"pure_elements": True, "n_elements": (1, 2)},
            {"n_elements": (5, 5), "n_atoms": (70, 80)},
        ],
        ids=["atoms", "mixed valence", "pure elements", "large"],
    )
    def test_other_rules(self, changes: dict[str, object]) -> None:
        formulas = Formulas(reference_rules(REFERENCE, **changes), reference_classes())
        possible = formulas.possible_groups.nonzero()[:, 0]
        groups = possible[torch.arange(300) % len(possible)]
        counts = walk(formulas, groups, seed=3)
        assert formulas.done_mask(counts, groups).all()
        for row, group in zip(counts.tolist(), groups.tolist(), strict=True):
            assert follows(row, formulas.rules)
            present = sorted(n for n in row if n > 0)
            assert is_compatible(space_group(MANY_GROUPS[group]), present)

    def test_composition_first_fits_a_group(self) -> None:
        classes = reference_classes().only(torch.tensor([n > 194 for n in MANY_GROUPS])).joined()
        formulas = Formulas(reference_rules(REFERENCE), classes)
        counts = walk(formulas, torch.full((500,), -1), seed=4)
        fits = formulas.group_mask(counts)
        assert fits.any(dim=1).all()
        assert not fits[:, [n <= 194 for n in MANY_GROUPS]].any()


def amounts_of(counts: list[int]) -> dict[str, int]:
    elements = elements_by_electronegativity(REFERENCE)
    return {e.symbol: n for e, n in zip(elements, counts, strict=True) if n > 0}


def guessing_cost(amounts: dict[str, int]) -> int:
    shared = gcd(*amounts.values())
    return prod(n // shared * len(oxidation_states_of(s)) ** 2 for s, n in amounts.items())


@cache
def oxidation_states_of(symbol: str) -> tuple[int, ...]:
    return oxidation_states(elements_by_electronegativity([symbol])[0])


class TestKnownFormulas:
    @pytest.mark.parametrize(
        ("amounts", "mixed", "neutral"),
        [
            ({"Na": 4, "Cl": 4}, False, True),
            ({"Fe": 12, "O": 16}, False, False),  # magnetite: Fe(II) Fe(III)2 O4
            ({"Fe": 12, "O": 16}, True, True),
            ({"Mn": 16}, False, False),
            ({"Na": 4, "Cl": 5}, True, False),
        ],
        ids=["rock salt", "magnetite", "magnetite, mixed", "metal", "wrong"],
    )
    def test_neutral(self, amounts: dict[str, int], mixed: bool, neutral: bool) -> None:
        formulas = Formulas(reference_rules(REFERENCE, mixed_valence=mixed), any_sites(1, 16, 5))
        elements = elements_by_electronegativity(REFERENCE)
        counts = torch.tensor([[amounts.get(element.symbol, 0) for element in elements]])
        assert formulas.done_mask(counts, torch.zeros(1, dtype=torch.int64)).item() is neutral


class Pair(NamedTuple):
    one: Tensor
    other: Tensor


class TestTables:
    def test_they_move(self) -> None:
        """`Environment.to` must find every tensor: on "meta" a forgotten one would raise."""
        formulas = _moved(formulas_of("both"), torch.device("meta"), {})
        tensors = [v for v in vars(formulas).values() if isinstance(v, Tensor)]
        tensors += [v for v in vars(formulas._charges).values() if isinstance(v, Tensor)]
        assert len(tensors) > 10
        assert all(tensor.is_meta for tensor in tensors)

    def test_named_tuples_move_too(self) -> None:
        found = _moved([Pair(torch.zeros(1), torch.ones(2))], torch.device("meta"), {})
        assert isinstance(found[0], Pair)
        assert all(tensor.is_meta for tensor in found[0])

    def test_classes_serve_narrower_rules(self) -> None:
        """A restriction needs no automaton of its own."""
        case = CASES["atoms from above"]
        narrow = Formulas(case.rules, formulas_of("both").classes)
        valid = valid_in("atoms from above")[:, :-1]
        assert torch.equal(narrow.group_mask(space().counts), valid)


class TestClasses:
    def test_fewer_classes_than_states(self) -> None:
        automaton = site_automaton([space_group(n) for n in MANY_GROUPS], 16, 5)
        assert len(reference_classes().step) < len(automaton.step)

    def test_any_group_is_more_than_one_of_the_groups(self) -> None:
        classes = classes_of(Case(rules(), RIVALS))
        assert len(classes.joined().step) > len(classes.step)

    def test_too_many_unions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crystal_site_classes, "_MAX_UNIONS", 1)
        with pytest.raises(ValueError, match="choose the space group first"):
            classes_of(Case(rules(), RIVALS)).joined()


class TestUnsatisfiable:
    @pytest.mark.parametrize(
        ("given", "groups", "reason"),
        [
            (rules(n_atoms=(50, 60)), GROUPS, "no numbers of atoms"),
            (rules(n_elements=(5, 6)), GROUPS, "no numbers of atoms"),
            (
                rules(allowed=allowed("1", "1", "1", "1"), n_elements=(1, 3)),
                GROUPS,
                "no numbers of atoms",
            ),
            (rules(charges=((1,), (2,), (3,), (1,))), GROUPS, "is charge-neutral"),
            (rules(allowed=allowed("3", "0", "0", "3")), GROUPS, "is charge-neutral"),
            (rules(allowed=allowed("02", "02", "02", "02")), (225,), "Wyckoff sites"),
            # Neutral is 2:1, which does not fit; 4:4 fits.
            (
                rules(allowed=allowed("24", "0", "0", "14")),
                (225,),
                "some are neutral and others fit",
            ),
        ],
        ids=["atoms", "elements", "required", "signs", "formula", "sites", "jointly"],
    )
    def test_why_none(self, given: FormulaRules, groups: tuple[int, ...], reason: str) -> None:
        formulas = Formulas(given, classes_of(Case(given, groups)))
        assert not formulas.possible_groups.any()
        assert reason in formulas.why_none()
        assert "\n" not in formulas.why_none()


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"allowed": torch.ones(4, 5)}, "allowed: expected bool"),
            ({"allowed": torch.ones(4, dtype=torch.bool)}, "allowed: expected bool"),
            ({"n_elements": (0, 3)}, "n_elements: expected 1 <= low"),
            ({"n_atoms": (9, 3)}, "n_atoms: expected 1 <= low"),
            ({"charges": ((1,), (-1,))}, "charges: expected the oxidation states of 4"),
            ({"charges": ((1,), (-1,), (0, 2), (1,))}, "0 is not an oxidation state"),
        ],
        ids=["dtype", "shape", "elements", "atoms", "charges", "zero"],
    )
    def test_rules(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            rules(**changes)

    def test_classes_for_fewer_elements(self) -> None:
        with pytest.raises(ValueError, match="n_elements: expected at most 2"):
            Formulas(rules(), classes_of(CASES["both"], n_elements=2))

    def test_classes_for_fewer_atoms(self) -> None:
        wide = rules(allowed=torch.ones(4, MOST + 2, dtype=torch.bool))
        with pytest.raises(ValueError, match="allowed: expected at most 5 columns"):
            Formulas(wide, classes_of(CASES["both"]))

    def test_tables_beyond_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crystal_completions, "_MAX_BYTES", 1000)
        with pytest.raises(ValueError, match="MiB of tables for 4 elements"):
            Formulas(rules(), classes_of(CASES["both"]))

    def test_cells_of_other_groups(self) -> None:
        with pytest.raises(ValueError, match="cells: expected one row for each of 4"):
            classes_of(replace(CASES["both"], cells=torch.ones(3, 9, dtype=torch.bool)))

"""Compositions of the reference set: random walks against pymatgen and pyxtal."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import gcd, prod

import pytest
import torch
from pymatgen.core.composition import Composition
from torch import Tensor

from sampler.environments.crystal_elements import elements_by_electronegativity, oxidation_states
from sampler.environments.crystal_formula import FormulaRules, Formulas
from sampler.environments.crystal_site_automaton import site_automaton
from sampler.environments.crystal_site_classes import SiteClasses, any_sites, site_classes
from sampler.environments.crystal_symmetry import is_compatible, space_group
from tests.sampler.crystal_compositions import follows

REFERENCE = ["H", "Li", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "V"]
REFERENCE += ["Mn", "Fe", "Co", "Ni", "Cu", "Se"]
MANY_GROUPS = (1, 2, 14, 15, 47, 62, 74, 123, 139, 166, 194, 198, 216, 220, 221, 225, 227, 230)


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


class TestClasses:
    def test_fewer_classes_than_states(self) -> None:
        automaton = site_automaton([space_group(n) for n in MANY_GROUPS], 16, 5)
        assert len(reference_classes().step) < len(automaton.step)

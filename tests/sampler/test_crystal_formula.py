"""Compositions: masks against brute force over small spaces."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sampler.environment import _moved
from sampler.environments import crystal_completions, crystal_site_classes
from sampler.environments.crystal_formula import FormulaRules, Formulas
from tests.sampler.crystal_compositions import (
    CASES,
    CHARGES,
    GROUPS,
    MOST,
    RIVALS,
    Case,
    allowed,
    classes_of,
    formulas_of,
    n_groups,
    rules,
    space,
    valid_in,
)


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

"""The measure of crystals: compositions of each group and number of elements, counted."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch

from sampler.baselines import Random
from sampler.environments import crystal_measure
from sampler.environments.crystal_charges import charge_sums
from sampler.environments.crystal_formula import FormulaRules
from sampler.environments.crystal_measure import log_n_compositions
from tests.sampler.crystal_compositions import CASES, CHARGES, MOST, classes_of, space, valid_in
from tests.sampler.crystal_spaces import compositions_by_masks, tiny


def ways(counts: list[int], given: FormulaRules) -> int:
    """In how many ways the elements of a valid composition get charges that sum to zero."""
    if given.charges is None or (given.pure_elements and sum(n > 0 for n in counts) == 1):
        return 1
    sums = charge_sums(given.charges, len(CHARGES), MOST, given.mixed_valence)
    choices = [sums[i][n] for i, n in enumerate(counts) if n > 0]
    return sum(sum(charges) == 0 for charges in product(*choices))


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_brute_force(name: str) -> None:
    given = CASES[name].rules
    found = log_n_compositions(given, classes_of(CASES[name])).exp()
    expected = torch.zeros_like(found)
    for counts, valid in zip(space().counts.tolist(), valid_in(name)[:, :-1], strict=True):
        if bool(valid.any()):
            expected[valid, sum(n > 0 for n in counts)] += ways(counts, given)
    assert torch.equal(found.round(), expected)
    assert torch.allclose(found, expected)


def test_classes_of_any_group_count_the_same() -> None:
    classes = classes_of(CASES["rivals, atoms"])
    given = CASES["rivals, atoms"].rules
    assert torch.equal(
        log_n_compositions(given, classes), log_n_compositions(given, classes.joined())
    )


@pytest.mark.parametrize("order", [["space_group", "composition"], ["composition", "space_group"]])
def test_each_group_and_number_of_elements_weighs_one(order: list[str]) -> None:
    crystal = tiny(charge_neutral=False, measure="per_group", order=[*order, "lattice"])
    weights: Counter[tuple[int, int]] = Counter()
    for number, counts in compositions_by_masks(crystal):
        symbols = [element.symbol for element in crystal.elements]
        atoms = {s: n for s, n in zip(symbols, counts, strict=True) if n}
        where = {"composition": atoms, "space_groups": number}
        states = Random(crystal).sample(1, seed=0, where=where)
        weights[number, len(atoms)] += float(crystal.log_measure(states).exp())
    assert len(weights) > 10
    assert list(weights.values()) == pytest.approx([1.0] * len(weights))


def test_a_restriction_keeps_the_measure_of_the_whole_space() -> None:
    crystal = tiny(measure="per_group")
    narrow = crystal.restricted({"lattice_system": "cubic", "elements": ["Mg", "O"]})
    states = Random(narrow).sample(20, seed=0)
    assert torch.equal(narrow.log_measure(states), crystal.log_measure(states))
    assert float(crystal.log_measure(states).max()) < 0


def test_no_measure_unless_asked_for() -> None:
    states = Random(tiny()).sample(20, seed=0)
    assert tiny().log_measure(states).tolist() == [0.0] * 20


def test_the_counts_follow_the_space_to_another_device() -> None:
    crystal = tiny(measure="per_group").to("meta")
    assert crystal.log_measure(crystal.initial_states(3)).is_meta


def test_counts_beyond_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crystal_measure, "_MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"measure: per_group counts in .* or take uniform"):
        tiny(measure="per_group", n_atoms=(3, 8))  # other than what is counted already

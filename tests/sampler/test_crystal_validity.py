"""The crystal space's masks hold exactly what chemistry, symmetry and geometry allow."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import Element

from sampler.baselines import Random
from sampler.environments.crystal import Crystal
from tests.sampler.crystal_spaces import (
    compositions_by_masks,
    group,
    parts_of,
    reference,
    samples,
    space,
    tiny,
)


def compositions_by_hand(
    crystal: Crystal, is_neutral: Any, n_atoms: tuple[int, int], most: int
) -> set[tuple[int, tuple[int, ...]]]:
    found = set()
    symbols = [element.symbol for element in crystal.elements]
    for counts in itertools.product(range(most + 1), repeat=len(symbols)):
        present = {s: n for s, n in zip(symbols, counts, strict=True) if n}
        if n_atoms[0] <= sum(counts) <= n_atoms[1] and is_neutral(present):
            for each in crystal.space_groups:
                if group(each.number).check_compatible(list(present.values()))[0]:
                    found.add((each.number, counts))
    return found


def one_state_each(atoms: dict[str, int]) -> bool:
    states = [Element(symbol).icsd_oxidation_states for symbol in atoms]
    return any(
        np.dot(choice, list(atoms.values())) == 0
        for choice in itertools.product(*states)
        if 0 not in choice
    )


def any_states(atoms: dict[str, int]) -> bool:
    sums = {0}
    for symbol, n in atoms.items():
        for _ in range(n):
            sums = {a + b for a in sums for b in Element(symbol).icsd_oxidation_states if b}
    return 0 in sums


@pytest.mark.parametrize(
    ("options", "is_neutral"),
    [
        ({}, one_state_each),
        ({"mixed_valence": True}, any_states),
        ({"charge_neutral": False}, lambda atoms: True),
        ({"pure_elements": True}, lambda atoms: len(atoms) == 1 or one_state_each(atoms)),
        ({"order": ["composition", "space_group", "lattice"]}, one_state_each),
    ],
    ids=["neutral", "mixed valence", "any charge", "pure elements", "composition first"],
)
def test_masks_reach_exactly_the_valid_compositions(options: Any, is_neutral: Any) -> None:
    crystal = tiny(volume_per_atom=None, **options)
    expected = compositions_by_hand(crystal, is_neutral, (2, 8), 4)
    assert {number for number, _ in expected} == {2, 14, 62, 194, 225}
    assert compositions_by_masks(crystal) == expected


def test_samples_are_neutral_by_pymatgen() -> None:
    formulas = {row["formula"] for row in space().describe(samples())}
    assert len(formulas) > 50
    for formula in sorted(formulas)[:60]:
        assert Composition(formula).oxi_state_guesses(), formula


def volume(lengths: list[float], angles: list[float]) -> float:
    x, y, z = (math.cos(math.radians(angle)) for angle in angles)
    return math.prod(lengths) * math.sqrt(max(0.0, 1 - x * x - y * y - z * z + 2 * x * y * z))


def test_samples_fit_their_space_group_their_ranges_and_the_volume_window() -> None:
    for row, key in zip(space().describe(samples()), space().keys(samples()), strict=True):
        atoms, number, lengths, angles = parts_of(key)
        assert group(number).check_compatible(list(atoms.values()))[0], key
        assert 2.5 <= min(lengths) <= max(lengths) <= 15.0
        assert 60.0 <= min(angles) <= max(angles) <= 120.0
        per_atom = volume(lengths, angles) / sum(atoms.values())
        assert row["volume_per_atom"] == pytest.approx(per_atom, rel=1e-6)
        assert 6.0 * (1 - 2e-3) <= per_atom <= 40.0 * (1 + 2e-3)


def test_the_reference_set_is_valid_by_other_libraries() -> None:
    states = Random(reference()).sample(2000, seed=0)
    keys = reference().keys(states)
    assert len(set(keys)) == len(keys)
    for key in keys:
        atoms, number, lengths, angles = parts_of(key)
        assert 1 <= len(atoms) <= 5
        assert max(atoms.values()) <= 16
        assert 0.9 <= min(lengths) <= max(lengths) <= 100.0
        assert 50.0 <= min(angles) <= max(angles) <= 150.0
        assert volume(lengths, angles) > 0.05 * math.prod(lengths)
        assert one_state_each(atoms), key
    compositions = [parts_of(key)[:2] for key in keys]
    for atoms, number in compositions[:500]:
        assert group(number).check_compatible(list(atoms.values()))[0], (atoms, number)
    for atoms, _ in sorted(compositions, key=lambda each: n_guesses(each[0]))[:200:2]:
        assert Composition(atoms).oxi_state_guesses(), atoms


def n_guesses(atoms: dict[str, int]) -> int:
    """How many ways to choose charges pymatgen would go through."""
    n_states = {symbol: len(Element(symbol).icsd_oxidation_states) for symbol in atoms}
    return math.prod(math.comb(n + n_states[symbol] - 1, n) for symbol, n in atoms.items())


def test_all_elements_and_all_space_groups() -> None:
    symbols = [Element.from_Z(z).symbol for z in range(1, 95)]
    wide = Crystal([s for s in symbols if s not in ("He", "Ne", "Ar", "Rn")], n_elements=(1, 3))
    states = Random(wide).sample(500, seed=0)
    assert torch.equal(wide.from_keys(wide.keys(states)), states)
    assert len({key.split(" | ")[1] for key in wide.keys(states)}) > 100
    for key in wide.keys(states)[:100]:
        atoms, number, *_ = parts_of(key)
        assert group(number).check_compatible(list(atoms.values()))[0], key

"""The top 100 of enough kinds, as the crystal benchmark chooses it, against brute force."""

from itertools import combinations

import numpy as np
import pytest

from benchmarks.crystal_top import diverse_best, labels_of, plain_best
from benchmarks.crystal_validity import Read

LEAST = {"space_group": 3, "element": 4, "crystal_lattice_system": 2, "point_symmetry": 1}
GROUPS = (2, 14, 62, 194, 225)
PAIRS = ("Na Cl", "Li F", "Mg O", "Na F", "K Cl")


def crystals(seed: int, n: int) -> tuple[np.ndarray, list[Read]]:
    random = np.random.default_rng(seed)
    made = []
    for group, pair in zip(random.choice(GROUPS, n), random.choice(PAIRS, n), strict=True):
        atoms = dict.fromkeys(pair.split(), 4)
        made.append(Read(atoms, int(group), (4.0,) * 3, (90.0,) * 3))
    return random.normal(size=n), made


def is_of_enough_kinds(chosen: list[Read]) -> bool:
    there = set().union(*map(labels_of, chosen))
    return all(sum(label[0] == kind for label in there) >= n for kind, n in LEAST.items())


@pytest.mark.parametrize("seed", range(4))
def test_no_other_choice_of_enough_kinds_has_a_higher_mean(seed: int) -> None:
    values, made = crystals(seed, 12)
    rows = diverse_best(values, made, 4, LEAST)
    assert is_of_enough_kinds([made[row] for row in rows])
    allowed = [c for c in combinations(range(12), 4) if is_of_enough_kinds([made[i] for i in c])]
    best = max(float(values[list(c)].mean()) for c in allowed)
    assert values[rows].mean() == pytest.approx(best, rel=1e-3)
    assert rows == sorted(rows, key=lambda row: -values[row])


def test_nothing_asked_is_the_plain_best() -> None:
    values, made = crystals(0, 40)
    nothing = dict.fromkeys(LEAST, 0)
    assert diverse_best(values, made, 10, nothing) == plain_best(values, 10)
    assert plain_best(values, 10)[0] == int(values.argmax())


def test_too_few_kinds_are_named() -> None:
    values, made = crystals(0, 12)
    with pytest.raises(ValueError, match=r"element: expected at least 9 kinds .* got"):
        diverse_best(values, made, 4, {"element": 9})


def test_kinds_that_do_not_go_together_are_an_error() -> None:
    values, made = crystals(0, 12)
    with pytest.raises(ValueError, match="no 1 crystals are of enough kinds together"):
        diverse_best(values, made, 1, {"space_group": 2})

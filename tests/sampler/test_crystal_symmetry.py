"""Space groups: their table, and which atoms fit their sites, against pyxtal."""

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyxtal.symmetry import Group

from sampler.environments.crystal_placement import choose_sites, wyckoff_sites
from sampler.environments.crystal_symmetry import is_compatible, space_group
from sampler.environments.make_wyckoff_table import row

ELEMENTS = ["Li", "Na", "Mg", "Al", "Si", "O", "F", "S", "Cl", "K", "Ca", "Ti"]


@cache
def group(number: int) -> Group:
    return Group(number)


def test_wyckoff_programme_agrees_with_pyxtal() -> None:
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(500):
        number = int(rng.integers(1, 231))
        counts = rng.integers(1, 9, size=rng.integers(1, 4)).tolist()
        expected = bool(group(number).check_compatible(counts)[0])
        assert is_compatible(space_group(number), counts) == expected, (number, counts)
        answers.append(expected)
    assert 0.1 < np.mean(answers) < 0.9


def test_wyckoff_programme_agrees_with_pyxtal_where_fixed_sites_run_out() -> None:
    for number in (2, 47, 123, 221, 225):
        for counts in itertools.combinations_with_replacement([1, 2, 3, 4, 8], 3):
            expected = bool(group(number).check_compatible(list(counts))[0])
            assert is_compatible(space_group(number), counts) == expected, (number, counts)


@pytest.mark.parametrize("number", [1, 47, 70, 148, 166, 194, 216, 227, 230])
def test_shipped_table_is_what_its_script_makes(number: int) -> None:
    made, shipped = row(number), space_group(number)
    assert (made["symbol"], made["lattice_points"]) == (shipped.symbol, shipped.lattice_points)
    assert made["point_group_order"] == shipped.point_group_order
    assert made["has_inversion"] == shipped.has_inversion
    assert tuple(made["free"]) == shipped.free
    assert {int(m): n for m, n in made["fixed"].items()} == dict(shipped.fixed)


def test_point_groups_and_systems() -> None:
    numbers = (1, 2, 3, 15, 16, 74, 75, 142, 143, 194, 195, 230)
    assert [space_group(n).system for n in numbers] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [space_group(n).point_group_order for n in (1, 14, 62, 166, 194, 225)] == [
        *(1, 4, 8, 12, 24, 48)
    ]
    # The 92 centrosymmetric space groups (International Tables A, table 2.1.2).
    assert sum(space_group(n).has_inversion for n in range(1, 231)) == 92


@settings(max_examples=60)
@given(
    st.integers(1, 230),
    st.dictionaries(st.sampled_from(ELEMENTS), st.integers(1, 12), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_chosen_sites_hold_the_atoms_and_none_is_taken_twice(
    number: int, counts: dict[str, int], seed: int
) -> None:
    if not is_compatible(space_group(number), list(counts.values())):
        return
    chosen = choose_sites(space_group(number), counts, np.random.default_rng(seed))
    for symbol, count in counts.items():
        assert sum(site.multiplicity for s, site in chosen if s == symbol) == count
    fixed = [site.letter for _, site in chosen if not site.is_free]
    assert len(set(fixed)) == len(fixed)


def test_orbits_have_their_multiplicity() -> None:
    for number in (14, 62, 148, 194, 227):
        for site in wyckoff_sites(number):
            point = np.array([0.1234, 0.3217, 0.4571, 1.0])
            orbit = np.mod(site.operations @ point, 1).round(6) % 1
            assert len(np.unique(orbit, axis=0)) == site.multiplicity

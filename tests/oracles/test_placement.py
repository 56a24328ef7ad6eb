"""Placements share composition, cell and space group, and are the same in every process."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from oracles.physical_window import PhysicalWindow, Unphysical, closest_pair
from oracles.placement import placement_seed, placements, with_space_group


def crystal() -> Structure:
    """A Pmm2 cell of Na2 Cl2."""
    sites = [[0, 0, 0.0], [0.5, 0.5, 0.4], [0, 0.5, 0.7], [0.5, 0, 0.15]]
    structure = Structure(Lattice.orthorhombic(4.3, 4.4, 5.6), ["Na", "Na", "Cl", "Cl"], sites)
    structure.properties["space_group"] = 25
    return structure


def test_the_given_placement_comes_first_and_is_untouched() -> None:
    given = crystal()
    assert next(placements(given, 4)) is given
    assert given == crystal()


def test_others_share_composition_cell_and_space_group() -> None:
    others = list(placements(crystal(), 6))[1:]
    assert others
    for other in others:
        assert other.composition == crystal().composition
        np.testing.assert_allclose(other.lattice.parameters, crystal().lattice.parameters)
        operations = SpacegroupAnalyzer(other, symprec=1e-3).get_symmetry_operations()
        assert len(operations) >= 4  # Pmm2 has four; a placement may have more
        assert not np.allclose(other.frac_coords, crystal().frac_coords, atol=1e-3)


def test_they_are_the_same_again_whatever_the_global_random_state() -> None:
    np.random.seed(1)  # noqa: NPY002 - the global state is what must not matter
    first = [placement.as_dict() for placement in placements(crystal(), 5)]
    np.random.seed(2)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    assert [placement.as_dict() for placement in placements(crystal(), 5)] == first
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # type: ignore[index]  # noqa: NPY002


def test_seeds_follow_the_content() -> None:
    moved = crystal()
    moved.translate_sites([0], [0.01, 0, 0])
    seeds = {placement_seed(crystal(), 0), placement_seed(crystal(), 1), placement_seed(moved, 0)}
    assert len(seeds) == 3
    assert placement_seed(crystal(), 0) == 1907853173  # equal on every machine


def test_a_space_group_that_is_not_stated_is_found() -> None:
    bare = crystal()
    del bare.properties["space_group"]
    found = with_space_group(bare)
    assert found.properties["space_group"] == SpacegroupAnalyzer(bare).get_space_group_number()
    assert "space_group" not in bare.properties


@pytest.mark.parametrize("number", [0, 231, "Pmm2", 194])
def test_an_impossible_space_group_is_an_error(number: object) -> None:
    wrong = crystal()
    wrong.properties["space_group"] = number
    with pytest.raises(ValueError, match=r"space.group"):
        with_space_group(wrong)


def test_the_closest_pair_counts_images() -> None:
    lone = Structure(Lattice.orthorhombic(2.0, 6, 6), ["Na"], [[0, 0, 0]])
    ratio, names, distance = closest_pair(lone)
    assert names == "Na and Na"
    assert distance == pytest.approx(2.0)
    assert ratio == pytest.approx(2.0 / (2 * 1.66))


def test_nan_energies_never_pass() -> None:
    window = PhysicalWindow(0.45, 0.65, (5.0, 80.0), (-4.8, 10.0))
    for check in (window.check_energy, window.check_floor, window.check_volume):
        with pytest.raises(Unphysical):
            check(float("nan"))
    window.check_floor(50.0)
    with pytest.raises(Unphysical):
        window.check_floor(-5.0)

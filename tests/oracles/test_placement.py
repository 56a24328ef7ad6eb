"""Placements share composition, cell and space group, and are the same in every process."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Species, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from oracles.physical_window import PhysicalWindow, Unphysical, closest_pair
from oracles.placement import placement_seed, placements, with_space_group
from tests.crystals import from_spacegroup


def crystal() -> Structure:
    """A Pmm2 cell of Na2 Cl2."""
    sites = [[0, 0, 0.0], [0.5, 0.5, 0.4], [0, 0.5, 0.7], [0.5, 0, 0.15]]
    structure = Structure(Lattice.orthorhombic(4.3, 4.4, 5.6), ["Na", "Na", "Cl", "Cl"], sites)
    structure.properties.update(space_group=25, key="Na2 Cl2 | 25 | …")
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


def test_a_decoded_crystal_keeps_its_group_though_its_atoms_have_more_symmetry() -> None:
    given = crystal()
    given.properties["space_group"] = 16
    assert with_space_group(given) is given


@pytest.mark.parametrize("stated", [None, 1, 194, "Pmm2"])
def test_without_a_key_the_space_group_is_found_whatever_is_stated(stated: object) -> None:
    bare = crystal()
    bare.properties = {} if stated is None else {"space_group": stated}
    found = with_space_group(bare)
    assert found.properties["space_group"] == 25
    assert bare.properties.get("space_group") == stated


def test_charges_and_spins_do_not_lower_the_symmetry() -> None:
    """Rock salt whose sodium atoms are labelled in turns is still Fm-3m, and still drawn anew."""
    salt = from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    plain = with_space_group(salt.copy())
    for site, species in zip(salt[:2], (Species("Na", 1), Species("Na", 1, spin=5)), strict=True):
        site.species = species
    labelled = with_space_group(salt)
    assert labelled.properties["space_group"] == 225
    assert labelled.composition == plain.composition
    assert placement_seed(labelled, 0) == placement_seed(plain, 0)


@pytest.mark.parametrize("number", [0, 231, "Pmm2", 194, None])
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

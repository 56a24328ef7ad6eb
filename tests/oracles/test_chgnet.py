"""CHGNet on tiny real crystals: right energies, honest failures, the same bits in any process."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from oracles.crystals import CHGNetFormationEnergy
from oracles.make_chgnet_references import lowest_prototype
from oracles.oracle import NotRun
from oracles.physical_window import Unphysical
from oracles.references import reference_energies
from tests.crystals import from_spacegroup

ENERGY = "formation_energy_per_atom"


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, anion], sites)


def loose_crystal() -> Structure:
    """A polar Pmm2 cell of Li2O2 whose forces are not zero by symmetry."""
    sites = [[0, 0, 0.0], [0.5, 0.5, 0.4], [0, 0.5, 0.7], [0.5, 0, 0.15]]
    crystal = Structure(Lattice.orthorhombic(3.3, 3.4, 4.6), ["Li", "Li", "O", "O"], sites)
    crystal.properties["space_group"] = 25
    return crystal


def oracle(**options: object) -> CHGNetFormationEnergy:
    return CHGNetFormationEnergy(fidelity="f", cost=1.0, **options)  # type: ignore[arg-type]


def ask(crystal: object, **options: object) -> object:
    (answer,) = oracle(**options).query([crystal])
    return answer


def energy(crystal: Structure, **options: object) -> float:
    answer = ask(crystal, **options)
    assert isinstance(answer, dict), answer
    return answer[ENERGY]


@pytest.mark.parametrize(
    ("cation", "anion", "a", "measured"),
    # kJ/mol of formation over 96.485 and 2 atoms (CRC Handbook): -411.2, -601.6, -616.0.
    [("Na", "Cl", 5.64, -2.13), ("Mg", "O", 4.21, -3.12), ("Li", "F", 4.03, -3.19)],
)
def test_formation_energies_are_near_the_measured_ones(
    cation: str, anion: str, a: float, measured: float
) -> None:
    assert energy(rock_salt(cation, anion, a)) == pytest.approx(measured, abs=0.15)


def test_the_cell_is_reduced_without_changing_the_answer() -> None:
    crystal = rock_salt("Na", "Cl", 5.64)
    primitive = crystal.get_primitive_structure()
    assert len(primitive) < len(crystal)
    assert energy(crystal) == pytest.approx(energy(primitive), abs=1e-5)


def test_an_element_in_its_reference_crystal_has_no_formation_energy() -> None:
    crystal = from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    assert energy(crystal, relax="cell") == pytest.approx(0.0, abs=0.02)


def test_each_level_of_the_ladder_goes_lower() -> None:
    crystal = loose_crystal()
    placed = energy(crystal)
    positions = energy(crystal, relax="positions")
    cell = energy(crystal, relax="cell")
    assert placed - 0.01 > positions > cell + 0.01


def test_more_placements_are_never_worse() -> None:
    crystal = loose_crystal()
    answer = ask(crystal, n_placements=4)
    assert isinstance(answer, dict)
    assert 2 <= answer["n_placements"] <= 4
    assert answer[ENERGY] <= energy(crystal)


def test_the_relaxed_cell_is_near_the_measured_one() -> None:
    answer = ask(rock_salt("Mg", "O", 4.5), relax="cell")
    assert isinstance(answer, dict)
    assert answer["volume_per_atom"] == pytest.approx(4.21**3 / 8, rel=0.05)
    assert answer["n_relax_steps"] >= 1


def test_position_relaxation_keeps_the_volume() -> None:
    crystal = loose_crystal()
    answer = ask(crystal, relax="positions")
    assert isinstance(answer, dict)
    assert answer["volume_per_atom"] == pytest.approx(crystal.volume / 4)


def crowded() -> Structure:
    """Rock salt whose ions have been drawn together."""
    crystal = rock_salt("Na", "Cl", 5.64)
    return Structure(crystal.lattice, crystal.species, 0.4 * crystal.frac_coords)


@pytest.mark.parametrize(
    ("crystal", "reason"),
    [
        (rock_salt("Na", "Cl", 2.0), "volume 1 A"),
        (rock_salt("Na", "Cl", 20.0), "volume 1000 A"),
        (crowded(), "apart"),
        (rock_salt("Na", "Xe", 5.6), "no CHGNet reference energy for Xe"),
        (Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]]), "ordered"),
        (Structure(Lattice.cubic(4), ["Na"], [[np.nan, 0, 0]]), "finite"),
        ("NaCl", "Structure"),
    ],
)
def test_absurd_candidates_are_refunded_before_the_potential_is_asked(
    crystal: object, reason: str
) -> None:
    answer = ask(crystal)
    assert isinstance(answer, NotRun)
    assert reason in str(answer)
    assert "\n" not in str(answer)


def test_a_cell_that_its_space_group_forbids_is_refunded() -> None:
    crystal = loose_crystal()
    crystal.properties |= {"space_group": 225, "key": "as a space that places atoms marks it"}
    answer = ask(crystal, n_placements=2)
    assert isinstance(answer, NotRun)
    assert "225" in str(answer)


@pytest.mark.parametrize("relax", ["none", "positions", "cell"])
def test_too_good_an_energy_is_a_failure_that_was_paid(relax: str) -> None:
    answer = ask(rock_salt("Mg", "O", 4.21), relax=relax, formation_energy=(-2.5, 5.0))
    assert isinstance(answer, Unphysical)
    assert "formation energy -3.0" in str(answer)


def test_too_bad_an_energy_is_a_failure_but_may_be_relaxed() -> None:
    window = (-4.8, energy(loose_crystal()) - 0.005)
    assert isinstance(ask(loose_crystal(), formation_energy=window), Unphysical)
    assert energy(loose_crystal(), relax="positions", formation_energy=window) < window[1]


def test_an_unconverged_relaxation_is_a_failure() -> None:
    answer = ask(loose_crystal(), relax="positions", max_steps=1)
    assert isinstance(answer, Unphysical)
    assert "forces above 0.1 eV/A after 1 relaxation steps" in str(answer)


def test_a_relaxation_stops_when_the_volume_leaves_the_window() -> None:
    answer = ask(rock_salt("Mg", "O", 4.9), relax="cell", volume_per_atom=(14.0, 15.0))
    assert isinstance(answer, Unphysical)
    assert "volume 13." in str(answer)


def test_atoms_in_a_relaxed_cell_must_keep_their_distance() -> None:
    crystal = rock_salt("Ti", "O", 4.2)  # 0.93 of the covalent radii
    assert isinstance(ask(crystal, relax="cell"), dict)
    answer = ask(crystal, relax="cell", min_relaxed_distance_ratio=0.98)
    assert isinstance(answer, Unphysical)
    assert "apart" in str(answer)
    assert isinstance(ask(crystal, relax="positions", min_relaxed_distance_ratio=0.98), dict)


def test_other_placements_step_in_for_a_crowded_one() -> None:
    crystal = loose_crystal()
    crystal.translate_sites([0], [0.4, 0.5, 0.35], to_unit_cell=True)
    assert isinstance(ask(crystal), NotRun)
    assert isinstance(ask(crystal, n_placements=4), dict)


SCRIPT = """
from tests.oracles.test_chgnet import ask, loose_crystal
print(ask(loose_crystal(), relax="cell", n_placements=4, fmax=0.3))
"""


def test_the_same_bits_in_a_new_process() -> None:
    here = ask(loose_crystal(), relax="cell", n_placements=4, fmax=0.3)
    assert isinstance(here, dict)
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    there = subprocess.run(command, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == repr(here)


def test_it_is_quiet_and_leaves_limited_threads_alone(capfd: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    energy(loose_crystal(), relax="positions", n_placements=2, threads=1)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "options",
    [
        {"relax": "everything"},
        {"n_placements": 0},
        {"max_steps": 0},
        {"threads": 0},
        {"fmax": 0.0},
        {"min_distance_ratio": 1.5},
        {"min_relaxed_distance_ratio": 0.0},
        {"volume_per_atom": (0.0, 5.0)},
        {"volume_per_atom": (9.0, 5.0)},
        {"formation_energy": (1.0, -1.0)},
    ],
)
def test_impossible_options(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        oracle(**options)


def test_the_version_changes_with_whatever_changes_answers() -> None:
    base = oracle().version
    assert oracle().version == base == oracle(threads=2).version
    assert CHGNetFormationEnergy(fidelity="other", cost=9).version == base
    changed = [{"relax": "cell"}, {"n_placements": 2}, {"fmax": 0.2}, {"min_distance_ratio": 0.6}]
    versions = {oracle(**options).version for options in changed}
    assert len(versions | {base}) == len(changed) + 1


def test_a_reference_can_be_made_again() -> None:
    _, end = lowest_prototype("F")
    assert end.energy == pytest.approx(reference_energies()["F"], abs=1e-4)


@pytest.mark.parametrize(
    ("element", "materials_project"),
    [("Li", -1.909), ("Na", -1.312), ("Mg", -1.600), ("Al", -3.746), ("Si", -5.425), ("O", -4.948),
     ("F", -1.911), ("Cl", -1.848), ("N", -8.336), ("C", -9.223)],
)  # fmt: skip
def test_references_are_near_the_energies_chgnet_learned(
    element: str, materials_project: float
) -> None:
    assert reference_energies()[element] == pytest.approx(materials_project, abs=0.12)

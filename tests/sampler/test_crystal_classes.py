"""Classes of space groups against pyxtal's."""

from pyxtal.symmetry import Group

from sampler.environments.crystal_classes import (
    CRYSTAL_LATTICE_SYSTEMS,
    LATTICE_SYSTEMS,
    POINT_SYMMETRIES,
    crystal_lattice_system,
    crystal_system,
    lattice_system,
    point_symmetry,
)

NUMBERS = range(1, 231)


def test_classes_agree_with_pyxtal() -> None:
    for number in NUMBERS:
        group = Group(number, quick=True)
        system = crystal_system(number)
        assert system == group.lattice_type.replace("rhombohedral", "trigonal") or (
            group.lattice_type == "hexagonal" and 143 <= number <= 167
        ), number
        assert (lattice_system(number) == "rhombohedral") == group.symbol.startswith("R"), number
        expected = "none"
        if group.inversion:
            expected = "centrosymmetric"
        elif group.chiral or group.polar:
            expected = "_".join(["enantiomorphic"] * group.chiral + ["polar"] * group.polar)
        assert point_symmetry(number) == expected, number


def test_every_class_has_space_groups() -> None:
    assert {crystal_lattice_system(n) for n in NUMBERS} == set(CRYSTAL_LATTICE_SYSTEMS)
    assert {lattice_system(n) for n in NUMBERS} == set(LATTICE_SYSTEMS)
    assert {point_symmetry(n) for n in NUMBERS} == set(POINT_SYMMETRIES)
    assert len([n for n in NUMBERS if crystal_lattice_system(n) == "trigonal_rhombohedral"]) == 7

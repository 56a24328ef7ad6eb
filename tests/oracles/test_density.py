"""Densities against handbook values, and the laws that mass and volume obey."""

import math

import pytest
from pymatgen.core import Composition, Lattice, Structure

from oracles.density import Density
from oracles.oracle import NotRun

ORACLE = Density(fidelity="exact", cost=1)


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    at = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    beside = [[x + 0.5, y, z] for x, y, z in at]
    return Structure(Lattice.cubic(a), [cation] * 4 + [anion] * 4, at + beside)


def answer(structure: Structure) -> dict[str, float]:
    (found,) = ORACLE.query([structure])
    assert isinstance(found, dict)
    return found


FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
DIAMOND = FCC + [[x + 0.25, y + 0.25, z + 0.25] for x, y, z in FCC]
METALS = [[0, 0, 0], [0.5, 0.5, 0.5]]
OXYGENS = [[0.305, 0.305, 0], [0.695, 0.695, 0], [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]]

KNOWN = {
    "NaCl": (rock_salt("Na", "Cl", 5.6402), 2.165),
    "MgO": (rock_salt("Mg", "O", 4.212), 3.58),
    "Si": (Structure(Lattice.cubic(5.431), ["Si"] * 8, DIAMOND), 2.329),
    "Cu": (Structure(Lattice.cubic(3.615), ["Cu"] * 4, FCC), 8.93),
    "rutile": (
        Structure(Lattice.tetragonal(4.594, 2.959), ["Ti"] * 2 + ["O"] * 4, METALS + OXYGENS),
        4.25,
    ),
}
"""Densities at room temperature, g/cm³ (CRC Handbook of Chemistry and Physics)."""


@pytest.mark.parametrize("name", list(KNOWN))
def test_it_agrees_with_the_handbook(name: str) -> None:
    structure, density = KNOWN[name]
    assert answer(structure)["density"] == pytest.approx(density, rel=2e-3)


def test_it_is_mass_over_volume() -> None:
    structure = KNOWN["NaCl"][0]
    amu_per_cubic_angstrom = Composition("Na4Cl4").weight / structure.volume
    assert answer(structure)["density"] == pytest.approx(1.66053907 * amu_per_cubic_angstrom)
    assert answer(structure)["volume_per_atom"] == structure.volume / 8


def test_neither_the_choice_of_cell_nor_positions_matter() -> None:
    whole = KNOWN["MgO"][0]
    primitive, doubled, moved = whole.get_primitive_structure(), whole * (2, 1, 1), whole.copy()
    moved.translate_sites([0], [0.1, 0.05, 0.0])
    for same in (primitive, doubled, moved):
        assert answer(same) == pytest.approx(answer(whole))


def test_it_falls_with_the_cube_of_the_length() -> None:
    small, large = answer(rock_salt("Na", "Cl", 5.0)), answer(rock_salt("Na", "Cl", 10.0))
    assert small["density"] == pytest.approx(8 * large["density"])
    assert large["volume_per_atom"] == pytest.approx(125.0)


@pytest.mark.parametrize(
    ("absurd", "words"),
    [
        ("NaCl", "a pymatgen Structure, got str"),
        (None, "got NoneType"),
        (Structure(Lattice.cubic(4), [], []), "at least one atom"),
        (Structure([[3, 0, 0], [0, 3, 0], [3, 3, 0]], ["Na"], [[0, 0, 0]]), "a volume, got 0"),
        (Structure(Lattice.cubic(math.nan), ["Na"], [[0, 0, 0]]), "a volume, got nan"),
    ],
    ids=["text", "none", "empty", "flat", "nan"],
)
def test_what_has_no_density_is_refunded_with_a_reason(absurd: object, words: str) -> None:
    first, bad, last = ORACLE.query([KNOWN["Cu"][0], absurd, KNOWN["Cu"][0]])
    assert isinstance(bad, NotRun)
    assert words in str(bad)
    assert first == last


@pytest.mark.parametrize("cost", [-1.0, math.nan, math.inf])
def test_a_wrong_cost_is_refused(cost: float) -> None:
    with pytest.raises(ValueError, match="cost must be a number >= 0"):
        Density(fidelity="f", cost=cost)

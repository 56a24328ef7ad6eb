from typing import Any

import pytest
import torch

from sampler.environments.crystal_cell import Cell
from sampler.environments.crystal_symmetry import SYSTEMS

TRICLINIC, MONOCLINIC, ORTHORHOMBIC, TETRAGONAL, HEXAGONAL, CUBIC = range(len(SYSTEMS))

LATTICES = {
    "rock salt": (CUBIC, [5.64, 5.64, 5.64, 90, 90, 90], [0, 0, 0, 5.64, 0, 0]),
    "wurtzite": (HEXAGONAL, [3.2495, 3.2495, 5.2069, 90, 90, 120], [0, 0, 0, 3.2495, 0, 5.2069]),
    "rutile": (TETRAGONAL, [4.593, 4.595, 2.959, 90, 90, 90.05], [0, 0, 0, 4.594, 0, 2.959]),
    "monoclinic": (MONOCLINIC, [5.15, 5.21, 5.32, 90, 99.23, 90], [0, 99.23, 0, 5.15, 5.21, 5.32]),
    "albite": (TRICLINIC, [8.1, 12.8, 7.2, 94.2, 116.6, 87.7], [94.2, 116.6, 87.7, 8.1, 12.8, 7.2]),
}


@pytest.mark.parametrize("name", LATTICES)
def test_real_cells_are_read(name: str) -> None:
    cell = Cell([0.9, 100], [50, 150])
    system, lattice, values = LATTICES[name]
    read = cell.nearest(lattice, system)
    assert read.tolist() == [values]
    done = cell.complete(read, torch.tensor([system]))[0]
    given = torch.tensor([*lattice[3:], *lattice[:3]], dtype=torch.float64)
    assert (done - given).abs().max() <= 0.1


@pytest.mark.parametrize(
    ("system", "lattice", "words"),
    [
        (CUBIC, [5.6, 5.6, 5.7, 90, 90, 90], r"a = 5.6, b = 5.6, c = 5.7: cubic needs equal"),
        (HEXAGONAL, [3, 3, 5, 90, 90, 90], "gamma = 90: hexagonal needs 120 degrees"),
        (TETRAGONAL, [3, 3, 500, 90, 90, 90], "c = 500: expected 0.9 to 100"),
        (TRICLINIC, [3, 3, 5, 50, 50, 140], r"volume is .* expected at least 0.1"),
        (CUBIC, [3, 3, 3, 90, 90], "expected a, b, c"),
        (CUBIC, [3, 3, float("nan"), 90, 90, 90], "expected a, b, c"),
    ],
)
def test_cells_outside_are_refused_with_the_reason(
    system: int, lattice: list[float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Cell([0.9, 100], [50, 150]).nearest(lattice, system)


def test_a_cell_too_big_for_its_atoms_is_refused() -> None:
    cell = Cell([2, 20], [50, 150], volume_per_atom=(5.0, 40.0))
    assert cell.nearest([4, 4, 4, 90, 90, 90], CUBIC, n_atoms=4)[0, 3] == 4
    assert cell.nearest([4, 4, 4, 90, 90, 90], CUBIC)[0, 3] == 4
    with pytest.raises(ValueError, match=r"volume is 64 Å³, expected .* 5 to 40 Å³ an atom"):
        cell.nearest([4, 4, 4, 90, 90, 90], CUBIC, n_atoms=1)
    with pytest.raises(ValueError, match="n_atoms are needed"):
        cell.bounds(torch.zeros(1, 6).double(), torch.tensor([5]), torch.tensor([3]))


def test_systems_without_a_cell_are_told_apart() -> None:
    cell = Cell([3, 9], [100, 119])
    assert cell.is_possible.tolist() == [True, False, False, False, False, False]
    assert "cubic needs 90 degrees" in str(cell.conflict(CUBIC))
    assert cell.conflict(TRICLINIC) is None
    apart = Cell({"a": [3, 4], "b": [5, 6], "c": [3, 9]}, [60, 120])
    assert "tetragonal needs equal lengths" in str(apart.conflict(TETRAGONAL))
    assert apart.is_possible[ORTHORHOMBIC]
    obtuse = Cell([3, 9], {"alpha": [90, 95], "beta": [140, 150], "gamma": [90, 135]})
    assert obtuse.is_possible.tolist() == [True, True, False, False, False, False]
    small = Cell([3, 9], [60, 120], volume_per_atom=(5.0, 20.0))
    assert "cubic cell of 1 atom has" in str(small.conflict(CUBIC, 1))
    assert small.conflict(CUBIC, 2) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lengths": [9, 3]}, r"lengths: expected \[low, high\] with 0 < low"),
        ({"lengths": [0, 3]}, "lengths: expected"),
        ({"lengths": 5}, "lengths: expected"),
        ({"lengths": {"a": [3, 4]}}, "missing"),
        ({"lengths": {"a": [3, 4], "d": [3, 4]}}, r"got \['d'\]"),
        ({"lengths": [3.00001, 3.00002]}, "no multiple of 0.0001 Å"),
        ({"angles": [60, 190]}, "0 < low ≤ high < 180"),
        ({"angles": [130, 150]}, "no lattice system has a cell: .* nearer to 90"),
        (
            {"angles": {"alpha": [50, 60], "beta": [90, 90], "gamma": [150, 160]}},
            "no triclinic cell has a volume",
        ),
        ({"volume_per_atom": (5, 4)}, "volume_per_atom: expected"),
        ({"min_volume_factor": 1.0}, "min_volume_factor: expected"),
    ],
)
def test_wrong_ranges_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cell(**{"lengths": [3, 9], "angles": [60, 120], **options})


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"lengths": [200, 300]}, r"\[200, 300\] lies outside \[0.9, 100\] Å"),
        ({"angles": {"gamma": [10, 20]}}, "angles: gamma: .* lies outside"),
        ({"angles": {"delta": [80, 90]}}, r"got \['delta'\]"),
        ({"angles": [125, 150]}, "no lattice system has a cell"),
    ],
)
def test_wrong_restrictions_are_refused(where: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cell([0.9, 100], [50, 150]).narrowed(**where)

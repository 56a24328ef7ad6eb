"""Equivalent free coordinates: same orbits, ranges that reach every orbit, known ranges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sampler.environments.crystal_asymmetric import Point, equivalences, into_ranges, ranges
from sampler.environments.crystal_sites import WyckoffSites
from sampler.environments.crystal_symmetry import space_group
from sampler.environments.crystal_wyckoff_positions import (
    WyckoffPosition,
    orbit_operations,
    wyckoff_positions,
)

NUMBERS = sorted({*range(1, 231, 7), 2, 62, 166, 167, 194, 221, 225, 227, 230})


def random_point(position: WyckoffPosition, rng: np.random.Generator) -> Point:
    x, y, z = [rng.random() if axis in position.axes else 0.0 for axis in range(3)]
    return x, y, z


def orbit(number: int, position: WyckoffPosition, point: Point) -> NDArray[np.float64]:
    atoms = orbit_operations(number, position) @ np.array([*point, 1.0]) % 1
    ticks = np.round(atoms, 6) % 1
    return np.asarray(ticks[np.lexsort(ticks.T)])


@pytest.mark.parametrize("number", NUMBERS)
def test_equivalent_coordinates_give_the_same_orbit(number: int) -> None:
    rng = np.random.default_rng(number)
    for position in wyckoff_positions(number):
        point = random_point(position, rng)
        expected = orbit(number, position, point)
        images = equivalences(number, position) @ np.array([*point, 1.0])
        assert images[0] == pytest.approx(point)
        for x, y, z in images[:8].tolist():
            assert orbit(number, position, (x, y, z)) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_orbit_has_coordinates_inside_the_ranges(number: int) -> None:
    rng = np.random.default_rng(number)
    for position in wyckoff_positions(number):
        share = float(np.prod([float(r.high - r.low) for r in ranges(number, position)]))
        maps = equivalences(number, position)
        assert share * len(maps) > 1 - 1e-9
        for _ in range(3):
            point = random_point(position, rng)
            inside = into_ranges(number, position, point)
            for x, part in zip(inside, ranges(number, position), strict=True):
                assert float(part.low) - 1e-9 <= x <= float(part.high) + 1e-9
            assert into_ranges(number, position, inside) == pytest.approx(inside)
            assert orbit(number, position, inside) == pytest.approx(
                orbit(number, position, point), abs=2e-6
            )
            if abs(share * len(maps) - 1) < 1e-9:  # the ranges leave one choice: all images agree
                for x, y, z in (maps @ np.array([*point, 1.0])).tolist():
                    assert into_ranges(number, position, (x, y, z)) == pytest.approx(inside)


@pytest.mark.parametrize(
    ("number", "letter", "expected"),
    [
        (1, "a", ["0-1", "0-1", "0-1"]),
        (2, "i", ["0-1/2]", "0-1", "0-1"]),
        (47, "A", ["0-1/2]", "0-1/2]", "0-1/2]"]),
        (136, "f", ["0-1/2]", "0-1", "0-1"]),
        (167, "c", ["0-1", "0-1", "0-1/4]"]),
        (167, "f", ["0-1/6]", "0-1", "0-1"]),
        (225, "e", ["0-1/2]", "0-1", "0-1"]),
        (227, "e", ["0-1/2]", "0-1", "0-1"]),
    ],
)
def test_known_ranges(number: int, letter: str, expected: list[str]) -> None:
    position = next(p for p in wyckoff_positions(number) if p.letter == letter)
    found = ranges(number, position)
    assert [f"{r.low}-{r.high}{']' if r.is_closed else ''}" for r in found] == expected


def test_columns_hold_coordinates_on_the_grid_inside_the_ranges() -> None:
    sites = WyckoffSites([space_group(167)], 12, 1, 12)
    group, atoms = torch.zeros(1, dtype=torch.int64), torch.tensor([[12]])
    letter = sites.tables.letters[0].index("c")
    low, end = sites.tables.low[0, letter, 2], sites.tables.end[0, letter, 2]
    assert (float(low), float(end)) == (0.0, 0.2501)
    for z in (0.35216, 0.14784, 0.85216, -0.35216):
        columns = sites.columns_of([[(0, "c", (0.0, 0.0, z))]], group, atoms)
        assert sites.sites(columns, group, atoms) == [[(0, "c", (0.0, 0.0, 0.1478))]]


def test_ranges_that_end_off_the_grid_stop_at_its_last_point() -> None:
    sites = WyckoffSites([space_group(167)], 36, 1, 36)
    letter = sites.tables.letters[0].index("f")
    assert float(sites.tables.end[0, letter, 0]) == 0.1667  # the last x is 0.1666, below 1/6
    group, atoms = torch.zeros(1, dtype=torch.int64), torch.tensor([[36]])
    columns = sites.columns_of([[(0, "f", (1 / 6, 0.3, 0.4))]], group, atoms)
    assert sites.sites(columns, group, atoms)[0][0][2][0] == 0.1666

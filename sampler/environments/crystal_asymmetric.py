"""Which free coordinates of a Wyckoff position give the same orbit, and ranges that avoid repeats.

The symmetry operations that take a point of the form (x, 2x, z) to another of that form act on its
free coordinates: (x, z) may be (-x, -z), say. Each coordinate in turn is kept to the part of [0, 1)
that the operations which leave the earlier ones alone make unique; operations that mix coordinates
(x and y exchanged) are not made use of. Every orbit keeps coordinates inside the ranges; most keep
only one choice. Which of several origins a space group has is not looked at.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sampler.environments.crystal_wyckoff_positions import WyckoffPosition, orbit_operations

Floats = NDArray[np.float64]
Point = tuple[float, float, float]

_EXACT = 1e-9
"""Rounding errors of coordinates are smaller, all exact differences larger."""


class Range(NamedTuple):
    """Part of [0, 1) that a coordinate is kept to."""

    low: Fraction
    high: Fraction
    is_closed: bool
    """Whether `high` belongs to it."""


@cache
def equivalences(number: int, position: WyckoffPosition) -> Floats:
    """Affine maps `(h, 3, 4)` of (x, y, z, 1) to all free coordinates that give the same orbit.

    Modulo 1; coordinates that are not free stay 0. The first is the identity.
    """
    point, maps = position.point, orbit_operations(number, position)
    solved = np.zeros_like(maps)
    for axis in position.axes:
        row = position.row(axis)
        solved[:, axis] = point[row, axis] * maps[:, row]
        solved[:, axis, 3] -= point[row, axis] * point[row, 3]
    rebuilt = point[:, :3] @ solved
    rebuilt[:, :, 3] += point[:, 3]
    difference = rebuilt - maps
    difference[:, :, 3] -= np.rint(difference[:, :, 3])
    return np.asarray(solved[np.abs(difference).max(axis=(1, 2)) < _EXACT])


@cache
def ranges(number: int, position: WyckoffPosition) -> tuple[Range, Range, Range]:
    """Ranges of x, y and z; [0, 1) for a coordinate that is not free."""
    maps = equivalences(number, position)
    found = [Range(Fraction(0), Fraction(1), is_closed=False)] * 3
    for axis in position.axes:
        alone = np.zeros(3)
        alone[axis] = 1
        maps = maps[(np.abs(maps[:, axis, :3]) == alone).all(axis=1)]
        signs = maps[:, axis, axis]
        shifts = [Fraction(round(24 * shift) % 24, 24) for shift in maps[:, axis, 3].tolist()]
        found[axis] = _range(
            [shift for shift, sign in zip(shifts, signs, strict=True) if sign > 0],
            [shift for shift, sign in zip(shifts, signs, strict=True) if sign < 0],
        )
        maps = maps[[sign > 0 and not shift for shift, sign in zip(shifts, signs, strict=True)]]
    return found[0], found[1], found[2]


def into_ranges(number: int, position: WyckoffPosition, point: Point) -> Point:
    """Free coordinates inside `ranges` that give the same orbit: `point` itself if it is inside.

    Of several, the smallest in x, then y, then z.
    """
    images = equivalences(number, position) @ np.array([*point, 1.0])
    images = images - np.floor(images + _EXACT)
    inside = np.ones(len(images), dtype=bool)
    for axis, (low, high, is_closed) in enumerate(ranges(number, position)):
        end = float(high) + (_EXACT if is_closed else -_EXACT)
        inside &= (images[:, axis] >= float(low) - _EXACT) & (images[:, axis] <= end)
    chosen = images[0] if inside[0] else np.array(min(images[inside].tolist()))
    x, y, z = np.maximum(chosen, 0.0).tolist()
    return x, y, z


def _range(shifts: list[Fraction], mirrors: list[Fraction]) -> Range:
    """Range of x that the maps x + shift and mirror - x make unique; they form a group."""
    period = min((shift for shift in shifts if shift), default=Fraction(1))
    if not mirrors:
        return Range(Fraction(0), period, is_closed=False)
    # Mirror points lie half a period apart.
    low = min(mirror / 2 % (period / 2) for mirror in mirrors)
    return Range(low, low + period / 2, is_closed=True)

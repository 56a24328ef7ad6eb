"""A box of n_dims coordinates, each at one of m equally spaced levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.environments.levels import Levels
from sampler.restriction import interval

_TOLERANCE = 1e-6
"""How far off a level, as a share of the range, a number still counts as it."""


class DiscreteHypercube(Levels):
    """Points of a regular grid, one coordinate set at a time; for states see `Levels`.

    A candidate is a float64 numpy vector `(n_dims,)`: levels are equally spaced and include both
    ends of `bounds`. Restriction keys `x0`, `x1`, …: a number that is a level, or [low, high].
    """

    def __init__(
        self,
        n_dims: int,
        bounds: Sequence[Sequence[float]],
        n_levels: int,
        any_order: bool = False,
    ) -> None:
        if n_dims < 1:
            raise ValueError(f"n_dims: expected at least 1, got {n_dims}")
        if n_levels < 2:
            raise ValueError(f"n_levels: expected at least 2, got {n_levels}")
        self.bounds = checked_bounds(bounds, n_dims)
        values = np.stack([np.linspace(low, high, n_levels) for low, high in self.bounds])
        place = np.linspace(0.0, 1.0, n_levels)[:, None]
        super().__init__(n_dims, values, 2 * place - 1, place, any_order)

    def _nearest(self, point: NDArray[np.float64]) -> NDArray[np.int64]:
        misses = np.abs(self.values - point[:, None])
        levels: NDArray[np.int64] = misses.argmin(axis=1)
        miss = misses.min(axis=1) / (self.bounds[:, 1] - self.bounds[:, 0])
        if miss.max() > _TOLERANCE:
            axis = int(miss.argmax())
            raise ValueError(
                f"{point.tolist()} is not on a level: x{axis} = {point[axis]:g}, the nearest "
                f"level is {self.values[axis, levels[axis]]:g}"
            )
        return levels

    def _wanted(self, value: Any, key: str, axis: int) -> NDArray[np.bool_]:
        low, high = interval(value, key)
        slack = 1e-9 * (self.bounds[axis, 1] - self.bounds[axis, 0])
        values = self.values[axis]
        wanted: NDArray[np.bool_] = (values >= low - slack) & (values <= high + slack)
        return wanted


def checked_bounds(bounds: Sequence[Sequence[float]], n_dims: int) -> NDArray[np.float64]:
    """`bounds` as `(n_dims, 2)` float64; ValueError unless finite low < high in each."""
    if len(bounds) != n_dims or any(len(pair) != 2 for pair in bounds):
        raise ValueError(f"bounds: expected {n_dims} pairs [low, high], got {bounds!r}")
    pairs = np.array(bounds, dtype=np.float64)
    for low, high in pairs:
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"bounds: expected finite low < high, got [{low:g}, {high:g}]")
    return pairs

"""A box of n_dims real coordinates, continuous or cut into levels (Lahlou et al. 2023)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampler.environment import Environment
from sampler.environments.hypercube_discrete import DiscreteHypercube, checked_bounds
from sampler.environments.increments import GRID, Increments, required
from sampler.restriction import check_keys, interval

_MAX_MAGNITUDE = 2.0**18
"""Largest ratio of a bound to its range: beyond, float64 loses the coordinate's last digits."""


def Hypercube(  # noqa: N802 (it stands where its neighbours have a class)
    n_dims: int,
    bounds: Sequence[Sequence[float]],
    n_levels: int | None = None,
    n_increments: int = 1,
    any_order: bool = False,
) -> Environment:
    """Make a `ContinuousHypercube`, or with `n_levels` a `DiscreteHypercube`.

    `bounds`: [low, high] of each coordinate. `n_increments`: increments of each coordinate, which
    levels have none of. `any_order`: the policy chooses which coordinate comes next.
    """
    if n_levels is None:
        return ContinuousHypercube(n_dims, bounds, n_increments, any_order)
    if n_increments != 1:
        raise ValueError(
            f"n_increments: expected 1 with n_levels, got {n_increments}: a level is set at once; "
            "leave out one of the two"
        )
    return DiscreteHypercube(n_dims, bounds, n_levels, any_order)


class ContinuousHypercube(Increments):
    """Points of a box: every increment adds a share of what is left to a coordinate's upper end.

    State: see `Increments`. An amount u in (0, 1) moves a coordinate from x to x + u · (1 - x),
    rounded to a multiple of 2^-32 and kept off 0 and 1, so that every logarithm is finite: after
    c of k increments 2^-32 · c ≤ x ≤ 1 - 2^-32 · (k - c + 1). Undoing the first increment leads
    to 0; undoing a later one draws the share v of x that is kept, uniformly. So with p the
    density of u, log p(u) - log(1 - x) is the log-density of the step, and -log(x) that of its
    undoing, in coordinates scaled to [0, 1]. A candidate is a float64 numpy vector `(n_dims,)`
    inside `bounds`.

    Sources: Lahlou et al. 2023 (arXiv 2301.12594); increments of every coordinate in turn, drawn
    from mixtures of Betas: Mila AI4Science et al. 2023 (arXiv 2310.04925).
    """

    def __init__(
        self,
        n_dims: int,
        bounds: Sequence[Sequence[float]],
        n_increments: int = 1,
        any_order: bool = False,
    ) -> None:
        super().__init__(n_dims, n_increments, any_order)
        self.bounds = checked_bounds(bounds, n_dims)
        self._low, self._span = self.bounds[:, 0], self.bounds[:, 1] - self.bounds[:, 0]
        for low, high in self.bounds:
            if max(abs(low), abs(high)) > _MAX_MAGNITUDE * (high - low):
                raise ValueError(
                    f"bounds: [{low:g}, {high:g}] is too narrow for its distance from 0: float64 "
                    "cannot resolve it; shift the coordinate to start near 0"
                )
        self.circular_heads = (False,) * n_dims
        self.n_policy_inputs = n_dims + self._n_progress_inputs
        self.n_features = n_dims
        # Where the last increment may end, in units of 1 / GRID.
        self._lowest = torch.ones(n_dims, dtype=torch.float64)
        self._highest = torch.full((n_dims,), GRID - 1, dtype=torch.float64)
        self._is_restricted = False

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Move a coordinate to x + u · (1 - x)."""
        columns = actions[:, None]
        if self.n_increments == 1 and not self._is_restricted:  # the fast way: x is 0
            first = (required(amounts) * GRID).round_().clamp_(1.0, GRID - 1).div_(GRID)
            return self._moved(states, columns, first, 1.0)
        x, count, lower, upper = self._reach(states, columns)
        aim = (x + required(amounts) * (GRID - x)).round_()
        moved = torch.clamp(aim, min=torch.maximum(lower, x + 1), max=upper)
        return self._moved(states, columns, moved / GRID, count + 1)

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Keep the share `amounts` of a coordinate, or none of it if that was its first increment.

        Amounts may be left out where each coordinate has a single increment.
        """
        columns = actions[:, None]
        if self.n_increments == 1:
            return self._moved(states, columns, 0.0, 0.0)
        count = states.gather(1, columns + self.n_dims) - 1
        x = states.gather(1, columns) * GRID
        kept = torch.clamp((x * required(amounts)).round_(), min=count, max=x - 1)
        return self._moved(states, columns, torch.where(count > 0, kept / GRID, 0.0), count)

    def amount_range(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """All of (0, 1), or what leads into the restriction's interval; never of zero width."""
        if not self._is_restricted:
            return super().amount_range(states, actions)
        x, _, lower, upper = self._reach(states, actions[:, None])
        left = GRID - x
        return ((lower - x).clamp_min(0.0) / left)[:, 0], ((upper - x) / left)[:, 0]

    def amounts_between(self, parents: Tensor, actions: Tensor, children: Tensor) -> Tensor:
        """Share of what was left that the increment added, > 0 and < 1."""
        before, after = (states.gather(1, actions[:, None]) for states in (parents, children))
        return ((after - before) / (1.0 - before))[:, 0]

    def log_width(self, states: Tensor, actions: Tensor) -> Tensor:
        """log(1 - x)."""
        return torch.log1p(-states.gather(1, actions[:, None])[:, 0])

    def log_width_back(self, states: Tensor, actions: Tensor) -> Tensor:
        """log(x); 0 where the only parent has x = 0."""
        if self.n_increments == 1:
            return super().log_width_back(states, actions)
        columns = actions[:, None]
        is_first = states.gather(1, columns + self.n_dims) == 1
        return states.gather(1, columns).masked_fill_(is_first, 1.0).log_()[:, 0]

    def policy_inputs(self, states: Tensor) -> Tensor:
        """Coordinates scaled to [-1, 1], then progress: the step one-hot or scaled counts."""
        coordinates = (states[:, : self.n_dims] * 2.0 - 1.0).float()
        return torch.cat([coordinates, self._progress_inputs(states)], dim=1)

    def features(self, states: Tensor) -> Tensor:
        """Coordinates scaled to [0, 1], `(n, n_dims)` float64."""
        return states[:, : self.n_dims].clone()

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Keys `x0`, `x1`, …: [low, high] in real coordinates, of positive width."""
        check_keys(where, [f"x{i}" for i in range(self.n_dims)])
        space = copy.copy(self)
        space._lowest, space._highest = self._lowest.clone(), self._highest.clone()
        space._is_restricted = True
        for key, value in where.items():
            axis = int(key[1:])
            low, high = self._interval_on_grid(axis, *interval(value, key))
            low, high = max(low, float(self._lowest[axis])), min(high, float(self._highest[axis]))
            if high - low < self.n_increments:
                raise ValueError(
                    f"where: {key}: expected [low, high] of positive width inside "
                    f"[{self.bounds[axis, 0]:g}, {self.bounds[axis, 1]:g}], got {value!r}"
                )
            space._lowest[axis], space._highest[axis] = low, high
        return space

    def _reach(self, states: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Coordinate, count, and lowest and highest next coordinate; `(n, 1)`, 1 / GRID units.

        Each increment that is still to come after the next needs a step of 1 / GRID at least.
        """
        x = states.gather(1, columns) * GRID
        count = states.gather(1, columns + self.n_dims)
        if not self._is_restricted:
            return x, count, x, count + (GRID - self.n_increments)
        n_later = self.n_increments - 1 - count
        lower = self._lowest[columns].masked_fill_(n_later > 0, 0.0)
        return x, count, lower, self._highest[columns] - n_later

    def _interval_on_grid(self, axis: int, low: float, high: float) -> tuple[float, float]:
        """The largest interval of grid values, in units of 1 / GRID, that lies inside."""
        start, span = float(self._low[axis]), float(self._span[axis])
        first = max(1.0, np.ceil((low - start) / span * GRID))
        last = min(GRID - 1, np.floor((high - start) / span * GRID))
        # The division may have rounded past a grid value.
        first += start + first / GRID * span < low
        last -= start + last / GRID * span > high
        return float(first), float(last)

    def _points(self, states: Tensor) -> NDArray[np.float64]:
        coordinates = states[:, : self.n_dims].cpu().numpy()
        points: NDArray[np.float64] = self._low + coordinates * self._span
        return points

    def _on_grid(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        coordinates = (points - self._low) / self._span
        is_outside = np.abs(coordinates - 0.5) > 0.5 + 1e-9
        if is_outside.any():
            row, axis = np.argwhere(is_outside)[0]
            low, high = self.bounds[axis]
            raise ValueError(
                f"{points[row].tolist()} lies outside: x{axis} = {points[row, axis]:g}, "
                f"its bounds are [{low:g}, {high:g}]"
            )
        grid: NDArray[np.float64] = np.rint(coordinates * GRID)
        return grid.clip(self.n_increments, GRID - 1)

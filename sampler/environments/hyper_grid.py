"""A grid of n_dims integer coordinates, the GFlowNet's standard test bed (Bengio et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sampler.environment import Candidate, Environment
from sampler.environments.hypercube_discrete import DiscreteHypercube
from sampler.restriction import Restricted, check_keys, interval

_TOLERANCE = 1e-6
"""How far off the grid a point may lie, as a share of the axis."""
_MOST_LEVELS = 1000
"""A step that sets a coordinate has as many actions as the axis has values."""


class HyperGrid(Environment):
    """Points of a regular grid: start at the origin, step up one axis at a time, stop anywhere.

    State `(n_dims + 1)`: coordinates 0 … length - 1, then 1 once stopped. Action i < n_dims adds
    one to coordinate i, action n_dims stops. A candidate is a float64 numpy vector `(n_dims,)`:
    `length` equally spaced values that include both ends of `bounds`, by default the integer
    coordinates themselves. `where` keys: `x0`, `x1`, … : a real coordinate, or [low, high].
    Source: Bengio et al. 2021 (arXiv 2106.04399), section 4.1.
    """

    def __init__(
        self, n_dims: int, length: int, bounds: list[tuple[float, float]] | None = None
    ) -> None:
        if n_dims < 1:
            raise ValueError(f"n_dims: expected at least 1, got {n_dims}")
        if length < 2:
            raise ValueError(f"length: expected at least 2, got {length}")
        self.n_dims = n_dims
        self.length = length
        self.bounds = _checked_bounds(bounds, n_dims, length)
        self.axes = np.stack([np.linspace(low, high, length) for low, high in self.bounds])
        self.n_actions = n_dims + 1
        self.n_policy_inputs = n_dims * length
        self.n_features = n_dims
        self.max_steps = n_dims * (length - 1) + 1
        self.is_tree = n_dims == 1
        # Row 0 for a running state, row 1 for a stopped one: an action is allowed below `_ends`,
        # can be undone above `_starts`.
        ends = [[length - 1] * n_dims + [1], [0] * (n_dims + 1)]
        self._ends = torch.tensor(ends)
        self._starts = torch.tensor([[0] * (n_dims + 1), [length] * n_dims + [0]])
        self._unit_steps = torch.eye(self.n_actions, dtype=torch.int64)
        self._one_hot = torch.eye(length)

    def initial_states(self, n: int) -> Tensor:
        """The origin."""
        return self._ends.new_zeros(n, self.n_dims + 1)

    def forward_mask(self, states: Tensor) -> Tensor:
        """Axes that are not at their end, and stopping."""
        return states < self._ends.index_select(0, states[:, -1])

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Add one to a coordinate, or stop."""
        return states + self._unit_steps.index_select(0, actions)

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once stopped."""
        return states[:, -1] == 1

    def backward_mask(self, states: Tensor) -> Tensor:
        """Axes that are not at the origin; after stopping, only to go on."""
        return states > self._starts.index_select(0, states[:, -1])

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Take one from a coordinate, or go on."""
        return states - self._unit_steps.index_select(0, actions)

    def policy_inputs(self, states: Tensor) -> Tensor:
        """One-hot coordinates, `(n, n_dims · length)`; whether it stopped is not among them."""
        return torch.embedding(self._one_hot, states[:, :-1]).flatten(1)

    def features(self, states: Tensor) -> Tensor:
        """Coordinates scaled to [0, 1], `(n, n_dims)` float64."""
        return states[:, :-1].double() / (self.length - 1)

    def keys(self, states: Tensor) -> list[str]:
        """Integer coordinates such as `3,17`."""
        return [",".join(map(str, row)) for row in states[:, :-1].tolist()]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote."""
        rows = [[*self._coordinates(key), 1] for key in keys]
        return self._states(rows)

    def decode(self, states: Tensor) -> list[Candidate]:
        """Points of the grid in their real coordinates, float64 `(n_dims,)` each."""
        coordinates = states[:, :-1].cpu().numpy()
        return list(self.axes[np.arange(self.n_dims), coordinates])

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of points that lie on the grid to within 1e-6 of an axis' length."""
        rows = [[*self._nearest(candidate), 1] for candidate in candidates]
        return self._states(rows)

    def compact(self) -> Environment:
        """Each coordinate set in one step instead of counted up, on axes of moderate length."""
        if self.length > _MOST_LEVELS:
            return self
        return DiscreteHypercube(self.n_dims, self.bounds, self.length)

    def random_states(self, n: int, generator: torch.Generator) -> Tensor:
        """Uniform over the grid: random steps would stop near the origin."""
        size, device = (n, self.n_dims), self._ends.device
        points = torch.randint(self.length, size, generator=generator, device=device)
        return torch.cat([points, points.new_ones(n, 1)], dim=1)

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns `x0`, `x1`, …: the real coordinates."""
        return [{f"x{i}": float(x) for i, x in enumerate(point)} for point in self.decode(states)]

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Only points inside the intervals `where`, in real coordinates; ValueError if none is."""
        check_keys(where, [f"x{axis}" for axis in range(self.n_dims)])
        low, high = self._ends.new_zeros(self.n_dims), self._ends[0, :-1].clone()
        for key, value in where.items():
            axis = int(key[1:])
            low[axis], high[axis] = self._index_range(axis, *interval(value, key))
        wish = ", ".join(f"{key}: {value}" for key, value in where.items())
        return Restricted(self, _CanReach(low, high), wish)

    def _states(self, rows: list[list[int]]) -> Tensor:
        states = torch.tensor(rows, dtype=torch.int64, device=self._ends.device)
        return states.reshape(len(rows), self.n_dims + 1)

    def _index_range(self, axis: int, low: float, high: float) -> tuple[int, int]:
        """First and last index of the grid values of `axis` from `low` to `high`."""
        values = self.axes[axis]
        slack = _TOLERANCE * (values[-1] - values[0])
        inside = np.flatnonzero((values >= low - slack) & (values <= high + slack))
        if len(inside) == 0:
            raise ValueError(
                f"where: x{axis}: no grid value from {low:g} to {high:g}; the axis has "
                f"{self.length} values from {values[0]:g} to {values[-1]:g}, "
                f"{values[1] - values[0]:g} apart"
            )
        return int(inside[0]), int(inside[-1])

    def _coordinates(self, key: str) -> list[int]:
        parts = key.split(",")
        if len(parts) != self.n_dims or not all(part.strip().isdecimal() for part in parts):
            raise ValueError(f"key {key!r}: expected {self.n_dims} whole numbers such as '3,17'")
        coordinates = [int(part) for part in parts]
        if max(coordinates) >= self.length:
            raise ValueError(f"key {key!r}: a coordinate is above {self.length - 1}")
        return coordinates

    def _nearest(self, candidate: Candidate) -> list[int]:
        point = np.asarray(candidate, dtype=np.float64)
        if point.shape != (self.n_dims,) or not np.isfinite(point).all():
            raise ValueError(f"expected {self.n_dims} finite numbers, got {candidate!r}")
        low, span = self.axes[:, 0], self.axes[:, -1] - self.axes[:, 0]
        index = np.rint((point - low) / span * (self.length - 1)).astype(int)
        index = index.clip(0, self.length - 1)
        miss = np.abs(self.axes[np.arange(self.n_dims), index] - point) / span
        if miss.max() > _TOLERANCE:
            axis = int(miss.argmax())
            raise ValueError(
                f"{point.tolist()} is not on the grid: x{axis} = {point[axis]:g}, the nearest "
                f"grid value is {self.axes[axis, index[axis]]:g}"
            )
        return [int(i) for i in index]


@dataclass
class _CanReach:
    """Whether a state can still end, or ended, inside a box of grid indices, `(n_dims,)` each."""

    low: Tensor
    high: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        # A running state can still grow to any low end, a stopped one must have reached it.
        coordinates, stopped = states[:, :-1], states[:, -1:]
        return ((coordinates <= self.high) & (coordinates >= self.low * stopped)).all(1)


def _checked_bounds(
    bounds: list[tuple[float, float]] | None, n_dims: int, length: int
) -> list[tuple[float, float]]:
    if bounds is None:
        return [(0.0, float(length - 1))] * n_dims
    if len(bounds) != n_dims:
        raise ValueError(f"bounds: expected {n_dims} pairs, one a dimension, got {len(bounds)}")
    for low, high in bounds:
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"bounds: expected finite low < high, got [{low}, {high}]")
    return [(float(low), float(high)) for low, high in bounds]

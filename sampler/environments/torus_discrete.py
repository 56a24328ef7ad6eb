"""A torus of n_dims angles in steps of 2π / n_angles: each chosen at once, or reached by a walk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampler.distances import circular
from sampler.environment import Candidate, Environment
from sampler.environments.increments import read_point
from sampler.environments.levels import Levels, read_levels, wanted_levels
from sampler.restriction import Restricted

_TURN = 2 * math.pi
_TOLERANCE = 1e-6
"""How far off an angle of the space, in radians, a number still counts as it."""


class DiscreteTorus(Levels):
    """Angles set one at a time to a multiple of 2π / n_angles; for states see `Levels`.

    A candidate is a float64 numpy vector `(n_dims,)` of radians in [0, 2π). Restriction keys
    `x0`, `x1`, …: a number, or the arc [from, to] in radians; [5.5, 0.5] runs over 2π = 0.
    """

    def __init__(self, n_dims: int, n_angles: int, any_order: bool = False) -> None:
        check_sizes(n_dims, n_angles)
        angles = np.arange(n_angles) * (_TURN / n_angles)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        values = np.tile(angles, (n_dims, 1))
        super().__init__(n_dims, values, circle, 0.5 + 0.5 * circle, any_order)

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Root mean square of the arcs between the angles, as parts of half a turn."""
        return circular(a / self.n_levels, b / self.n_levels)

    def _nearest(self, point: NDArray[np.float64]) -> NDArray[np.int64]:
        return nearest_angles(point, self.n_levels)

    def _wanted(self, value: Any, key: str, axis: int) -> NDArray[np.bool_]:
        return angles_in_arc(value, key, self.n_levels)


class TorusWalk(Environment):
    """A walk of exactly n_steps steps from angle 0; each turns one angle by ±2π / n_angles or none.

    State `(n_dims + 1)` int64: angles 0 … n_angles - 1, then the number of steps taken. Action i
    turns angle i on, n_dims + i turns it back, the last action keeps all. A candidate is a float64
    numpy vector `(n_dims,)` of radians in [0, 2π); from n_steps = n_dims · (n_angles // 2) on,
    every point of the torus can be reached. Restriction keys as in `DiscreteTorus`.

    Source: the hyper-torus of Lahlou et al. 2023 (arXiv 2301.12594) on a grid: trajectories of
    fixed length make the graph acyclic.
    """

    def __init__(self, n_dims: int, n_angles: int, n_steps: int) -> None:
        check_sizes(n_dims, n_angles)
        if n_steps < 1:
            raise ValueError(f"n_steps: expected at least 1, got {n_steps}")
        self.n_dims, self.n_angles, self.n_steps = n_dims, n_angles, n_steps
        self.n_actions = 2 * n_dims + 1
        self.max_steps = n_steps
        self.n_policy_inputs = n_dims * (n_angles + 2) + n_steps + 1
        self.n_features = 2 * n_dims
        turns = torch.eye(n_dims, n_dims + 1, dtype=torch.int64)
        self._moves = torch.cat([turns, -turns, torch.zeros(1, n_dims + 1, dtype=torch.int64)])
        self._moves[:, -1] = 1
        angles = torch.arange(n_angles)
        radians = angles.double() * (_TURN / n_angles)
        circle = torch.stack([radians.cos(), radians.sin()], dim=1)
        self._features = 0.5 + 0.5 * circle
        self._angle_inputs = torch.cat([torch.eye(n_angles), circle.float()], dim=1)
        self._step_inputs = torch.eye(n_steps + 1)
        # Steps from angle 0, and how many more it is one angle further back, or on.
        self._distance = torch.minimum(angles, n_angles - angles)
        self._farther_back = self._distance.roll(1) - self._distance
        self._farther_on = self._distance.roll(-1) - self._distance

    def initial_states(self, n: int) -> Tensor:
        """Every angle 0, no step taken."""
        return self._moves.new_zeros(n, self.n_dims + 1)

    def forward_mask(self, states: Tensor) -> Tensor:
        """Every action until the last step."""
        return (states[:, -1:] < self.n_steps).repeat(1, self.n_actions)

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Turn an angle, or keep all."""
        return self._turned(states + self._moves[actions])

    def is_terminal(self, states: Tensor) -> Tensor:
        """True after n_steps steps."""
        return states[:, -1] == self.n_steps

    def backward_mask(self, states: Tensor) -> Tensor:
        """Actions from a parent that one step less could have reached."""
        angles = states[:, :-1]
        spare = states[:, -1:] - 1 - self._distance[angles].sum(dim=1, keepdim=True)
        extra = [self._farther_back[angles], self._farther_on[angles], torch.zeros_like(spare)]
        return torch.cat(extra, dim=1) <= spare

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Take the step back."""
        return self._turned(states - self._moves[actions])

    def policy_inputs(self, states: Tensor) -> Tensor:
        """Of each angle its one-hot, cosine and sine; then the number of steps one-hot."""
        angles = self._angle_inputs[states[:, :-1]].flatten(1)
        return torch.cat([angles, self._step_inputs[states[:, -1]]], dim=1)

    def features(self, states: Tensor) -> Tensor:
        """Of each angle its cosine and sine scaled to [0, 1], float64."""
        return self._features[states[:, :-1]].flatten(1)

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Root mean square of the arcs between the angles, as parts of half a turn."""
        return circular(a[:, :-1] / self.n_angles, b[:, :-1] / self.n_angles)

    def keys(self, states: Tensor) -> list[str]:
        """Angles such as `3,0`, in steps of 2π / n_angles."""
        return [",".join(map(str, row)) for row in states[:, :-1].tolist()]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote."""
        rows = [read_levels(key, self.n_dims, self.n_angles) for key in keys]
        return self._reachable(rows, [f"key {key!r}" for key in keys])

    def decode(self, states: Tensor) -> list[Candidate]:
        """Points in radians, float64 `(n_dims,)` each."""
        return list(states[:, :-1].cpu().numpy() * (_TURN / self.n_angles))

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of points that lie on the grid to within 1e-6 radians."""
        points = [read_point(candidate, self.n_dims) for candidate in candidates]
        rows = [nearest_angles(point, self.n_angles).tolist() for point in points]
        return self._reachable(rows, [str(point.tolist()) for point in points])

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns `x0`, `x1`, …: radians."""
        return [{f"x{i}": float(x) for i, x in enumerate(point)} for point in self.decode(states)]

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Keys `x0`, `x1`, …: a number, or the arc [from, to] in radians."""
        is_wanted = wanted_levels(
            where,
            self.n_dims,
            self.n_angles,
            lambda value, key, axis: angles_in_arc(value, key, self.n_angles),
        )
        angles = torch.arange(self.n_angles)
        apart = (angles[:, None] - angles[None, :]).abs()
        apart = torch.minimum(apart, self.n_angles - apart)
        distance = apart.expand(self.n_dims, -1, -1).masked_fill(
            ~is_wanted[:, None, :], self.n_angles
        )
        steps_left = StepsLeft(distance.amin(dim=2).to(self._moves.device), self.n_steps)
        wish = f"{dict(where)}: it takes more than n_steps = {self.n_steps} steps from angle 0"
        return Restricted(self, steps_left, wish)

    def _turned(self, states: Tensor) -> Tensor:
        """Angles back into 0 … n_angles - 1, in place."""
        states[:, :-1] %= self.n_angles
        return states

    def _reachable(self, rows: list[list[int]], names: list[str]) -> Tensor:
        states = self.initial_states(len(rows))
        states[:, -1] = self.n_steps
        if rows:
            states[:, :-1] = torch.tensor(rows, device=states.device)
        for name, distance in zip(
            names, self._distance[states[:, :-1]].sum(dim=1).tolist(), strict=True
        ):
            if distance > self.n_steps:
                raise ValueError(f"{name} is {distance} steps away, n_steps is {self.n_steps}")
        return states


class StepsLeft:
    """Whether the steps left reach an allowed value in each column: `distance` `(d, v)` to it."""

    def __init__(self, distance: Tensor, n_steps: int) -> None:
        self.distance = distance
        self.n_steps = n_steps
        self.axes = torch.arange(len(distance), device=distance.device)

    def __call__(self, states: Tensor) -> Tensor:
        """`(n,)` bool."""
        needed = self.distance[self.axes, states[:, :-1]].sum(dim=1)
        return needed <= self.n_steps - states[:, -1]


def check_sizes(n_dims: int, n_angles: int) -> None:
    """ValueError unless there is an angle and at least two values of it."""
    if n_dims < 1:
        raise ValueError(f"n_dims: expected at least 1, got {n_dims}")
    if n_angles < 2:
        raise ValueError(f"n_angles: expected at least 2, got {n_angles}")


def arc(value: Any, key: str) -> tuple[float, float]:
    """Start in [0, 2π] and width of a number or an arc [from, to]; ValueError names `key`."""
    pair = (value, value) if isinstance(value, int | float) else value
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(f"where: {key}: expected a number or [from, to], got {value!r}")
    start, end = float(pair[0]), float(pair[1])
    if not (0 <= start <= _TURN and 0 <= end <= _TURN):
        raise ValueError(f"where: {key}: expected radians from 0 to 2π, got {value!r}")
    return start, end - start if start <= end else end - start + _TURN


def angles_in_arc(value: Any, key: str, n_angles: int) -> NDArray[np.bool_]:
    """Which of the angles lie in the arc `value`, `(n_angles,)` bool."""
    start, width = arc(value, key)
    offset = (np.arange(n_angles) * (_TURN / n_angles) - start + 1e-9) % _TURN
    wanted: NDArray[np.bool_] = offset <= width + 2e-9
    return wanted


def nearest_angles(point: NDArray[np.float64], n_angles: int) -> NDArray[np.int64]:
    """Angles `(n_dims,)` in steps of 2π / n_angles; ValueError where the point is off them."""
    steps = point / (_TURN / n_angles)
    nearest = np.rint(steps)
    miss = np.abs(steps - nearest) * (_TURN / n_angles)
    if miss.max() > _TOLERANCE or point.min() < -_TOLERANCE or point.max() > _TURN + _TOLERANCE:
        raise ValueError(
            f"{point.tolist()} is no point of this torus: expected radians from 0 to 2π in steps "
            f"of 2π / {n_angles}"
        )
    angles: NDArray[np.int64] = nearest.astype(np.int64) % n_angles
    return angles

"""What the discrete hypercube and torus share: each coordinate set to one of m levels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampler.environment import Candidate, Environment
from sampler.environments.increments import read_point
from sampler.restriction import Restricted, check_keys


class Levels(Environment):
    """n_dims coordinates that are set, once each, to one of n_levels levels.

    State `(n_dims)` int64: 0 while unset, else 1 + the level. In the fixed order (0, 1, …) action
    l sets the next coordinate to level l; with `any_order` action i · n_levels + l sets coordinate
    i. `inputs` and `features` `(n_levels, ·)` say what policy and surrogate see of a level; the
    policy also sees it one-hot. `values` `(n_dims, n_levels)` are the levels in real units.
    """

    def __init__(
        self,
        n_dims: int,
        values: NDArray[np.float64],
        inputs: NDArray[np.float64],
        features: NDArray[np.float64],
        any_order: bool,
    ) -> None:
        self.n_dims, self.n_levels = values.shape
        self.any_order = any_order
        self.values = values
        self.n_actions = self.n_levels * (n_dims if any_order else 1)
        self.max_steps = n_dims
        self.is_tree = n_dims == 1 or not any_order
        # A row a level, the first for unset.
        self._inputs = torch.zeros(self.n_levels + 1, self.n_levels + inputs.shape[1])
        self._inputs[1:, : self.n_levels] = torch.eye(self.n_levels)
        self._inputs[1:, self.n_levels :] = torch.from_numpy(inputs)
        self._features = torch.from_numpy(np.vstack([0 * features[:1], features]))
        self._one_hot = torch.eye(self.n_levels + 1, dtype=torch.bool)[:, 1:]
        self.n_policy_inputs = n_dims * self._inputs.shape[1]
        self.n_features = n_dims * features.shape[1]

    @abstractmethod
    def _nearest(self, point: NDArray[np.float64]) -> NDArray[np.int64]:
        """Levels `(n_dims,)` of a point; ValueError where it is none."""

    @abstractmethod
    def _wanted(self, value: Any, key: str, axis: int) -> NDArray[np.bool_]:
        """Levels `(n_levels,)` bool of a coordinate that the restriction `value` asks for."""

    def initial_states(self, n: int) -> Tensor:
        """No coordinate set."""
        return self._one_hot.new_zeros(n, self.n_dims, dtype=torch.int64)

    def forward_mask(self, states: Tensor) -> Tensor:
        """Every level of the next coordinate, or of each that is unset."""
        if self.any_order:
            return (states == 0).repeat_interleave(self.n_levels, dim=1)
        return (states[:, -1:] == 0).repeat(1, self.n_levels)

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Set a coordinate."""
        columns, levels = self._target(states, actions, 0)
        return states.scatter(1, columns, levels + 1)

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once every coordinate is set."""
        return (states > 0).all(dim=1) if self.any_order else states[:, -1] > 0

    def backward_mask(self, states: Tensor) -> Tensor:
        """The level of the last coordinate, or of each that is set."""
        if self.any_order:
            return self._one_hot[states].flatten(1)
        last = (states > 0).sum(dim=1, keepdim=True) - 1
        return self._one_hot[states.gather(1, last.clamp_min_(0))[:, 0]]

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Unset a coordinate."""
        columns, _ = self._target(states, actions, -1)
        return states.scatter(1, columns, 0)

    def policy_inputs(self, states: Tensor) -> Tensor:
        """Of each coordinate its level one-hot and its place in numbers, zeros while unset."""
        return self._inputs[states].flatten(1)

    def features(self, states: Tensor) -> Tensor:
        """Of each coordinate its place in numbers, float64."""
        return self._features[states].flatten(1)

    def keys(self, states: Tensor) -> list[str]:
        """Levels such as `3,0`, counted from 0."""
        return [",".join(map(str, row)) for row in (states - 1).tolist()]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote."""
        rows = [read_levels(key, self.n_dims, self.n_levels) for key in keys]
        return self._states(np.array(rows, dtype=np.int64))

    def decode(self, states: Tensor) -> list[Candidate]:
        """Points in real units, float64 `(n_dims,)` each."""
        return list(self.values[np.arange(self.n_dims), (states - 1).cpu().numpy()])

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of points that lie on a level to within 1e-6 of the range."""
        rows = [self._nearest(read_point(candidate, self.n_dims)) for candidate in candidates]
        return self._states(np.array(rows, dtype=np.int64))

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns `x0`, `x1`, …: real units."""
        return [{f"x{i}": float(x) for i, x in enumerate(point)} for point in self.decode(states)]

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Keys `x0`, `x1`, …: a value or [low, high] in real units, both ends included."""
        is_wanted = wanted_levels(where, self.n_dims, self.n_levels, self._wanted)
        unset = torch.ones(self.n_dims, 1, dtype=torch.bool)
        is_allowed = torch.cat([unset, is_wanted], dim=1).to(self._one_hot.device)
        return Restricted(self, AllowedLevels(is_allowed), str(where))

    def _target(self, states: Tensor, actions: Tensor, shift: int) -> tuple[Tensor, Tensor]:
        """Coordinate and level of an action, `(n, 1)` each; `shift` -1 for the last one set."""
        levels = actions[:, None]
        if self.any_order:
            return levels // self.n_levels, levels % self.n_levels
        return (states > 0).sum(dim=1, keepdim=True) + shift, levels

    def _states(self, levels: NDArray[np.int64]) -> Tensor:
        states = torch.from_numpy(levels.reshape(len(levels), self.n_dims) + 1)
        return states.to(self._one_hot.device)


class AllowedLevels:
    """Whether every column of a state `(n, d)` holds an allowed value: `is_allowed` `(d, v)`."""

    def __init__(self, is_allowed: Tensor) -> None:
        self.is_allowed = is_allowed
        self.axes = torch.arange(len(is_allowed), device=is_allowed.device)

    def __call__(self, states: Tensor) -> Tensor:
        """`(n,)` bool."""
        return self.is_allowed[self.axes, states].all(dim=1)


def wanted_levels(where: Mapping[str, Any], n_dims: int, n_levels: int, wanted: Any) -> Tensor:
    """Levels `(n_dims, n_levels)` bool that `where` leaves; ValueError if none of a coordinate.

    `wanted(value, key, axis)` gives those of one coordinate, `(n_levels,)` bool.
    """
    check_keys(where, [f"x{i}" for i in range(n_dims)])
    is_wanted = torch.ones(n_dims, n_levels, dtype=torch.bool)
    for key, value in where.items():
        axis = int(key[1:])
        is_wanted[axis] = torch.from_numpy(wanted(value, key, axis))
        if not bool(is_wanted[axis].any()):
            raise ValueError(f"where: {key}: none of its {n_levels} levels lies in {value!r}")
    return is_wanted


def read_levels(key: str, n_dims: int, n_levels: int) -> list[int]:
    """The levels that a key such as `3,0` names; ValueError names the key."""
    parts = key.split(",")
    if len(parts) != n_dims or not all(part.isascii() and part.isdecimal() for part in parts):
        raise ValueError(f"key {key!r}: expected {n_dims} whole numbers such as '3,0'")
    levels = [int(part) for part in parts]
    if max(levels) >= n_levels:
        raise ValueError(f"key {key!r}: a level is above {n_levels - 1}")
    return levels

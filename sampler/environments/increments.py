"""What the continuous hypercube and torus share: coordinates that grow by real increments.

Source: Lahlou et al. 2023 (arXiv 2301.12594): GFlowNets on measurable spaces, whose steps have
densities.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampler.environment import Candidate, Environment

GRID = 2.0**32
"""Coordinates are kept to multiples of 1 / GRID, so that a candidate leads back to its exact state.

That is finer than a float32 network can see, and coarse enough for float64 to convert to real
bounds and back without an error.
"""


class Increments(Environment):
    """d coordinates in [0, 1], each of which is incremented `n_increments` times.

    State `(2 · n_dims)` float64: the coordinates, 0 while unset, then the number of increments
    that each has had. Action i increments coordinate i by an amount that head i draws. By default
    coordinate 0 comes first, then 1, … and, after the last, 0 again: one action is allowed at a
    time. With `any_order` every coordinate that lacks increments is. What an increment does to
    a coordinate is for the subclass to say.
    """

    def __init__(self, n_dims: int, n_increments: int = 1, any_order: bool = False) -> None:
        if n_dims < 1:
            raise ValueError(f"n_dims: expected at least 1, got {n_dims}")
        if n_increments < 1:
            raise ValueError(f"n_increments: expected at least 1, got {n_increments}")
        self.n_dims = n_dims
        self.n_increments = n_increments
        self.any_order = any_order
        self.n_actions = n_dims
        self.max_steps = n_dims * n_increments
        self.is_tree = n_increments == 1 and (n_dims == 1 or not any_order)
        self.action_heads = torch.arange(n_dims)
        # Row t of each: what holds after t increments in the fixed order.
        turn = torch.eye(n_dims, dtype=torch.bool).repeat(n_increments, 1)
        never = torch.zeros(1, n_dims, dtype=torch.bool)
        self._next = torch.cat([turn, never])
        self._last = torch.cat([never, turn])
        self._step_inputs = torch.eye(self.max_steps + 1)
        self._count_scale = 2.0 / n_increments
        self._n_progress_inputs = n_dims if any_order else self.max_steps + 1

    @abstractmethod
    def _points(self, states: Tensor) -> NDArray[np.float64]:
        """Candidates `(n, n_dims)` of terminal states."""

    @abstractmethod
    def _on_grid(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates `(n, n_dims)` in units of 1 / GRID; ValueError for a point outside."""

    def initial_states(self, n: int) -> Tensor:
        """No coordinate set: zeros `(n, 2 · n_dims)` float64."""
        return self._step_inputs.new_zeros(n, 2 * self.n_dims, dtype=torch.float64)

    def forward_mask(self, states: Tensor) -> Tensor:
        """The coordinate whose turn it is, or each that lacks increments."""
        counts = states[:, self.n_dims :]
        if self.any_order:
            return counts < self.n_increments
        return self._next[counts.sum(dim=1).long()]

    def backward_mask(self, states: Tensor) -> Tensor:
        """The coordinate that was incremented last, or each that may have been."""
        counts = states[:, self.n_dims :]
        return counts > 0 if self.any_order else self._last[counts.sum(dim=1).long()]

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once every coordinate has had all its increments."""
        if self.any_order:
            return states[:, self.n_dims :].sum(dim=1) == self.max_steps
        return states[:, -1] == self.n_increments

    def decode(self, states: Tensor) -> list[Candidate]:
        """Points in their own units, float64 `(n_dims,)` each."""
        return list(self._points(states))

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of points, each coordinate rounded to a multiple of 1 / GRID of its range."""
        points = [read_point(candidate, self.n_dims) for candidate in candidates]
        rows = self._on_grid(np.array(points).reshape(len(points), self.n_dims)) / GRID
        counts = np.full_like(rows, self.n_increments)
        return torch.from_numpy(np.hstack([rows, counts])).to(self._step_inputs.device)

    def keys(self, states: Tensor) -> list[str]:
        """The candidate's numbers such as `3.25,-1.5`, with as many digits as tell them apart."""
        return [",".join(map(repr, point)) for point in self._points(states).tolist()]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote, exactly."""
        rows = []
        for key in keys:
            try:
                rows.append(self.encode([[float(part) for part in key.split(",")]]))
            except ValueError as error:
                raise ValueError(f"key {key!r}: {error}") from error
        return torch.cat([self.initial_states(0), *rows])

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns `x0`, `x1`, …: the candidate's numbers."""
        return [{f"x{i}": x for i, x in enumerate(row)} for row in self._points(states).tolist()]

    def _progress_inputs(self, states: Tensor) -> Tensor:
        """Step one-hot in the fixed order, else counts in [-1, 1]; float32."""
        counts = states[:, self.n_dims :]
        if self.any_order:
            return (counts * self._count_scale - 1.0).float()
        return self._step_inputs[counts.sum(dim=1).long()]

    def _moved(
        self, states: Tensor, columns: Tensor, coordinate: Tensor | float, count: Tensor | float
    ) -> Tensor:
        """Copy of `states` with new values, `(n, 1)` each, of the coordinates in `columns`."""
        moved = states.scatter(1, columns, coordinate)
        return moved.scatter_(1, columns + self.n_dims, count)


def required(amounts: Tensor | None) -> Tensor:
    """`amounts` as a column `(n, 1)` float64; ValueError where there are none."""
    if amounts is None:
        raise ValueError(
            "amounts: a continuous space needs one for each action, got None; draw them in "
            "(0, 1), or take those of `amounts_between`"
        )
    return amounts.double()[:, None]


def read_point(candidate: Candidate, n_dims: int) -> NDArray[np.float64]:
    """`candidate` as a vector `(n_dims,)`; ValueError for another shape or a number not finite."""
    try:
        point = np.asarray(candidate, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected {n_dims} finite numbers, got {candidate!r}") from error
    if point.shape != (n_dims,) or not np.isfinite(point).all():
        raise ValueError(f"expected {n_dims} finite numbers, got {candidate!r}")
    return point

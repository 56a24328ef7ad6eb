"""A torus of n_dims angles, such as the torsions of a molecule, continuous or in m steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampler.distances import circular
from sampler.environment import Environment
from sampler.environments.increments import GRID, Increments, required
from sampler.environments.torus_discrete import DiscreteTorus, TorusWalk, arc
from sampler.restriction import check_keys

_TURN = 2 * math.pi


def Torus(  # noqa: N802 (it stands where its neighbours have a class)
    n_dims: int,
    n_angles: int | None = None,
    n_increments: int = 1,
    n_steps: int | None = None,
    any_order: bool = False,
) -> Environment:
    """Make a `ContinuousTorus`, with `n_angles` a `DiscreteTorus`, with `n_steps` a `TorusWalk`.

    `n_increments`: increments of each angle of the continuous one. `any_order`: the policy chooses
    which angle comes next; a walk always does.
    """
    if n_angles is None:
        if n_steps is not None:
            raise ValueError("n_steps: a walk needs n_angles too; name how many angles there are")
        return ContinuousTorus(n_dims, n_increments, any_order)
    if n_increments != 1:
        raise ValueError(
            f"n_increments: expected 1 with n_angles, got {n_increments}; use n_steps for a walk"
        )
    if n_steps is None:
        return DiscreteTorus(n_dims, n_angles, any_order)
    if any_order:
        raise ValueError("any_order: a walk with n_steps always chooses the angle; leave it out")
    return TorusWalk(n_dims, n_angles, n_steps)


class ContinuousTorus(Increments):
    """Points of a torus: every increment turns one angle on by a part of a whole turn.

    State: see `Increments`; coordinates are angles in turns, 0 ≤ x < 1, multiples of 2^-32. An
    amount u in (0, 1) moves x to (x + u) mod 1, so its head's density is that of the step.
    Undoing the first increment leads to 0; undoing a later one turns back by v, drawn uniformly
    (density 1). A candidate is a float64 numpy vector `(n_dims,)` of radians in [0, 2π).

    Source: Lahlou et al. 2023 (arXiv 2301.12594).
    """

    def __init__(self, n_dims: int, n_increments: int = 1, any_order: bool = False) -> None:
        super().__init__(n_dims, n_increments, any_order)
        self.circular_heads = (True,) * n_dims
        self.n_policy_inputs = 2 * n_dims + self._n_progress_inputs
        self.n_features = 2 * n_dims
        # Arcs where the last increment may end, in units of 1 / GRID: start and width, (n_dims,)
        # each; a width of GRID - 1 holds every grid value.
        self._starts = torch.zeros(n_dims, dtype=torch.float64)
        self._widths = torch.full((n_dims,), GRID - 1, dtype=torch.float64)
        self._is_restricted = False

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Turn an angle on by `amounts` of a whole turn."""
        columns = actions[:, None]
        if self.n_increments == 1 and not self._is_restricted:  # the fast way: the angle is 0
            first = (required(amounts) * GRID).round_().remainder_(GRID).div_(GRID)
            return self._moved(states, columns, first, 1.0)
        count = states.gather(1, columns + self.n_dims) + 1
        angle = (states.gather(1, columns) * GRID + (required(amounts) * GRID).round_()) % GRID
        if self._is_restricted:
            angle = torch.where(count == self.n_increments, self._into_arc(angle, columns), angle)
        return self._moved(states, columns, angle / GRID, count)

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Turn an angle back by `amounts`, or to 0 if that was its first increment.

        Amounts may be left out where each angle has a single increment.
        """
        columns = actions[:, None]
        if self.n_increments == 1:
            return self._moved(states, columns, 0.0, 0.0)
        count = states.gather(1, columns + self.n_dims) - 1
        turned = (required(amounts) * GRID).round_()
        angle = (states.gather(1, columns) * GRID - turned) % GRID / GRID
        return self._moved(states, columns, torch.where(count > 0, angle, 0.0), count)

    def amount_range(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """All of a turn, or what leads into the restriction's arc; it may run over u = 1 = 0."""
        smallest, largest = super().amount_range(states, actions)
        if not self._is_restricted:
            return smallest, largest
        columns = actions[:, None]
        before = states.gather(1, columns) * GRID
        start, width = self._starts[columns], self._widths[columns]
        is_free = states.gather(1, columns + self.n_dims) != self.n_increments - 1
        is_free = (is_free | (width >= GRID - 1))[:, 0]
        first = ((start - before) % GRID / GRID)[:, 0]
        last = ((start + width - before) % GRID / GRID)[:, 0]
        return torch.where(is_free, smallest, first), torch.where(is_free, largest, last)

    def amounts_between(self, parents: Tensor, actions: Tensor, children: Tensor) -> Tensor:
        """Part of a turn between the angles, > 0 and < 1; where they are equal, 2^-34."""
        before, after = (states.gather(1, actions[:, None]) for states in (parents, children))
        return ((after - before) % 1.0).clamp_min_(0.25 / GRID)[:, 0]

    def policy_inputs(self, states: Tensor) -> Tensor:
        """Cosines, sines, then progress: the step one-hot or counts scaled to [-1, 1]."""
        angles = states[:, : self.n_dims] * _TURN
        circle = torch.cat([angles.cos(), angles.sin()], dim=1).float()
        return torch.cat([circle, self._progress_inputs(states)], dim=1)

    def features(self, states: Tensor) -> Tensor:
        """Cosines, then sines, scaled to [0, 1]: `(n, 2 · n_dims)` float64."""
        angles = states[:, : self.n_dims] * _TURN
        return torch.cat([angles.cos(), angles.sin()], dim=1) * 0.5 + 0.5

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Root mean square of the arcs between the angles, as parts of half a turn."""
        return circular(a[:, : self.n_dims], b[:, : self.n_dims])

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Keys `x0`, `x1`, …: the arc [from, to] in radians; [5.5, 0.5] runs over 2π = 0."""
        check_keys(where, [f"x{i}" for i in range(self.n_dims)])
        space = copy.copy(self)
        space._starts, space._widths = self._starts.clone(), self._widths.clone()
        space._is_restricted = True
        for key, value in where.items():
            start, width = arc(value, key)
            first = math.ceil(start / _TURN * GRID)
            last = math.floor((start + width) / _TURN * GRID)
            # The division may have rounded past a grid value.
            first += first / GRID * _TURN < start
            last -= last / GRID * _TURN > start + width
            if last <= first:
                raise ValueError(
                    f"where: {key}: expected an arc [from, to] of positive width, got {value!r}"
                )
            space._starts[int(key[1:])] = first % GRID
            space._widths[int(key[1:])] = min(last - first, GRID - 1)
        return space

    def _into_arc(self, angle: Tensor, columns: Tensor) -> Tensor:
        """`angle` `(n, 1)`, moved to the nearer end of its arc where rounding put it outside."""
        start, width = self._starts[columns], self._widths[columns]
        offset = (angle - start) % GRID
        nearer_start = offset > (GRID + width) / 2
        return (start + torch.minimum(offset, width).masked_fill_(nearer_start, 0.0)) % GRID

    def _points(self, states: Tensor) -> NDArray[np.float64]:
        points: NDArray[np.float64] = states[:, : self.n_dims].cpu().numpy() * _TURN
        return points

    def _on_grid(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        is_outside = (points < 0) | (points > _TURN)
        if is_outside.any():
            row, axis = np.argwhere(is_outside)[0]
            raise ValueError(
                f"{points[row].tolist()} lies outside: x{axis} = {points[row, axis]:g}, expected "
                "radians from 0 to 2π"
            )
        grid: NDArray[np.float64] = np.rint(points / _TURN * GRID) % GRID
        return grid

"""Synthetic oracles: formulas that cost nothing, for tests, demonstrations and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracles.oracle import Answer, NotRun


class Branin:
    """The augmented Branin function: f(x1, x2; bias), exact Branin at bias 0.

        f = (x2 - (b - 0.1 bias) x1^2 + c x1 - 6)^2 + 10 (1 - t) cos(x1) + 10
        b = 5.1 / (4 pi^2),  c = 5 / pi,  t = 1 / (8 pi)

    on [-5, 10] x [0, 15], where exact Branin has its minimum 0.397887 three times: at
    (-pi, 12.275), (pi, 2.275) and (3 pi, 2.475). `bias` in [0, 1] is 1 - s of the fidelity
    parameter s of `botorch.test_functions.multi_fidelity.AugmentedBranin` (Balandat et al. 2020;
    the multi-fidelity form of Wu et al. 2019, "Practical Multi-fidelity Bayesian Optimization for
    Hyperparameter Tuning"), so a larger bias is a cheaper and worse model.

    A candidate is a vector `(2,)`. A wrong shape, a number that is not finite and a point outside
    the domain are `NotRun` answers, each for its own row alone.
    """

    properties = ("value",)
    batch_size = 256

    def __init__(self, fidelity: str, cost: float, bias: float = 0.0) -> None:
        if not 0.0 <= bias <= 1.0:
            raise ValueError(f"bias must lie in [0, 1] (0 is exact Branin), not {bias}")
        if not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost must be a number >= 0, not {cost}")
        self.fidelity = fidelity
        self.cost = cost
        self.bias = bias
        self.version = f"1 bias={bias!r}"

    def query(self, candidates: Sequence[Any]) -> list[Answer]:
        """One `{"value": f}` for each candidate, in order, or a `NotRun` that says why not."""
        points = [_point(candidate) for candidate in candidates]
        good = [point for point in points if not isinstance(point, NotRun)]
        values = iter(augmented_branin(np.array(good).reshape(-1, 2), self.bias))
        return [
            point if isinstance(point, NotRun) else {"value": float(next(values))}
            for point in points
        ]


def augmented_branin(x: NDArray[np.float64], bias: float) -> NDArray[np.float64]:
    """Values `(n,)` of the formula in `Branin` at the points `x` `(n, 2)`."""
    x1, x2 = x[:, 0], x[:, 1]
    # Multiplication, not `**`: its result does not depend on how many rows share one call.
    curve = x2 - (5.1 / (4 * math.pi**2) - 0.1 * bias) * (x1 * x1) + 5 / math.pi * x1 - 6
    values: NDArray[np.float64] = curve * curve + 10 * (1 - 1 / (8 * math.pi)) * _cosine(x1) + 10
    return values


def _cosine(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # numpy's vectorised cosine may round the tail of an array differently from its body, and an
    # answer must not depend on who shares the call.
    return np.array([math.cos(value) for value in x.tolist()], dtype=np.float64)


def _point(candidate: Any) -> NDArray[np.float64] | NotRun:
    try:
        point = np.asarray(candidate, dtype=np.float64)
    except (TypeError, ValueError):
        return NotRun(f"expected a vector of 2 numbers, got {type(candidate).__name__}")
    if point.shape != (2,):
        return NotRun(f"expected a vector of shape (2,), got shape {point.shape}")
    if not np.isfinite(point).all():
        return NotRun(f"expected finite numbers, got {point.tolist()}")
    low, high = np.array([-5.0, 0.0]), np.array([10.0, 15.0])
    if (point < low - 1e-9).any() or (point > high + 1e-9).any():
        return NotRun(f"expected a point in [-5, 10] x [0, 15], got {point.tolist()}")
    return point

"""What the synthetic oracles share: a formula over a box, its cheap forms, and clear refusals.

Formulas cost nothing: they are for tests, demonstrations and benchmarks. Named axes: n points, d
coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from oracles.misleading import Mixture, mixture
from oracles.oracle import Answer, NotRun

Array = NDArray[np.float64]


class Synthetic:
    """A formula over a box that answers `{"value": f(x)}`; the low fidelities are its options.

    `bias` in [0, 1] is how far the published cheap form stands from the exact one (0), as each
    formula says. `r2` in [0, 1] is the share of that form's variance over the box which stays in
    the answer; the rest is an unrelated smooth function of the same scale (`oracles.misleading`),
    so that `r2: 0` tells nothing of the truth while it looks like it.

    A candidate is a vector `(d,)`. A wrong shape, a number that is not finite and a point outside
    the box are `NotRun` answers, each for its own row alone.
    """

    properties = ("value",)
    batch_size = 256
    box: ClassVar[tuple[tuple[float, float], ...]]
    """Low and high end of each coordinate."""

    def __init__(self, fidelity: str, cost: float, bias: float = 0.0, r2: float = 1.0) -> None:
        _check_share("bias", bias, "0 is exact")
        _check_share("r2", r2, "1 is the formula alone")
        if not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost must be a number >= 0, not {cost}")
        self.fidelity = fidelity
        self.cost = cost
        self.bias = bias
        self.r2 = r2
        self.version = f"1 bias={bias!r} r2={r2!r}"

    def formula(self, x: Array) -> Array:
        """Values `(n,)` at the points `x` `(n, d)`, under this oracle's `bias`.

        A value must not depend, to the last bit, on how many points share the call.
        """
        raise NotImplementedError

    def query(self, candidates: Sequence[Any]) -> list[Answer]:
        """One `{"value": f}` for each candidate, in order, or a `NotRun` that says why not."""
        points = [_point(candidate, self.box) for candidate in candidates]
        good = [point for point in points if not isinstance(point, NotRun)]
        values = iter(self._values(np.array(good).reshape(-1, len(self.box))))
        return [
            point if isinstance(point, NotRun) else {"value": float(next(values))}
            for point in points
        ]

    def _values(self, x: Array) -> Array:
        return self.formula(x) if self.r2 == 1.0 else self._mixture(x)

    @cached_property
    def _mixture(self) -> Mixture:
        return mixture(self.formula, self.box, self.r2)


def elementwise(function: Callable[[float], float], x: Array) -> Array:
    """`function` of `math` at each element, in the shape of `x`.

    numpy's vectorised functions may round the tail of an array differently from its body, and an
    answer must not depend on who shares the call.
    """
    values = [function(value) for value in x.ravel().tolist()]
    return np.array(values, dtype=np.float64).reshape(x.shape)


def _check_share(name: str, value: float, meaning: str) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie in [0, 1] ({meaning}), not {value}")


def _point(candidate: Any, box: tuple[tuple[float, float], ...]) -> Array | NotRun:
    n = len(box)
    try:
        point = np.asarray(candidate, dtype=np.float64)
    except (TypeError, ValueError):
        return NotRun(f"expected a vector of {n} numbers, got {type(candidate).__name__}")
    if point.shape != (n,):
        return NotRun(f"expected a vector of shape ({n},), got shape {point.shape}")
    if not np.isfinite(point).all():
        return NotRun(f"expected finite numbers, got {point.tolist()}")
    low, high = np.array(box).T
    if (point < low - 1e-9).any() or (point > high + 1e-9).any():
        shown = " x ".join(f"[{low:g}, {high:g}]" for low, high in box)
        return NotRun(f"expected a point in {shown}, got {point.tolist()}")
    return point

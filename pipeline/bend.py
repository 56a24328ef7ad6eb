"""Bad outcomes drawn in before a surrogate learns from them: detail is wanted among the good ones.

A function with walls of 160 around wells of 1 leaves a Gaussian process, fitted as it is, no
resolution where the search ends. (HEBO, arXiv 2012.03826, transforms outcomes for the same reason;
its power transforms bend the good side too, where here predictions keep the property's units.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.goal import Goal, Target, sign

LEAST_VALUES = 3
"""Values at the target before anything is bent."""

LEAST_TAIL = 4.0
"""The worst tenth lies so many times further from the median than the best does: a heavy tail.
Without one all values say as much, and extrapolation needs them as they are."""

LEAST_SCALE = 0.05
"""The scale of the bend is at least this share of what the values span: no more than the outer
part is drawn in, and five times at most."""


@dataclass(frozen=True)
class Bend:
    """Values worse than `knee` by w count as worse by scale log(1 + w / scale): one bend for all.

    `way`: +1 where larger is better, -1 where smaller is. Better values are as they are, the slope
    is 1 at the knee, and the order stays. A scale of infinity bends nothing.
    """

    knee: float = 0.0
    scale: float = float("inf")
    way: float = 1.0

    def bend(self, values: Tensor) -> Tensor:
        """The values `(n,)` to learn from; NaN stays."""
        if self.scale == float("inf"):
            return values
        worse = (self.way * (self.knee - values)).clamp(min=0.0)
        return values + self.way * (worse - self.scale * torch.log1p(worse / self.scale))

    def straighten(self, mean: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions `(q,)` back in the property's units, by the slope at their mean."""
        if self.scale == float("inf"):
            return mean, sd
        bent = (self.way * (self.knee - mean)).clamp(min=0.0) / self.scale
        worse = self.scale * torch.expm1(bent)
        return mean - self.way * (worse - self.scale * bent), sd * bent.exp()

    def notes(self) -> dict[str, Any]:
        """For people; empty where nothing is bent."""
        bends = self.scale < float("inf")
        return {"bend": {"knee": self.knee, "scale": self.scale}} if bends else {}


def bend_of(values: Tensor, goal: Goal) -> Bend:
    """The bend for the values `(n,)` that the target answered.

    It begins at their median, and its scale is the distance from there to the best of them. None
    for a goal that has two bad sides, for few values, where half of them are equally good, and
    where the worst tenth is not far (`LEAST_TAIL`).
    """
    values = values[values.isfinite()]
    if isinstance(goal, Target) or len(values) < LEAST_VALUES:
        return Bend()
    good = sign(goal) * values
    knee, best, worst = float(good.median()), float(good.max()), float(good.min())
    tail = knee - float(torch.quantile(good, 0.1, interpolation="lower"))
    if best == knee or tail < LEAST_TAIL * (best - knee):
        return Bend()
    return Bend(sign(goal) * knee, max(best - knee, LEAST_SCALE * (best - worst)), sign(goal))

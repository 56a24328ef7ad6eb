"""What one more query of the target is expected to add to the campaign's result.

Named axes: q pool candidates, n candidates that have a value at the target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.improvement import log_improvement, log_student_rise
from surrogate.log_normal import log_expected_improvement
from surrogate.mixture import log_mixed

_LEAST_ROOM = 1e-6
"""The ceiling is above the bar by so much of the typical sd: ties are ranked by their chance."""


@dataclass(frozen=True)
class Harvest:
    """The expected growth of the sum of the k best values by one query, as far as it is foreseen.

    A query adds f - `bar` where f is above the bar, the k-th best value, which then leaves the k
    best; what f is above `ceiling` (infinity: no limit) is not counted. Counted, that tail makes a
    gamble on a place of which nothing is known look better than good candidates that are nearly
    certain, which a last round must not take for a harvest.
    """

    bar: float
    ceiling: float
    step: float = 0.0
    """Values come in steps, and no rise is less than it; 0: they do not."""

    def log(self, mean: Tensor, sd: Tensor) -> Tensor:
        """Log of it by the target's posterior `mean`, `sd`, larger better; all of one shape.

        E[min(max(f - bar, 0), ceiling - bar)] is the expected improvement (Jones, Schonlau and
        Welch 1998, doi 10.1023/A:1008306431147) over the bar less that over the ceiling.
        """
        sd = sd.clamp(min=1e-150)
        above = log_improvement(mean - self.bar, sd, self.step)
        beyond = log_growth(mean, sd, self.ceiling)
        if self.step > 0:
            beyond = sd.log() + log_student_rise((mean - self.ceiling) / sd)
        # What is left of the two far below both keeps the order of the chance to pass the bar.
        return above + torch.log(-torch.expm1((beyond - above).clamp(max=-1e-15)))

    def log_discount(self, mean: Tensor, sd: Tensor, log_weight: Tensor, own: Tensor) -> Tensor:
        """What a candidate is worth less for a value that its family has already, `(q,)`, <= 0.

        Its posterior is a mixture of Gaussians `(p, q)`. `own (q,)` is the best value of each one's
        family, -inf where it has none. The k best hold one of a family: a variant adds what it is
        above its own family's value, not the bar.
        """
        bar = own.clamp(min=self.bar)
        above_own, above_bar = log_growth(mean, sd, bar), log_growth(mean, sd, self.bar)
        return log_mixed(above_own, log_weight) - log_mixed(above_bar, log_weight)


def log_growth(mean: Tensor, sd: Tensor, bar: Tensor | float) -> Tensor:
    """Log of E[max(f - bar, 0)], f of N(mean, sd²), of their shape."""
    sd = sd.clamp(min=1e-300)
    return sd.log() + log_expected_improvement((mean - bar) / sd)


def harvest(mean: Tensor, sd: Tensor, values: Tensor, k: int, step: float = 0.0) -> Harvest:
    """What the k best can gain, by the posterior `mean`, `sd` `(q,)` of the pool's candidates.

    `values (n,)` are what the target answered, one a candidate, all with larger better. The bar is
    the k-th best of them, the worst of all while there are fewer, the mean of the posterior where
    there is none. The ceiling is the best value, or the best mean where that is higher; where
    values come in steps of `step` it is one step above the bar at least, for where the k best are
    equal one more of them adds nothing. ValueError unless k >= 1.
    """
    if k < 1:
        raise ValueError(f"top_k: expected 1 or more, got {k}")
    bar = float(_kth_best(values, mean, k))
    least = bar + _LEAST_ROOM * float(sd.median().clamp(min=1e-300))
    best = float(torch.cat([values.double(), mean.double()]).max())
    return Harvest(bar, max(best, least, bar + step), step)


def _kth_best(values: Tensor, mean: Tensor, k: int) -> Tensor:
    if not len(values):
        return mean.mean()
    return torch.topk(values.double(), min(k, len(values))).values[-1]

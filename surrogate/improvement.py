"""Acquisitions that ask how far above what is known f may lie: `log_ei` and `ucb`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surrogate.acquisition import Acquisition, damp_cheaper
from surrogate.log_normal import log_expected_improvement, log_softplus
from surrogate.mixture import log_mixed


class LogExpectedImprovement(Acquisition):
    """Log expected improvement at the target; at cheaper fidelities, what knowing more is worth.

    At the target log E[max(f - bar, 0)] (Ament et al. 2023, eq. 9), the bar being `kth_best`, or
    `best` without it. An observation at a cheaper fidelity improves nothing itself. It moves the
    target's mean at x by rho sd z, z standard normal, and so the improvement that x promises by
    E[max(mean + rho sd z - bar, 0)] - max(mean - bar, 0) = rho sd EI(-|mean - bar| / (rho sd)):
    the knowledge gradient with x and the bar for alternatives (Frazier et al. 2009, eq. 14). It
    falls to nothing much faster than rho^2 where a fidelity says too little to change the choice.
    """

    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        """Learn nothing: the bar says it all."""

    def _log_gain_at(self, features: Tensor, *, is_every: bool) -> Tensor:
        surrogate = self._prepared()
        means, sds, log_weight = surrogate.mixture(features, surrogate.n_fidelities - 1)
        parts = [
            self._log_gain(
                self._sign * mean, sd, self._log_squared_correlation(features, sd, is_every)
            )
            for mean, sd in zip(means, sds, strict=True)
        ]
        return log_mixed(torch.stack(parts), log_weight)

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        above = mean - self._bar
        log_ei = log_improvement(above, sd, self._step)
        moves = sd[:, None] * (log_rho2[:, :-1] / 2).exp()
        log_worth = moves.log() + log_expected_improvement(-above.abs()[:, None] / moves)
        return torch.cat([log_worth, log_ei[:, None]], 1)


def log_improvement(above: Tensor, sd: Tensor, step: float) -> Tensor:
    """Log expected improvement of f of N(above, sd²) over 0, `(q,)`.

    Where values come in steps, so do improvements: less than half a step is none. With
    e = step / 2 that is E[f 1(f > e)] = e P(f > e) + E[max(f - e, 0)]. And a Gaussian's tail says
    nothing of the next step: on a plateau all candidates are many sd below it, and those that are
    as good as the best for sure would rank above all of which less is known by tens of nats. So f
    is taken to be (above + sd t), where t has Student's distribution with 2 degrees of freedom.
    """
    u = (above - step / 2) / sd
    if step == 0:
        return sd.log() + log_expected_improvement(u)
    log_rise = log_student_rise(u)
    log_chance = log_rise - _hypotenuse(u).log()  # P(u + t > 0) = E[max(u + t, 0)] / s
    return torch.logaddexp(sd.log() + log_rise, math.log(step / 2) + log_chance)


def log_student_rise(u: Tensor) -> Tensor:
    """Log E[max(u + t, 0)] = log((u + s) / 2), s = sqrt(u² + 2), t of Student's with 2 degrees."""
    s = _hypotenuse(u)
    return torch.where(u < 0, -(s - u).log(), ((u + s) / 2).log())


def _hypotenuse(u: Tensor) -> Tensor:
    """The square root of u² + 2, also where u² would overflow."""
    return torch.where(u.abs() > 1e9, u.abs(), (u.square() + 2).sqrt())


class UpperConfidenceBound(Acquisition):
    """Upper confidence bound mean + sqrt(beta) sd at the target, made positive.

    The bound is that of Srinivas et al. 2010 (arXiv 0912.3995, eq. 6). A gain must be positive,
    see `log_above`; the bar is `kth_best`, or `best` without it. Cheaper fidelities are damped by
    their squared correlation with the target.
    """

    def __init__(self, *, beta: float = 4.0) -> None:
        if not (beta >= 0 and math.isfinite(beta)):
            raise ValueError(f"expected a finite beta of 0 or more, got {beta}")
        self._beta = beta

    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        self._temperature = float(sd.quantile(0.5))

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        bound = mean + math.sqrt(self._beta) * sd
        return damp_cheaper(log_above(bound, self._bar, self._temperature), log_rho2)


def log_above(value: Tensor, bar: float, temperature: float) -> Tensor:
    """Log of t softplus((value - bar) / t), `(q,)`: how far above the bar, in its units.

    It keeps the ranking of `value`, is value - bar far above the bar, and never runs out below it.
    The temperature t is a typical posterior standard deviation.
    """
    log_positive: Tensor = math.log(temperature) + log_softplus((value - bar) / temperature)
    return log_positive

"""What a query is worth: the gain of asking about x at each fidelity, before its cost.

All work in logarithms (Ament et al. 2023, arXiv 2310.20708): a gain of 1e-400 still ranks above
one of 1e-500, so a sampler that is trained on it always sees which way is up. Named axes: q
query points, m fidelities (the last is the target), d features, k max-value samples.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from surrogate.log_normal import (
    log_expected_improvement,
    log_minus_log1m_exp,
    log_softplus,
    log_truncation_loss,
)
from surrogate.max_values import sample_max_values
from surrogate.surrogate import Surrogate

LOG_FLOOR = -1e6
"""The least log gain: finite, and below any that tells two candidates apart."""

_MIN_SQUARED_CORRELATION = 1e-12
"""A squared correlation below this is rounding: the fidelity says nothing of the target."""


class Acquisition(ABC):
    """The gain of a query under a fitted surrogate, not yet divided by its cost."""

    _surrogate: Surrogate | None = None

    def prepare(
        self,
        surrogate: Surrogate,
        *,
        sign: float,
        best: float | None,
        reference_features: Tensor,
        seed: int,
    ) -> None:
        """Take in a fitted surrogate; call again after each fit.

        `sign` is +1 to maximise, -1 to minimise. `best` is the best observed value at the target
        fidelity in the property's units; None: the best posterior mean of the reference stands
        in. `reference_features (r, d)`, r >= 1, is a representative sample of the candidates, the
        observed ones included. ValueError for another sign or an empty reference.
        """
        if sign not in (1.0, -1.0):
            raise ValueError(f"expected sign +1 (maximise) or -1 (minimise), got {sign}")
        if len(reference_features) == 0:
            raise ValueError("expected at least one row of reference features, got none")
        self._surrogate = surrogate
        self._sign = sign
        mean, sd = self._target(reference_features)
        self._best = float(mean.max()) if best is None else sign * best
        self._learn_reference(mean, sd, seed)

    def log_gain(self, features: Tensor) -> Tensor:
        """Natural log of the gain of a query of each x at each fidelity, `(q, m)`; finite."""
        mean, sd = self._target(features)
        log_gain = self._log_gain(mean, sd, self._log_squared_correlation(features))
        return log_gain.clamp_min(LOG_FLOOR)

    def target_log_gain(self, features: Tensor) -> Tensor:
        """`log_gain` of a query at the target fidelity, `(q,)`."""
        return self.log_gain(features)[:, -1]

    @abstractmethod
    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        """Log gain `(q, m)`, before the floor.

        `mean` and `sd` `(q,)` are the target's posterior, larger is better; `log_rho2 (q, m)` the
        log squared correlation of a noisy observation at each fidelity with f at the target.
        """

    @abstractmethod
    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        """Take in the target's posterior at the reference, `(r,)` each, larger is better."""

    def _target(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean, larger is better, and sd at the target fidelity, `(q,)` each."""
        surrogate = self._prepared()
        mean, sd = surrogate.predict(features, surrogate.n_fidelities - 1)
        return self._sign * mean, sd

    def _log_squared_correlation(self, features: Tensor) -> Tensor:
        """Log squared correlation of y(x, j), noise included, with f(x, target), `(q, m)`."""
        surrogate = self._prepared()
        covariance = surrogate.fidelity_covariance(features)
        with_target = covariance[:, :, -1]
        observed = covariance.diagonal(dim1=1, dim2=2) + surrogate.noise_variance()
        # One division at a time: the product of two variances of 1e-170 would underflow.
        rho2 = (with_target / observed) * (with_target / with_target[:, -1:])
        return rho2.clamp(_MIN_SQUARED_CORRELATION, 1.0).log()

    def _prepared(self) -> Surrogate:
        if self._surrogate is None:
            raise RuntimeError("expected a prepared acquisition: call prepare(...) first")
        return self._surrogate


class LogExpectedImprovement(Acquisition):
    """Log expected improvement at the target; at cheaper fidelities, times what they tell.

    log E[max(f - best, 0)] (Ament et al. 2023, eq. 9), plus, at a cheaper fidelity, the log of
    the squared correlation between its noisy observation and f at the target: the share of the
    target's variance that it would explain (after Huang et al. 2006, doi
    10.1007/s00158-005-0587-0, whose factor alpha_1 is the correlation itself).
    """

    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        """Learn nothing: the best value says it all."""

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        log_ei = sd.log() + log_expected_improvement((mean - self._best) / sd)
        return _damp_cheaper(log_ei, log_rho2)


class UpperConfidenceBound(Acquisition):
    """Upper confidence bound mean + sqrt(beta) sd at the target, made positive.

    The bound is that of Srinivas et al. 2010 (arXiv 0912.3995, eq. 6). A gain must be positive:
    it is t softplus((bound - best) / t) with t the median posterior sd of the reference, which
    keeps the bound's ranking and its units. Cheaper fidelities are damped as in `log_ei`.
    """

    def __init__(self, *, beta: float = 4.0) -> None:
        if not (beta >= 0 and math.isfinite(beta)):
            raise ValueError(f"expected a finite beta of 0 or more, got {beta}")
        self._beta = beta

    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        self._temperature = float(sd.quantile(0.5))

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        above = (mean + math.sqrt(self._beta) * sd - self._best) / self._temperature
        return _damp_cheaper(math.log(self._temperature) + log_softplus(above), log_rho2)


class MultiFidelityGibbon(Acquisition):
    """Lower bound on the information that one query brings about the target's maximum, in nats.

    The mean over sampled maxima m* of -1/2 log(1 - rho^2 h (g + h)), with g = (m* - mean) / sd
    at the target, h = pdf(g) / cdf(g), and rho the correlation of the noisy observation at the
    fidelity with f at the target (GIBBON: Moss et al. 2021, arXiv 2102.03324, for a batch of
    one; multi-fidelity max-value entropy search: Takeno et al. 2020, arXiv 1901.08275). The
    `n_max_samples` maxima follow the Gumbel approximation of the reference's posterior.
    """

    def __init__(self, *, n_max_samples: int = 16) -> None:
        if n_max_samples < 1:
            raise ValueError(f"expected n_max_samples of 1 or more, got {n_max_samples}")
        self._n_max_samples = n_max_samples

    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        drawn = sample_max_values(mean, sd, self._n_max_samples, seed)
        # The maximum is not below what has been seen (Wang & Jegelka 2017, section 3.1).
        self._max_values = drawn.clamp_min(self._best)

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        log_loss = log_truncation_loss((self._max_values - mean[:, None]) / sd[:, None])
        columns = [
            log_minus_log1m_exp(log_rho2[:, j, None] + log_loss).logsumexp(1)
            for j in range(log_rho2.shape[1])
        ]
        return torch.stack(columns, 1) - math.log(2 * self._n_max_samples)


def _damp_cheaper(target_log_gain: Tensor, log_rho2: Tensor) -> Tensor:
    """Target's log gain `(q,)`, plus log_rho2 `(q, m)` everywhere but at the target."""
    log_factor = log_rho2.clone()
    log_factor[:, -1] = 0.0
    return target_log_gain[:, None] + log_factor

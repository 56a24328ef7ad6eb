"""What a query is worth: the gain of asking about x at each fidelity, before its cost.

All work in logarithms (Ament et al. 2023, arXiv 2310.20708): a gain of 1e-400 still ranks above
one of 1e-500, so a sampler that is trained on it always sees which way is up. Named axes: q
query points, m fidelities (the last is the target), d features, r reference points.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from surrogate.surrogate import Surrogate

LOG_FLOOR = -1e6
"""The least log gain: finite, and below any that tells two candidates apart."""

_MIN_SQUARED_CORRELATION = 1e-12
"""A squared correlation below this is rounding: the fidelity says nothing of the target."""


class Acquisition(ABC):
    """The gain of a query under a fitted surrogate, not yet divided by its cost.

    A kind says what it learns of the reference (`_learn_reference`) and how a gain follows from
    the target's posterior and the fidelities' correlations with it (`_log_gain`); one that needs
    more overrides `_judged` or `_log_gain_at`.
    """

    _surrogate: Surrogate | None = None

    def prepare(
        self,
        surrogate: Surrogate,
        *,
        sign: float,
        best: float | None,
        reference_features: Tensor,
        seed: int,
        kth_best: float | None = None,
        step: float = 0.0,
    ) -> None:
        """Take in a fitted surrogate; call again after each fit.

        `sign` is +1 to maximise, -1 to minimise. `best` is the best observed value at the target
        fidelity in the property's units; None: the best posterior mean of the reference stands
        in. `reference_features (r, d)`, r >= 1, is a representative sample of the candidates, the
        observed ones included. `kth_best` is the k-th best observed value at the target, which a
        candidate must beat to enter the best k: what improvement is measured from, `best` when
        None. (E[max(f - kth_best, 0)] is the expected rise of the sum of the best k.) `step`:
        values come in steps, and no improvement is less than it; 0: they do not. The kinds
        that ask where the maximum is (entropy, knowledge gradient) have no use for it.
        ValueError for another sign, an empty reference or a kth_best better than best.
        """
        _check_request(sign, best, kth_best, reference_features)
        self._surrogate, self._sign = surrogate, sign
        self._reference = reference_features
        mean, sd = self._target(reference_features)
        self._best = float(mean.max()) if best is None else sign * best
        self._bar = self._best if kth_best is None else sign * kth_best
        self._step = step
        self._learn_reference(mean, sd, seed)

    def log_gain(self, features: Tensor) -> Tensor:
        """Natural log of the gain of a query of each x at each fidelity, `(q, m)`; finite."""
        return self._log_gain_at(features, is_every=True).clamp_min(LOG_FLOOR)

    def target_log_gain(self, features: Tensor) -> Tensor:
        """`log_gain` of a query at the target fidelity, `(q,)`, without the work of the others."""
        return self._log_gain_at(features, is_every=False)[:, -1].clamp_min(LOG_FLOOR)

    def _log_gain_at(self, features: Tensor, *, is_every: bool) -> Tensor:
        """Log gain at every fidelity `(q, m)`, or at the target alone `(q, 1)`."""
        mean, sd = self._judged(features)
        return self._log_gain(mean, sd, self._log_squared_correlation(features, sd, is_every))

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        """Log gain `(q, j)`, before the floor.

        `mean` and `sd` `(q,)` are the target's posterior, larger is better; `log_rho2 (q, j)` the
        log squared correlation of a noisy observation at each of j fidelities with f at the
        target. The last of them is the target; j is m or, where it alone is asked, 1.
        """
        raise NotImplementedError(f"expected {type(self).__name__} to say how its gain follows")

    @abstractmethod
    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        """Take in the target's posterior at the reference, `(r,)` each, larger is better."""

    def _judged(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Centre, larger is better, and sd at the target by which x is judged, `(q,)` each."""
        return self._target(features)

    def _target(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean, larger is better, and sd at the target fidelity, `(q,)` each."""
        surrogate = self._prepared()
        mean, sd = surrogate.predict(features, surrogate.n_fidelities - 1)
        return self._sign * mean, sd

    def _log_squared_correlation(self, features: Tensor, sd: Tensor, is_every: bool) -> Tensor:
        """Log squared correlation of y(x, j), noise included, with f(x, target), `(q, m or 1)`."""
        surrogate = self._prepared()
        noise = surrogate.noise_variance()
        at_target = (1 / (1 + (noise[-1].sqrt() / sd).square()))[:, None]
        if not is_every or surrogate.n_fidelities == 1:
            return at_target.clamp_min(_MIN_SQUARED_CORRELATION).log()
        covariance = surrogate.fidelity_covariance(features)
        with_target = covariance[:, :-1, -1]
        observed = covariance.diagonal(dim1=1, dim2=2)[:, :-1] + noise[:-1]
        # One division at a time: the product of two variances of 1e-170 would underflow.
        rho2 = (with_target / observed) * (with_target / covariance[:, -1, -1:])
        return torch.cat([rho2, at_target], 1).clamp(_MIN_SQUARED_CORRELATION, 1.0).log()

    def _prepared(self) -> Surrogate:
        if self._surrogate is None:
            raise RuntimeError("expected a prepared acquisition: call prepare(...) first")
        return self._surrogate


def damp_cheaper(target_log_gain: Tensor, log_rho2: Tensor) -> Tensor:
    """The target's log gain `(q,)`, plus log_rho2 `(q, j)` everywhere but at the target.

    What a cheaper fidelity's observation is worth where only the target's gain is defined: the
    share of the target's variance that it would explain (after Huang et al. 2006, doi
    10.1007/s00158-005-0587-0, whose factor alpha_1 is the correlation itself).
    """
    log_factor = log_rho2.clone()
    log_factor[:, -1] = 0.0
    return target_log_gain[:, None] + log_factor


def _check_request(
    sign: float, best: float | None, kth_best: float | None, reference_features: Tensor
) -> None:
    if sign not in (1.0, -1.0):
        raise ValueError(f"expected sign +1 (maximise) or -1 (minimise), got {sign}")
    if len(reference_features) == 0:
        raise ValueError("expected at least one row of reference features, got none")
    if kth_best is not None and best is not None and sign * kth_best > sign * best:
        raise ValueError(f"expected kth_best no better than best = {best}, got {kth_best}")

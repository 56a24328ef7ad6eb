"""A Gaussian posterior through few inducing points: greedy choice, and the closed form.

Named axes: n observations, k inducing points, m fidelities. Standard units (see `posterior`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from surrogate.held_out import balanced_rows
from surrogate.kernels import MEAN_VARIANCE, JointPrior, stable_cholesky
from surrogate.posterior import Observations, Posterior, one_hot

_CHUNK = 2048
"""Observations at a time: bounds the memory at about chunk x k numbers."""

_LEAST_GAIN = 1e-8
"""No further inducing point when none has more than this part of the prior variance left."""


def choose_inducing(prior: JointPrior, seen: Observations, n_inducing: int) -> Tensor:
    """Row numbers `(k,)` of observations, each where the ones before leave most variance.

    A pivoted Cholesky factorisation of the prior covariance (Burt et al. 2020, arXiv 2008.00323),
    whose rows are computed as they are needed: O(n k) memory. k <= `n_inducing`, less
    where nothing is left to explain.
    """
    of = one_hot(seen.fidelities, prior.n_fidelities)
    factor = torch.zeros(n_inducing, len(seen), dtype=torch.float64)
    chosen: list[int] = []
    with torch.no_grad():
        left = _variances(prior, of)
        enough = _LEAST_GAIN * float(left.max())
        while len(chosen) < n_inducing and float(left.max()) > enough:
            pivot, k = int(left.argmax()), len(chosen)
            row = prior.covariance(seen.x[[pivot]], of[[pivot]], seen.x, of)[0]
            row = (row - factor[:k, pivot] @ factor[:k]) / left[pivot].sqrt()
            factor[k] = row
            left = (left - row.square()).clamp_min(0.0)
            left[pivot] = 0.0
            chosen.append(pivot)
    return torch.tensor(chosen)


def choose_extreme(
    seen: Observations, n_fidelities: int, n_kept: int, generator: torch.Generator
) -> Tensor:
    """Row numbers `(n_kept,)`, sorted: one in 32 the most extreme outcomes, the others random.

    For words, choices and sets, among which hardly any observation speaks for another: whatever
    is not chosen is forgotten, and what must not be is the best. Extremes are counted from the
    median of each fidelity, on either side, for it is not known here which is the better one.
    All rows where there are no more than `n_kept`.
    """
    if len(seen) <= n_kept:
        return torch.arange(len(seen))
    far = torch.zeros_like(seen.y)
    for j in range(n_fidelities):
        mine = seen.fidelities == j
        if bool(mine.any()):
            far[mine] = (seen.y[mine] - seen.y[mine].median()).abs()
    extreme = far.argsort(descending=True, stable=True)[: n_kept // 32]
    is_left = torch.ones(len(seen), dtype=torch.bool)
    is_left[extreme] = False
    left = is_left.nonzero()[:, 0]
    others = left[
        balanced_rows(seen.fidelities[left], n_fidelities, n_kept - len(extreme), generator)
    ]
    return torch.cat([extreme, others]).sort().values


class SparsePosterior(Posterior):
    """The posterior of f through f at k of the observed points.

    Snelson & Ghahramani 2006 (FITC): with A = L^-1 K_kn D^-1/2, L L' = K_kk, and D the
    noise plus what the inducing points leave unexplained of each observation, the covariance of f
    falls by K_.k L^-T (I - (I + A A')^-1) L^-1 K_k. and the mean follows from (I + A A')^-1 A y.
    D, not the noise alone (the optimal q(u) of Titsias 2009): the noise here is learned
    without inducing points, so it does not cover what they miss. With every observation an
    inducing point it is the exact posterior.
    """

    def __init__(self, prior: JointPrior, seen: Observations, inducing: Tensor) -> None:
        self._prior, self._x = prior, prior.encode(seen.x[inducing])
        self._of = one_hot(seen.fidelities[inducing], prior.n_fidelities)
        with torch.no_grad():
            self._signals = prior.signal_covariances()
            level = MEAN_VARIANCE * torch.eye(prior.n_fidelities, dtype=torch.float64)
            self._prior_at_x = self._signals[0] + self._signals[1] + level
            self._against = prior.against(self._x)
            own = prior.covariance(self._x, self._of, self._x, self._of)
            factor = stable_cholesky(own)
            gram, toward = self._absorb(factor, seen)
            explained, basis = torch.linalg.eigh(gram)
            explained = explained.clamp_min(0.0)
            back = torch.linalg.solve_triangular(factor.T, basis, upper=True)
            self._weights = back @ ((basis.T @ toward) / (1 + explained))
            self._whitener = (back * (explained / (1 + explained)).sqrt()).T

    def _absorb(self, factor: Tensor, seen: Observations) -> tuple[Tensor, Tensor]:
        """A A' `(k, k)` and A D^-1/2 y `(k,)`, summed over chunks of the observations."""
        gram, toward = torch.zeros_like(factor), factor.new_zeros(len(factor))
        noise = self._prior.noise_variance()
        for start in range(0, len(seen), _CHUNK):
            part = seen.rows(torch.arange(start, min(start + _CHUNK, len(seen))))
            of = one_hot(part.fidelities, self._prior.n_fidelities)
            cross = self._prior.covariance(self._x, self._of, part.x, of)
            white = torch.linalg.solve_triangular(factor, cross, upper=False)
            missed = (_variances(self._prior, of) - white.square().sum(0)).clamp_min(0.0)
            deviation = (of @ noise + part.extra_noise + missed).sqrt()
            white = white / deviation
            gram += white @ white.T
            toward += white @ (part.y / deviation)
        return gram, toward

    def _whiten(self, cross: Tensor) -> Tensor:
        """Cross-covariance `(q, k)` → `(k, q)` whose squares sum to what the data explain."""
        white: Tensor = self._whitener @ cross.T
        return white


def _variances(prior: JointPrior, of: Tensor) -> Tensor:
    """Prior variance of f at each row's fidelity, `(n,)`."""
    target, rest = prior.signal_covariances()
    variances: Tensor = of @ (target + rest).diagonal() + MEAN_VARIANCE
    return variances

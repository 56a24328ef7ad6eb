"""Closed forms of the joint posterior of all fidelities, from one cached Cholesky factor.

Everything is in standard units: features in the unit cube of the observations, outcomes
standardised. Rasmussen & Williams 2006, eqs. 2.23-2.24 and algorithm 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.encoded import Pairs
from surrogate.kernels import MEAN_VARIANCE, JointPrior, stable_cholesky

_CHUNK = 512
"""Query points at a time: bounds the memory at about chunk x n x m numbers."""

_MIN_RELATIVE_VARIANCE = 1e-12
"""Rounding can leave a tiny negative variance: the least, as a part of the prior's."""


def one_hot(fidelities: Tensor, n_fidelities: int) -> Tensor:
    """One column a fidelity, 1 in each row's own, `(n, m)` float64."""
    return torch.nn.functional.one_hot(fidelities, n_fidelities).double()


@dataclass(frozen=True)
class Observations:
    """Features `x (n, d)`, `fidelities (n,)`, outcomes `y (n,)` and their `extra_noise (n,)`.

    `extra_noise` is a known noise variance on top of the fidelity's learned one.
    """

    x: Tensor
    fidelities: Tensor
    y: Tensor
    extra_noise: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, rows: Tensor) -> Observations:
        """Some of them, by number or mask."""
        return Observations(
            self.x[rows], self.fidelities[rows], self.y[rows], self.extra_noise[rows]
        )


def observation_covariance(
    prior: JointPrior, pairs: Pairs, seen: Observations, of: Tensor
) -> Tensor:
    """Covariance of the noisy observations, `(n, n)`; `of (n, m)` is their one-hot fidelity.

    `pairs` are the observations compared with themselves.
    """
    noise = of @ prior.noise_variance() + seen.extra_noise
    return prior.covariance_of(pairs, of, of) + torch.diag(noise)


class Posterior:
    """The Gaussian posterior of f given n observations; with n = 0 it is the prior."""

    def __init__(self, prior: JointPrior, seen: Observations) -> None:
        self._prior, self._x = prior, prior.encode(seen.x)
        self._of = one_hot(seen.fidelities, prior.n_fidelities)
        with torch.no_grad():
            self._signals = prior.signal_covariances()
            level = MEAN_VARIANCE * torch.eye(prior.n_fidelities, dtype=torch.float64)
            self._prior_at_x = self._signals[0] + self._signals[1] + level
            self._against = prior.against(self._x)
            covariance = torch.cat([self._with_seen(*part) for part in _parts(seen.x, self._of)])
            covariance.diagonal().add_(self._of @ prior.noise_variance() + seen.extra_noise)
            self._factor = stable_cholesky(covariance)
            self._weights = torch.cholesky_solve(seen.y[:, None], self._factor)[:, 0]

    def mean(self, x: Tensor, fidelity: int) -> Tensor:
        """Mean of f at `x (q, d)` and one fidelity, `(q,)`, without the work of a variance."""
        means = [self._cross(part, [fidelity])[:, 0] @ self._weights for (part,) in _parts(x)]
        return torch.cat([x.new_zeros(0), *means])

    def predict(self, x: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of f at `x (q, d)` and one fidelity, `(q,)` each."""
        means, variances = [x.new_zeros(0)], [x.new_zeros(0)]
        for (part,) in _parts(x):
            cross = self._cross(part, [fidelity])[:, 0]
            means.append(cross @ self._weights)
            variances.append(
                self._prior_at_x[fidelity, fidelity] - self._whiten(cross).square().sum(0)
            )
        floor = float(self._prior_at_x[fidelity, fidelity]) * _MIN_RELATIVE_VARIANCE
        return torch.cat(means), torch.cat(variances).clamp_min(floor)

    def fidelity_covariance(self, x: Tensor) -> Tensor:
        """Covariance of f between the fidelities at each `x (q, d)`, `(q, m, m)`."""
        m = self._prior.n_fidelities
        floor = torch.diag(self._prior_at_x.diagonal() * _MIN_RELATIVE_VARIANCE)
        blocks = [x.new_zeros(0, m, m)]
        for (part,) in _parts(x):
            cross = self._cross(part, list(range(m)))
            white = self._whiten(cross.flatten(0, 1)).reshape(len(self._x), len(part), m)
            gram = torch.einsum("nqi,nqj->qij", white, white)
            blocks.append(self._prior_at_x - gram + floor)
        return torch.cat(blocks)

    def covariance(self, x_a: Tensor, of_a: Tensor, x_b: Tensor, of_b: Tensor) -> Tensor:
        """Covariance of f between two sets of points with one-hot fidelities, `(a, b)`."""
        with torch.no_grad():
            white_a = self._whiten(self._with_seen(x_a, of_a))
            white_b = self._whiten(self._with_seen(x_b, of_b))
            return self._prior.covariance(x_a, of_a, x_b, of_b) - white_a.T @ white_b

    def _cross(self, x: Tensor, fidelities: list[int]) -> Tensor:
        """Prior covariance of f at `x (q, d)` with the observations, `(q, len(fidelities), n)`."""
        target, rest = (signal[fidelities] @ self._of.T for signal in self._signals)
        with torch.no_grad():
            asked, (of_target, of_rest) = self._prior.encode(x), self._against
            cross: Tensor = of_target(asked)[:, None, :] * target
            cross.add_(MEAN_VARIANCE * self._of.T[fidelities])
            # The target has no discrepancies: half the work is saved where it is asked alone.
            if bool(rest.any()):
                cross.add_(of_rest(asked)[:, None, :] * rest)
        return cross

    def _with_seen(self, x: Tensor, of: Tensor) -> Tensor:
        """Prior covariance of f at `x (q, d)` and one-hot fidelities with the seen, `(q, n)`."""
        return self._prior.covariance_with(self._against, self._prior.encode(x), of, self._of)

    def _whiten(self, cross: Tensor) -> Tensor:
        """Cross-covariance `(q, n)` → inverse Cholesky factor times its transpose, `(n, q)`."""
        white: Tensor = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        return white


def _parts(*rows: Tensor) -> list[tuple[Tensor, ...]]:
    """Chunks of tensors with equally many rows; one of none where there are none."""
    return list(zip(*(torch.split(each, _CHUNK) for each in rows), strict=True))

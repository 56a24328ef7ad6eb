"""A fitted surrogate with queries that are asked and not answered yet taken into account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from surrogate.kernels import stable_cholesky
from surrogate.mixture import moments
from surrogate.surrogate import Surrogate

_CHUNK = 2048
"""Query points at a time: bounds the memory at about chunk x fidelities x pending numbers."""

_LEAST_LEFT = 1e-12
"""Least part of a variance that the pending queries leave: rounding could make it negative."""


class WithPending(Surrogate):
    """`model` as if each pending query had been answered with its predicted mean.

    Such answers move no mean; they take away the variance that the real ones will, noise
    included: cov(a, b) - cov(a, p) (cov(p, p) + noise)^-1 cov(p, b) (the hallucinated feedback of
    GP-BUCB: Desautels et al. 2014, section 3.2; the kriging believer of Ginsbourger et al. 2010).
    So an acquisition looks elsewhere, and comes back where it was promising if much is still
    unknown. `features (p, d)` and `fidelities (p,)` are the pending queries', p >= 0; the same
    query may be there twice. ValueError for shapes or fidelities that do not fit.
    """

    def __init__(self, model: Surrogate, features: Tensor, fidelities: Tensor) -> None:
        _check_pending(model, features, fidelities)
        self.n_fidelities, self.feature_blocks = model.n_fidelities, model.feature_blocks
        self._model, self._features, self._of = model, features, fidelities
        self._condition()

    def _condition(self) -> None:
        noise = self._model.noise_variance()[self._of]
        own = self._model.covariance(self._features, self._of, self._features, self._of)
        self._factor = stable_cholesky((own + own.T) / 2 + torch.diag(noise))

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        """Fit the model underneath and condition it on the same pending queries."""
        self._model.fit(features, fidelities, values, n_fidelities, seed)
        self.n_fidelities = n_fidelities
        self._condition()

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean, the model's own, and standard deviation of f at one fidelity, `(q,)` each."""
        mean, sd = self._model.predict(features, fidelity)
        return mean, self._left(features, fidelity, sd)

    def mixture(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor, Tensor]:
        """The model's own means and weights, and the sds that are left, `(p, q)` each."""
        mean, sd, log_weight = self._model.mixture(features, fidelity)
        _, whole = moments(mean, sd, log_weight)
        return mean, sd * (self._left(features, fidelity, whole) / whole), log_weight

    def _left(self, features: Tensor, fidelity: int, sd: Tensor) -> Tensor:
        """What the pending queries leave of a standard deviation, `(q,)`."""
        variance = sd.square()
        explained = [
            self._whiten(part, torch.full((len(part),), fidelity)).square().sum(0)
            for part in torch.split(features, _CHUNK)
        ]
        left = variance - torch.cat([variance.new_zeros(0), *explained])
        return torch.maximum(left, _LEAST_LEFT * variance).sqrt()

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        """Posterior covariance of f between two sets of (x, fidelity), `(q_a, q_b)`."""
        own = self._model.covariance(features_a, fidelities_a, features_b, fidelities_b)
        white_a = self._whiten(features_a, fidelities_a)
        return own - white_a.T @ self._whiten(features_b, fidelities_b)

    def fidelity_covariance(self, features: Tensor) -> Tensor:
        """Posterior covariance between the fidelities at each x, `(q, m, m)`, without noise."""
        own = self._model.fidelity_covariance(features)
        explained = [self._explained(part) for part in torch.split(features, _CHUNK)]
        left = own - torch.cat([own.new_zeros(0, *own.shape[1:]), *explained])
        diagonal = left.diagonal(dim1=1, dim2=2)
        least = _LEAST_LEFT * own.diagonal(dim1=1, dim2=2)
        return left + torch.diag_embed(torch.maximum(diagonal, least) - diagonal)

    def noise_variance(self) -> Tensor:
        """Observation noise variance at each fidelity, `(m,)`."""
        return self._model.noise_variance()

    def state(self) -> dict[str, Any]:
        """The model's own."""
        return self._model.state()

    def warm_start(self, state: Mapping[str, Any]) -> None:
        """Hand an earlier state to the model underneath."""
        self._model.warm_start(state)

    def summary(self) -> dict[str, Any]:
        """The model's summary, and how many queries are pending."""
        return self._model.summary() | {"n_pending": len(self._of)}

    def _explained(self, features: Tensor) -> Tensor:
        """What the pending queries take of the covariance between fidelities, `(q, m, m)`."""
        m = self.n_fidelities
        of = torch.arange(m).repeat(len(features))
        white = self._whiten(features.repeat_interleave(m, 0), of)
        white = white.reshape(len(self._of), len(features), m)
        return torch.einsum("pqi,pqj->qij", white, white)

    def _whiten(self, features: Tensor, fidelities: Tensor) -> Tensor:
        """Whitened covariance of the pending answers with f at (x, fidelity), `(p, q)`."""
        cross = self._model.covariance(self._features, self._of, features, fidelities)
        white: Tensor = torch.linalg.solve_triangular(self._factor, cross, upper=False)
        return white


def _check_pending(model: Surrogate, features: Tensor, fidelities: Tensor) -> None:
    if features.ndim != 2 or fidelities.shape != features.shape[:1]:
        raise ValueError(
            f"expected pending features (p, d) and fidelities (p,), got "
            f"{tuple(features.shape)} and {tuple(fidelities.shape)}"
        )
    m = model.n_fidelities
    if bool((fidelities < 0).any()) or bool((fidelities >= m).any()):
        raise ValueError(
            f"expected pending fidelities in 0..{m - 1}, got {sorted(set(fidelities.tolist()))}"
        )

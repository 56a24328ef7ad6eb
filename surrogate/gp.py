"""Gaussian processes over discrete fidelities: `multi_fidelity_gp` and `gp`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from surrogate.fitting import fit_prior
from surrogate.kernels import JointPrior
from surrogate.outcomes import OutcomeScale, fit_outcome_scale, pull_in_outliers
from surrogate.posterior import Observations, Posterior, one_hot
from surrogate.surrogate import Surrogate


class MultiFidelityGP(Surrogate):
    """An exact Gaussian process of every fidelity at once (see `kernels` for the model).

    Correlations between the fidelities, noise and signal of each, and a lengthscale for each
    feature are learned, so a cheap fidelity that says nothing about the target is ignored.
    `n_starts` optimiser starts of at most `max_iterations` each. Observations of the cheaper
    fidelities further than `outlier_mads` robust standard deviations from their median are
    pulled in to that and trusted less (None: never); the target's are taken as they are. An
    observation whose value is not finite is left out. Fits from the same observations, in any
    order, are equal.
    """

    _is_correlated = True

    def __init__(
        self,
        *,
        n_starts: int = 2,
        max_iterations: int = 100,
        outlier_mads: float | None = 6.0,
    ) -> None:
        if n_starts < 1 or max_iterations < 1:
            raise ValueError(
                f"expected n_starts and max_iterations of 1 or more, got {n_starts} and "
                f"{max_iterations}"
            )
        if outlier_mads is not None and not outlier_mads > 0:
            raise ValueError(f"expected outlier_mads above 0 or null, got {outlier_mads}")
        self._n_starts = n_starts
        self._max_iterations = max_iterations
        self._outlier_mads = outlier_mads
        self.n_fidelities = 0

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        """Learn from `features (n, d)`, `fidelities (n,)` int64 and `values (n,)`.

        ValueError for shapes or fidelities that do not fit, features that are not finite, or no
        finite value at all.
        """
        _check(features, fidelities, values, n_fidelities)
        x, of, y = _tidy(features.double(), fidelities, values.double())
        extra = torch.zeros_like(y)
        if self._outlier_mads is not None:
            y, extra = pull_in_outliers(y, of, n_fidelities, self._outlier_mads)
        self._lowest, self._width = _unit_cube(x)
        self._outcomes = self._scale(y, of, n_fidelities)
        standard = self._outcomes.standardise(y, of)
        extra_noise = extra / self._outcomes.scale[of].square()
        seen = Observations(self._in_cube(x), of, standard, extra_noise)
        self._learn(seen.rows(self._learns_from(of, n_fidelities)), n_fidelities, seed)

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f at one fidelity, without noise; `(q,)` each."""
        mean, variance = self._fitted().predict(self._in_cube(features.double()), fidelity)
        scale = self._outcomes.scale[fidelity]
        return self._outcomes.location[fidelity] + scale * mean, scale * variance.sqrt()

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        """Posterior covariance of f between two sets of (x, fidelity), `(q_a, q_b)`."""
        posterior = self._fitted()
        standard = posterior.covariance(
            self._in_cube(features_a.double()),
            one_hot(fidelities_a, self.n_fidelities),
            self._in_cube(features_b.double()),
            one_hot(fidelities_b, self.n_fidelities),
        )
        scale = self._outcomes.scale
        return standard * scale[fidelities_a][:, None] * scale[fidelities_b][None, :]

    def fidelity_covariance(self, features: Tensor) -> Tensor:
        """Posterior covariance between the fidelities at each x, `(q, m, m)`, without noise."""
        standard = self._fitted().fidelity_covariance(self._in_cube(features.double()))
        return standard * self._outcomes.scale[:, None] * self._outcomes.scale[None, :]

    def noise_variance(self) -> Tensor:
        """Observation noise variance at each fidelity, `(m,)`."""
        self._fitted()
        return self._prior.noise_variance().detach() * self._outcomes.scale.square()

    def summary(self) -> dict[str, Any]:
        """Describe what was fitted, for people and JSON; lists run over features or fidelities.

        Lengthscales, the target's, are parts of the observed range of each feature; `signal_sd`,
        `noise_sd` and `location` are in the property's units.
        """
        self._fitted()
        signal = self._prior.log_signal.detach().exp() * self._outcomes.scale
        return {
            "model": "exact GP, autoregressive over fidelities, Matern-5/2",
            "n_observations": self._n_observations,
            "lengthscales": self._prior.target_kernel.lengthscale.detach()[0].tolist(),
            "location": self._outcomes.location.tolist(),
            "signal_sd": signal.tolist(),
            "noise_sd": self.noise_variance().sqrt().tolist(),
            "correlation_with_target": self._prior.correlation().detach()[-1].tolist(),
            "fidelity_correlation": self._prior.correlation().detach().tolist(),
            "log_posterior_per_observation": self._log_posterior,
        }

    def _scale(self, y: Tensor, of: Tensor, n_fidelities: int) -> OutcomeScale:
        return fit_outcome_scale(y, of, n_fidelities)

    def _learns_from(self, of: Tensor, n_fidelities: int) -> Tensor:
        """Which observations the model is fitted to, `(n,)` bool."""
        return torch.ones_like(of, dtype=torch.bool)

    def _learn(self, seen: Observations, n_fidelities: int, seed: int) -> None:
        prior = JointPrior(seen.x.shape[1], n_fidelities, self._is_correlated)
        self._log_posterior: float | None = None
        if len(seen) > 0:
            self._log_posterior = fit_prior(prior, seen, self._n_starts, self._max_iterations, seed)
        self._prior, self._posterior = prior, Posterior(prior, seen)
        self._n_observations = torch.bincount(seen.fidelities, minlength=n_fidelities).tolist()
        self.n_fidelities = n_fidelities

    def _in_cube(self, features: Tensor) -> Tensor:
        if features.ndim != 2 or features.shape[1] != len(self._width):
            raise ValueError(
                f"expected features (q, {len(self._width)}) as in the fit, "
                f"got {tuple(features.shape)}"
            )
        return (features - self._lowest) / self._width

    def _fitted(self) -> Posterior:
        if self.n_fidelities == 0:
            raise RuntimeError("expected a fitted surrogate: call fit(...) first")
        return self._posterior


class GP(MultiFidelityGP):
    """An exact Gaussian process of the target fidelity alone; other observations are ignored.

    Other fidelities are predicted by an independent prior with the target's level and scale, and
    have covariance 0 with it. Before the target's first observation, all is that prior, with
    level and scale of whatever has been observed. Options as in `MultiFidelityGP`.
    """

    _is_correlated = False

    def _scale(self, y: Tensor, of: Tensor, n_fidelities: int) -> OutcomeScale:
        known = self._learns_from(of, n_fidelities)
        known = known if bool(known.any()) else torch.ones_like(known)
        only = torch.zeros_like(of[known])
        one = fit_outcome_scale(y[known], only, 1)
        return OutcomeScale(one.location.expand(n_fidelities), one.scale.expand(n_fidelities))

    def _learns_from(self, of: Tensor, n_fidelities: int) -> Tensor:
        return of == n_fidelities - 1


def _check(features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int) -> None:
    """ValueError, one line, for observations that do not fit together."""
    n = len(values)
    if features.ndim != 2 or len(features) != n or fidelities.shape != (n,) or values.ndim != 1:
        raise ValueError(
            f"expected features (n, d), fidelities (n,) and values (n,), got "
            f"{tuple(features.shape)}, {tuple(fidelities.shape)} and {tuple(values.shape)}"
        )
    if features.shape[1] == 0:
        raise ValueError("expected at least one feature, got features (n, 0)")
    if not bool(values.isfinite().any()):
        raise ValueError(f"expected at least one finite value to learn from, got none of {n}")
    if bool((fidelities < 0).any()) or bool((fidelities >= n_fidelities).any()):
        raise ValueError(
            f"expected fidelities in 0..{n_fidelities - 1}, got {sorted(set(fidelities.tolist()))}"
        )
    if not bool(features.isfinite().all()):
        raise ValueError("expected finite features, got nan or inf: check the space's features")


def _tidy(features: Tensor, fidelities: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Observations with finite values in a canonical order, so that theirs does not matter."""
    columns = [values, *features.T.flip(0), fidelities]
    order = torch.from_numpy(np.lexsort([column.numpy() for column in columns]))
    order = order[values[order].isfinite()]
    return features[order], fidelities[order], values[order]


def _unit_cube(x: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest corner and widths `(d,)` of the box of `x`; width 1 where a feature is constant."""
    lowest, highest = x.min(0).values, x.max(0).values
    width = highest - lowest
    is_constant = width <= 1e-12 * x.abs().max(0).values
    return lowest, torch.where(is_constant, torch.ones_like(width), width)

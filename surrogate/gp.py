"""Gaussian processes over discrete fidelities: `multi_fidelity_gp` and `gp`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surrogate.fitting import fit_prior
from surrogate.kernels import JointPrior
from surrogate.outcomes import OutcomeScale, fit_outcome_scale
from surrogate.posterior import Observations, Posterior
from surrogate.standardised import Standardised, StandardPosterior


class MultiFidelityGP(Standardised):
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
        super().__init__(outlier_mads)
        self._n_starts = n_starts
        self._max_iterations = max_iterations

    def summary(self) -> dict[str, Any]:
        """Describe what was fitted, for people and JSON; lists run over features or fidelities.

        Lengthscales, the target's, are parts of the observed range of each feature; `signal_sd`,
        `noise_sd` and `location` are in the property's units.
        """
        self._fitted()
        signal = self._prior.log_signal.detach().exp() * self._outcomes.scale
        return {
            "model": "exact GP, autoregressive over fidelities, Matern-5/2",
            "n_observations": self._n_learned,
            "lengthscales": self._prior.target_kernel.lengthscale.detach()[0].tolist(),
            "location": self._outcomes.location.tolist(),
            "signal_sd": signal.tolist(),
            "noise_sd": self.noise_variance().sqrt().tolist(),
            "correlation_with_target": self._prior.correlation().detach()[-1].tolist(),
            "fidelity_correlation": self._prior.correlation().detach().tolist(),
            "log_posterior_per_observation": self._log_posterior,
        }

    def _learns_from(self, of: Tensor, n_fidelities: int) -> Tensor:
        """Which observations the model is fitted to, `(n,)` bool."""
        return torch.ones_like(of, dtype=torch.bool)

    def _learn(
        self, seen: Observations, n_fidelities: int, seed: int
    ) -> tuple[StandardPosterior, Tensor]:
        seen = seen.rows(self._learns_from(seen.fidelities, n_fidelities))
        prior = JointPrior(seen.x.shape[1], n_fidelities, self._is_correlated)
        self._log_posterior: float | None = None
        if len(seen) > 0:
            self._log_posterior = fit_prior(prior, seen, self._n_starts, self._max_iterations, seed)
        self._prior = prior
        self._n_learned = torch.bincount(seen.fidelities, minlength=n_fidelities).tolist()
        return Posterior(prior, seen), prior.noise_variance().detach()


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

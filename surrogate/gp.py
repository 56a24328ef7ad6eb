"""Gaussian processes over discrete fidelities: `multi_fidelity_gp` and `gp`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from surrogate.fidelity_signals import Downsampling, LinearTruncated, NumericFidelities
from surrogate.fitting import N_SCREEN, fit_prior, telling_rows
from surrogate.kernels import JointPrior
from surrogate.outcomes import OutcomeScale, fit_outcome_scale
from surrogate.posterior import Observations, Posterior
from surrogate.standardised import Standardised, StandardPosterior
from surrogate.warm import checked_state, state_of, warm_parameters

_NUMERIC: dict[str, type[NumericFidelities]] = {
    "linear_truncated": LinearTruncated,
    "downsampling": Downsampling,
}


class MultiFidelityGP(Standardised):
    """An exact Gaussian process of every fidelity at once (see `kernels` for the model).

    Noise and signal of each fidelity, and the parameters of a kernel made for what the features
    are (see `correlations`), are learned, by `n_starts` optimiser starts of at most
    `max_iterations` each. `fidelities` says how they hang together:

    - `autoregressive`: correlations between the fidelities are learned, so a cheap one that says
      nothing about the target is ignored;
    - `linear_truncated`, `downsampling`: what a fidelity lacks is a function of a number in
      [0, 1], ascending, the target's 1: `fidelity_values` (see `fidelity_signals`). All share
      one scale, so values of all fidelities must be in the same units.

    `noise_sd`: the sd of each fidelity's noise in the property's units; None: learned.
    `is_of_motifs`: of words and sets, what is additive in their motifs explains nearly all,
    wherever these stand (see `correlations`); else how much it does is learned.
    Observations of the cheaper fidelities further than `outlier_mads` robust standard deviations
    from their median are pulled in to that and trusted less (None: never); the target's are taken
    as they are. An observation whose value is not finite is left out. Fits from the same
    observations, in any order, are equal.

    Of words at one fidelity the noise is 1 % of the variance at least, no fit starts from an
    earlier one, and with the goal's `sign` known the 256 most telling observations alone, from
    one start, say what the kernel is (see `telling_rows`); all are learned from.
    """

    _is_correlated = True

    def __init__(
        self,
        *,
        n_starts: int = 2,
        max_iterations: int = 100,
        outlier_mads: float | None = 6.0,
        fidelities: str = "autoregressive",
        fidelity_values: Sequence[float] | None = None,
        noise_sd: Sequence[float] | None = None,
        is_of_motifs: bool = False,
    ) -> None:
        if n_starts < 1 or max_iterations < 1:
            raise ValueError(
                f"expected n_starts and max_iterations of 1 or more, got {n_starts} and "
                f"{max_iterations}"
            )
        super().__init__(outlier_mads)
        self._n_starts = n_starts
        self._max_iterations = max_iterations
        self._values = _checked_values(fidelities, fidelity_values)
        self._numeric = _NUMERIC.get(fidelities)
        self._noise_sd = _checked_noise(noise_sd)
        self._is_of_motifs = is_of_motifs
        self._warm: Mapping[str, Any] = {}

    def state(self) -> dict[str, Any]:
        """The hyper-parameters by name, and of how many observations they were learned afresh."""
        self._fitted()
        return state_of(self._prior, self._n_afresh)

    def warm_start(self, state: Mapping[str, Any]) -> None:
        """Let the next `fit` start from `state`, where there are enough observations (see `warm`).

        ValueError for what is no state.
        """
        self._warm = checked_state(state)

    def summary(self) -> dict[str, Any]:
        """Describe what was fitted, for people and JSON; lists run over features or fidelities.

        Lengthscales, the target's, are parts of the observed range of each feature; `signal_sd`,
        `noise_sd` and `location` are in the property's units.
        """
        self._fitted()
        signal = self._prior.signals.signal_sd().detach() * self._outcomes.scale
        return {
            "model": f"exact GP, {self._prior.signals.name} over fidelities, "
            f"{self._prior.target_kernel.name}",
            "n_observations": self._n_learned,
            **self._prior.target_kernel.describe(),
            "location": self._outcomes.location.tolist(),
            "signal_sd": signal.tolist(),
            "noise_sd": self.noise_variance().sqrt().tolist(),
            "noise": "learned" if self._noise_sd is None else "given",
            "correlation_with_target": self._prior.correlation().detach()[-1].tolist(),
            "fidelity_correlation": self._prior.correlation().detach().tolist(),
            "log_posterior_per_observation": self._log_posterior,
            "is_warm_start": self._is_warm,
        }

    def _learns_from(self, of: Tensor, n_fidelities: int) -> Tensor:
        """Which observations the model is fitted to, `(n,)` bool."""
        return torch.ones_like(of, dtype=torch.bool)

    def _learn(
        self, seen: Observations, n_fidelities: int, seed: int
    ) -> tuple[StandardPosterior, Tensor]:
        seen = seen.rows(self._learns_from(seen.fidelities, n_fidelities))
        prior = self._make_prior(seen.x.shape[1], n_fidelities)
        is_of_words = bool(prior.columns.words) and n_fidelities == 1
        warm = None if is_of_words else warm_parameters(self._warm, prior, len(seen))
        self._is_warm, self._n_afresh = warm is not None, len(seen)
        if warm is not None:
            self._n_afresh = int(self._warm["n_observations"])
        self._warm = {}
        self._log_posterior: float | None = None
        if len(seen) > 0:
            self._log_posterior = self._fit(prior, seen, seed, warm)
        self._prior = prior
        self._n_learned = torch.bincount(seen.fidelities, minlength=n_fidelities).tolist()
        return Posterior(prior, seen), prior.noise_variance().detach()

    def _fit(
        self,
        prior: JointPrior,
        seen: Observations,
        seed: int,
        warm: Mapping[str, Tensor] | None,
    ) -> float:
        """Of words the best and some others say what the kernel must: see `telling_rows`."""
        is_of_words = bool(prior.columns.words) and prior.n_fidelities == 1
        if not is_of_words or self.sign is None or len(seen) <= N_SCREEN:
            return fit_prior(prior, seen, self._n_starts, self._max_iterations, seed, warm)
        told = seen.rows(telling_rows(seen.y, self.sign, N_SCREEN, seed))
        return fit_prior(prior, told, 1, self._max_iterations, seed)

    def _make_prior(self, n_features: int, n_fidelities: int) -> JointPrior:
        for name, given in (("fidelity_values", self._values), ("noise_sd", self._noise_sd)):
            if given is not None and len(given) != n_fidelities:
                raise ValueError(
                    f"expected {name} for each of the {n_fidelities} fidelities, got {len(given)}"
                )
        signals = None
        if self._numeric is not None and self._values is not None:
            signals = self._numeric(self._values)
        prior = JointPrior(
            n_features,
            n_fidelities,
            self._is_correlated,
            self.feature_blocks,
            signals,
            is_of_motifs=self._is_of_motifs,
        )
        if self._noise_sd is not None:
            sd = torch.tensor(self._noise_sd, dtype=torch.float64) / self._outcomes.scale
            prior.fix_noise(sd.square())
        return prior

    def _scale(self, y: Tensor, of: Tensor, n_fidelities: int) -> OutcomeScale:
        each = fit_outcome_scale(y, of, n_fidelities)
        if self._numeric is None:
            return each
        one = fit_outcome_scale(y - each.location[of], torch.zeros_like(of), 1)
        return OutcomeScale(each.location, one.scale.expand(n_fidelities))


class GP(MultiFidelityGP):
    """An exact Gaussian process of the target fidelity alone; other observations are ignored.

    Other fidelities are predicted by an independent prior with the target's level and scale, and
    have covariance 0 with it. Before the target's first observation, all is that prior, with
    level and scale of whatever has been observed. `noise_sd` has one entry for each fidelity;
    other options as in `MultiFidelityGP`.
    """

    _is_correlated = False

    def __init__(
        self,
        *,
        n_starts: int = 2,
        max_iterations: int = 100,
        outlier_mads: float | None = 6.0,
        noise_sd: Sequence[float] | None = None,
        is_of_motifs: bool = False,
    ) -> None:
        super().__init__(
            n_starts=n_starts,
            max_iterations=max_iterations,
            outlier_mads=outlier_mads,
            noise_sd=noise_sd,
            is_of_motifs=is_of_motifs,
        )

    def _scale(self, y: Tensor, of: Tensor, n_fidelities: int) -> OutcomeScale:
        known = self._learns_from(of, n_fidelities)
        known = known if bool(known.any()) else torch.ones_like(known)
        only = torch.zeros_like(of[known])
        one = fit_outcome_scale(y[known], only, 1)
        return OutcomeScale(one.location.expand(n_fidelities), one.scale.expand(n_fidelities))

    def _learns_from(self, of: Tensor, n_fidelities: int) -> Tensor:
        return of == n_fidelities - 1


def _checked_values(kind: str, values: Sequence[float] | None) -> list[float] | None:
    """ValueError for an unknown kind, or for values that it does not take."""
    if kind not in ("autoregressive", *_NUMERIC):
        raise ValueError(
            f"fidelities: expected autoregressive, {', '.join(_NUMERIC)}, got {kind!r}"
        )
    if kind == "autoregressive":
        if values is not None:
            raise ValueError("fidelity_values: autoregressive takes none: leave them out")
        return None
    given = [] if values is None else [float(value) for value in values]
    is_rising = all(a < b for a, b in pairwise(given))
    if not given or not is_rising or given[0] < 0 or given[-1] != 1.0:
        raise ValueError(
            f"fidelity_values: {kind} expects rising numbers from 0 or more to the target's 1, "
            f"got {values}"
        )
    return given


def _checked_noise(noise_sd: Sequence[float] | None) -> list[float] | None:
    if noise_sd is None:
        return None
    given = [float(sd) for sd in noise_sd]
    if not all(sd >= 0 and math.isfinite(sd) for sd in given):
        raise ValueError(f"noise_sd: expected finite numbers of 0 or more, got {given}")
    return given

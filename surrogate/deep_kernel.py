"""A Gaussian process on learned features for hundreds to tens of thousands of points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surrogate.deep_training import train
from surrogate.fitting import fit_prior
from surrogate.held_out import balanced_rows
from surrogate.kernels import JointPrior
from surrogate.posterior import Observations, Posterior
from surrogate.sparse import SparsePosterior, choose_extreme, choose_inducing
from surrogate.standardised import Standardised, StandardPosterior
from surrogate.warp import Warp

_N_START = 256
"""The plain GP that training starts from is fitted to about so many observations."""

_MORE_STARTS, _MORE_ROWS, _ROWS_OF_SPREAD = 4, 8, 2
"""Where features are not continuous: so many times the rows of step 1, and of the inducing points
for the mean and for the covariance."""


class DeepKernel(Standardised):
    """A sparse Gaussian process of every fidelity on learned features, for 300 points and more.

    The prior of `multi_fidelity_gp` on a residual warp of the features that cannot collapse (see
    `warp`). Training is maximum a posteriori in three steps, each bounded whatever n is:

    1. hyper-parameters without a warp, from some 256 observations;
    2. `n_steps` of Adam on both, each on the exact marginal likelihood of `batch_size` random
       observations (Chen et al. 2021, arXiv 2111.10461). Batches keep a deep kernel from
       overfitting, as the likelihood of all data at once does (Ober et al. 2021, arXiv
       2102.12108);
    3. `n_inducing` inducing points by greedy variance reduction, and the posterior through them
       from all observations in closed form: noise is Gaussian, so nothing is left to iterate.

    `width` hidden units in each of `n_blocks` blocks. With `n_inducing` observations or fewer
    the posterior is exact. Features that are not all continuous are not warped: what is
    learned of words, choices and sets is their kernel (see `correlations`), from four times as
    many observations in step 1. There hardly any observation speaks for another, so that few
    inducing points forget the rest: the posterior is exact, its mean on 8 `n_inducing`
    observations at most and its covariance on 2 (see `MeanOfMore`), one in 32 of them the most
    extreme outcomes (see `sparse.choose_extreme`).
    """

    def __init__(
        self,
        *,
        n_inducing: int = 1024,
        n_steps: int = 300,
        batch_size: int = 384,
        n_blocks: int = 2,
        width: int = 16,
        outlier_mads: float | None = 6.0,
    ) -> None:
        super().__init__(outlier_mads)
        least = {"n_inducing": 1, "n_steps": 0, "batch_size": 2, "n_blocks": 1, "width": 1}
        given = dict(zip(least, (n_inducing, n_steps, batch_size, n_blocks, width), strict=True))
        for name, lowest in least.items():
            if given[name] < lowest:
                raise ValueError(f"expected {name} of {lowest} or more, got {given[name]}")
        self._n_inducing, self._n_steps, self._batch_size = n_inducing, n_steps, batch_size
        self._n_blocks, self._width_of_block = n_blocks, width

    def summary(self) -> dict[str, Any]:
        """Describe what was fitted, for people and JSON; lists run over features or fidelities.

        Lengthscales, the target's, are parts of the observed range of each feature, before the
        warp; `warp_bends` bounds how far each block stretches distances (0: not at all).
        """
        self._fitted()
        signal = self._prior.signals.signal_sd().detach() * self._outcomes.scale
        return {
            "model": f"deep kernel GP, {self._encoder}, autoregressive over fidelities, "
            f"{self._prior.target_kernel.name}",
            "n_observations": self._n_observations,
            "n_inducing": self._n_used,
            **self._prior.target_kernel.describe(),
            "warp_trained_steps": self._step,
            "warp_bends": self._warp.bends(),
            "location": self._outcomes.location.tolist(),
            "signal_sd": signal.tolist(),
            "noise_sd": self.noise_variance().sqrt().tolist(),
            "correlation_with_target": self._prior.correlation().detach()[-1].tolist(),
            "fidelity_correlation": self._prior.correlation().detach().tolist(),
        }

    def _learn(
        self, seen: Observations, n_fidelities: int, seed: int
    ) -> tuple[StandardPosterior, Tensor]:
        d = seen.x.shape[1]
        generator = torch.Generator().manual_seed(seed)
        prior = JointPrior(d, n_fidelities, True, self.feature_blocks, is_of_many=True)
        is_warped = prior.columns.is_continuous
        self._encoder = "residual warp" if is_warped else "no warp"
        warp = Warp(d, self._n_blocks, self._width_of_block, 0.9, seed)
        n_start = _N_START if is_warped else _MORE_STARTS * _N_START
        start = balanced_rows(seen.fidelities, n_fidelities, n_start, generator)
        fit_prior(prior, seen.rows(start), n_starts=2, max_iterations=60, seed=seed)
        n_steps = self._n_steps if is_warped else 0
        self._step = train(prior, warp, seen, n_steps, self._batch_size, generator)
        with torch.no_grad():
            warped = Observations(warp(seen.x), seen.fidelities, seen.y, seen.extra_noise)
        self._prior, self._warp = prior, warp
        inner = self._condition(prior, warped, generator)
        posterior = WarpedPosterior(warp, inner) if is_warped else inner
        return posterior, prior.noise_variance().detach()

    def _condition(
        self, prior: JointPrior, warped: Observations, generator: torch.Generator
    ) -> StandardPosterior:
        if prior.columns.is_continuous:
            self._n_used = min(len(warped), self._n_inducing)
            if len(warped) <= self._n_inducing:
                return Posterior(prior, warped)
            inducing = choose_inducing(prior, warped, self._n_inducing)
            self._n_used = len(inducing)
            return SparsePosterior(prior, warped, inducing)
        self._n_used = min(len(warped), _MORE_ROWS * self._n_inducing)
        for_mean, for_spread = (
            Posterior(prior, warped.rows(choose_extreme(warped, prior.n_fidelities, n, generator)))
            for n in (self._n_used, min(self._n_used, _ROWS_OF_SPREAD * self._n_inducing))
        )
        return MeanOfMore(for_mean, for_spread)


class MeanOfMore:
    """The mean of one posterior with the covariance of another, which saw fewer observations.

    A mean takes a product with n numbers, a variance one with n². What is thought too uncertain is
    so on the safe side: more observations never raise a variance.
    """

    def __init__(self, for_mean: Posterior, for_spread: Posterior) -> None:
        self._for_mean, self._for_spread = for_mean, for_spread

    def predict(self, x: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of f at `x (q, d)` and one fidelity, `(q,)` each."""
        return self._for_mean.mean(x, fidelity), self._for_spread.predict(x, fidelity)[1]

    def fidelity_covariance(self, x: Tensor) -> Tensor:
        """Covariance of f between the fidelities at each `x (q, d)`, `(q, m, m)`."""
        return self._for_spread.fidelity_covariance(x)

    def covariance(self, x_a: Tensor, of_a: Tensor, x_b: Tensor, of_b: Tensor) -> Tensor:
        """Covariance of f between two sets of points with one-hot fidelities, `(a, b)`."""
        return self._for_spread.covariance(x_a, of_a, x_b, of_b)


class WarpedPosterior:
    """A posterior over warped features, asked by plain ones."""

    def __init__(self, warp: Warp, inner: StandardPosterior) -> None:
        self._warp, self._inner = warp, inner

    def predict(self, x: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of f at `x (q, d)` and one fidelity, `(q,)` each."""
        return self._inner.predict(self._warped(x), fidelity)

    def fidelity_covariance(self, x: Tensor) -> Tensor:
        """Covariance of f between the fidelities at each `x (q, d)`, `(q, m, m)`."""
        return self._inner.fidelity_covariance(self._warped(x))

    def covariance(self, x_a: Tensor, of_a: Tensor, x_b: Tensor, of_b: Tensor) -> Tensor:
        """Covariance of f between two sets of points with one-hot fidelities, `(a, b)`."""
        return self._inner.covariance(self._warped(x_a), of_a, self._warped(x_b), of_b)

    def _warped(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            warped: Tensor = self._warp(x)
        return warped

"""What every surrogate does around its model: check, order, scale, and answer in units.

A model sees features in the unit cube of the observations and outcomes standardised fidelity by
fidelity (see `outcomes`). Named axes as in `surrogate`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from surrogate.blocks import Layout, layout
from surrogate.outcomes import OutcomeScale, fit_outcome_scale, pull_in_outliers
from surrogate.posterior import Observations, one_hot
from surrogate.surrogate import Surrogate


class StandardPosterior(Protocol):
    """A joint Gaussian posterior of f in standard units, without noise."""

    def predict(self, x: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of f at `x (q, d)` and one fidelity, `(q,)` each."""
        ...

    def fidelity_covariance(self, x: Tensor) -> Tensor:
        """Covariance of f between the fidelities at each `x (q, d)`, `(q, m, m)`."""
        ...

    def covariance(self, x_a: Tensor, of_a: Tensor, x_b: Tensor, of_b: Tensor) -> Tensor:
        """Covariance of f between two sets of points with one-hot fidelities, `(a, b)`."""
        ...


class Standardised(Surrogate):
    """A surrogate whose model lives in standard units; `_learn` is all that it has to say.

    Observations of the cheaper fidelities further than `outlier_mads` robust standard deviations
    from their median are pulled in to that and trusted less (None: never). An observation whose
    value is not finite is left out. Fits from the same observations, in any order, are equal.
    """

    def __init__(self, outlier_mads: float | None) -> None:
        if outlier_mads is not None and not outlier_mads > 0:
            raise ValueError(f"expected outlier_mads above 0 or null, got {outlier_mads}")
        self._outlier_mads = outlier_mads
        self.n_fidelities = 0

    @abstractmethod
    def _learn(
        self, seen: Observations, n_fidelities: int, seed: int
    ) -> tuple[StandardPosterior, Tensor]:
        """Posterior given n >= 1 observations, and the noise variance of each fidelity, `(m,)`."""

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        """Learn from `features (n, d)`, `fidelities (n,)` int64 and `values (n,)`.

        ValueError for shapes, fidelities or `feature_blocks` that do not fit, features that are
        not finite, or no finite value at all.
        """
        check_observations(features, fidelities, values, n_fidelities)
        x, of, y = in_canonical_order(features.double(), fidelities, values.double())
        extra = torch.zeros_like(y)
        if self._outlier_mads is not None:
            y, extra = pull_in_outliers(y, of, n_fidelities, self._outlier_mads)
        self._lowest, self._width = unit_cube(x, layout(self.feature_blocks, x.shape[1]))
        self._outcomes = self._scale(y, of, n_fidelities)
        standard = self._outcomes.standardise(y, of)
        extra_noise = extra / self._outcomes.scale[of].square()
        seen = Observations(self._in_cube(x), of, standard, extra_noise)
        self._posterior, self._noise = self._learn(seen, n_fidelities, seed)
        self._n_observations = torch.bincount(of, minlength=n_fidelities).tolist()
        self.n_fidelities = n_fidelities

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f at one fidelity, without noise; `(q,)` each."""
        mean, variance = self._fitted().predict(self._in_cube(features.double()), fidelity)
        scale = self._outcomes.scale[fidelity]
        return self._outcomes.location[fidelity] + scale * mean, scale * variance.sqrt()

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        """Posterior covariance of f between two sets of (x, fidelity), `(q_a, q_b)`."""
        standard = self._fitted().covariance(
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
        return self._noise * self._outcomes.scale.square()

    def _scale(self, y: Tensor, of: Tensor, n_fidelities: int) -> OutcomeScale:
        return fit_outcome_scale(y, of, n_fidelities)

    def _in_cube(self, features: Tensor) -> Tensor:
        if features.ndim != 2 or features.shape[1] != len(self._width):
            raise ValueError(
                f"expected features (q, {len(self._width)}) as in the fit, "
                f"got {tuple(features.shape)}"
            )
        return (features - self._lowest) / self._width

    def _fitted(self) -> StandardPosterior:
        if self.n_fidelities == 0:
            raise RuntimeError("expected a fitted surrogate: call fit(...) first")
        return self._posterior


def check_observations(
    features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int
) -> None:
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


def in_canonical_order(
    features: Tensor, fidelities: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Observations with finite values in a canonical order, so that theirs does not matter."""
    columns = [values, *features.T.flip(0), fidelities]
    order = torch.from_numpy(np.lexsort([column.numpy() for column in columns]))
    order = order[values[order].isfinite()]
    return features[order], fidelities[order], values[order]


def unit_cube(x: Tensor, columns: Layout) -> tuple[Tensor, Tensor]:
    """Lowest corner and widths `(d,)` of the box of `x`; width 1 where a feature is constant.

    Only continuous columns are scaled: the others are 0 or 1 already.
    """
    lowest, highest = x.min(0).values, x.max(0).values
    width = highest - lowest
    is_scaled = width > 1e-12 * x.abs().max(0).values
    is_number = torch.zeros_like(is_scaled)
    is_number[list(columns.continuous)] = True
    lowest = torch.where(is_number, lowest, torch.zeros_like(lowest))
    return lowest, torch.where(is_scaled & is_number, width, torch.ones_like(width))

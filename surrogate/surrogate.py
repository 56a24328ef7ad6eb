"""The contract of a surrogate: a probabilistic model of one property at every fidelity.

Named axes: n observations, q query points, d features, m fidelities (cheapest first; the last,
m - 1, is the target). Everything is float64 and in the property's own units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from surrogate.blocks import Blocks


class Surrogate(ABC):
    """A model of f(x, fidelity) with a joint Gaussian posterior."""

    n_fidelities: int
    feature_blocks: Blocks | None = None
    """What the columns of the features are (see `blocks`); None: all continuous. Set before fit."""
    sign: float | None = None
    """+1 where more is better, -1 where less is; None: neither is known. Set before fit."""

    @abstractmethod
    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        """Learn from `features (n, d)`, `fidelities (n,)` int64 and `values (n,)`.

        Deterministic in `seed`. ValueError when there is no finite observation at all.
        """

    @abstractmethod
    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f at one fidelity, without noise; `(q,)` each."""

    def mixture(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor, Tensor]:
        """Means, sds and log weights of the Gaussians that f is a mixture of, `(p, q)` each.

        What the weights lack of 1 is the chance that f is at its floor (see `floored`). One part
        for a model that is Gaussian: `predict` and log 1.
        """
        mean, sd = self.predict(features, fidelity)
        return mean[None], sd[None], torch.zeros_like(mean)[None]

    @abstractmethod
    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        """Posterior covariance of f between two sets of (x, fidelity), `(q_a, q_b)`."""

    @abstractmethod
    def fidelity_covariance(self, features: Tensor) -> Tensor:
        """Posterior covariance between the fidelities at each x, `(q, m, m)`, without noise."""

    @abstractmethod
    def noise_variance(self) -> Tensor:
        """Observation noise variance at each fidelity, `(m,)`."""

    def state(self) -> dict[str, Any]:
        """What `warm_start` may be given before the next fit, plain JSON; {} when there is none."""
        return {}

    def warm_start(self, state: Mapping[str, Any]) -> None:
        """Let the next `fit` start from the `state()` of an earlier one, where that saves time.

        Kinds without a state ignore it. ValueError for what is no state of this kind.
        """
        return

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """What was fitted, for people: kernel, lengthscales, noise, fidelity correlations."""

"""Two models of the same observations, believed equally: for what the data cannot decide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from surrogate.mixture import moments
from surrogate.surrogate import Surrogate


class Averaged(Surrogate):
    """The even mixture of two models, for one fidelity.

    Where the best words share one frame, the likelihood of one kernel says that their letters
    matter at their places, and is sure that nothing better is left; that a motif may stand
    elsewhere is as good an explanation. Where two models agree the mixture is as sure as they are,
    and where they do not its variance says so. That is no chance to be better than both: what
    counts on the tail asks for `mixture`. (Weights by evidence would be all or nothing: of some
    hundred observations it differs by tens of nats.)
    """

    def __init__(self, first: Surrogate, second: Surrogate) -> None:
        self._first, self._second = first, second

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        """Fit both. ValueError as theirs, and for more than one fidelity."""
        if n_fidelities != 1:
            raise ValueError(f"expected one fidelity to average over models, got {n_fidelities}")
        for model in (self._first, self._second):
            model.feature_blocks, model.sign = self.feature_blocks, self.sign
            model.fit(features, fidelities, values, n_fidelities, seed)
        self.n_fidelities = n_fidelities

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the mixture, without noise, `(q,)` each."""
        return moments(*self.mixture(features, fidelity))

    def mixture(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor, Tensor]:
        """Means, sds and log weights of both, `(2, q)` each."""
        told = [model.predict(features, fidelity) for model in (self._first, self._second)]
        mean, sd = (torch.stack(both) for both in zip(*told, strict=True))
        return mean, sd, torch.full_like(mean, -math.log(2))

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        """Covariance of f between two sets, `(q_a, q_b)`, the mean of what both models say.

        Which of them is right is left out: that is one question for all candidates, and after the
        first that tells it no other where they disagree would seem worth asking.
        """
        first, second = (
            model.covariance(features_a, fidelities_a, features_b, fidelities_b)
            for model in (self._first, self._second)
        )
        return (first + second) / 2

    def fidelity_covariance(self, features: Tensor) -> Tensor:
        """Variance of f at each x, `(q, 1, 1)`."""
        return self.predict(features, 0)[1].square()[:, None, None]

    def noise_variance(self) -> Tensor:
        """Observation noise variance, the mean of both, `(1,)`."""
        return (self._first.noise_variance() + self._second.noise_variance()) / 2

    def state(self) -> dict[str, Any]:
        """The first model's own."""
        return self._first.state()

    def warm_start(self, state: Mapping[str, Any]) -> None:
        """Hand an earlier state to the first model."""
        self._first.warm_start(state)

    def summary(self) -> dict[str, Any]:
        """The first model's summary, with the second's under `averaged_with`."""
        return self._first.summary() | {"averaged_with": self._second.summary()}

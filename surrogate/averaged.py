"""Two models of the same observations, believed equally: for what the data cannot decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from surrogate.surrogate import Surrogate


class Averaged(Surrogate):
    """The moments of the even mixture of two models, for one fidelity.

    Where the best words share one frame, the likelihood of one kernel says that their letters
    matter at their places, and is sure that nothing better is left; that a motif may stand
    elsewhere is as good an explanation. Where two models agree the mixture is as sure as they are,
    and where they do not its variance says so. (Weights by evidence would be all or nothing: of
    some hundred observations it differs by tens of nats.)
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
        first, sd_first = self._first.predict(features, fidelity)
        second, sd_second = self._second.predict(features, fidelity)
        within = (sd_first.square() + sd_second.square()) / 2
        return (first + second) / 2, (within + (first - second).square() / 4).sqrt()

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        """Covariance of f under the mixture between two sets, `(q_a, q_b)`."""
        first, second = (
            model.covariance(features_a, fidelities_a, features_b, fidelities_b)
            for model in (self._first, self._second)
        )
        between = self._disagreement(features_a)[:, None] * self._disagreement(features_b)
        return (first + second) / 2 + between / 4

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

    def _disagreement(self, features: Tensor) -> Tensor:
        """Difference between the two means, `(q,)`."""
        return self._first.predict(features, 0)[0] - self._second.predict(features, 0)[0]

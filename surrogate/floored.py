"""A surrogate with a floor: what many candidates are worth is learned apart from the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from surrogate.blocks import layout
from surrogate.fitting import telling_rows
from surrogate.floor import Chance
from surrogate.surrogate import Surrogate

MOST_ABOVE = 1500
"""Observations above the floor that the model learns from, at most: an exact one can."""

_LOG_CERTAIN = {True: 0.0, False: -100.0, None: float("nan")}
"""Log chance of what was observed above the floor, at it, and not at all."""


class Floored(Surrogate):
    """f is `floor` with the probability that `Chance` says, else what `model` says.

    For one fidelity, and features without numbers. `model` learns from the observations above the
    floor alone, `MOST_ABOVE` at most: half the best, half at random. `predict` has the moments of
    the mixture; `mixture` its parts, and what was observed is known to be at the floor or
    not. Covariances are the model's, above the floor, times the chances of both to be there.
    """

    def __init__(self, model: Surrogate, floor: float) -> None:
        self._model, self._floor = model, floor
        self.feature_blocks, self.sign = model.feature_blocks, model.sign

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        """Learn from `features (n, d)`, `fidelities (n,)` and `values (n,)`.

        ValueError as the model's, and for more than one fidelity.
        """
        if n_fidelities != 1:
            raise ValueError(f"expected one fidelity above a floor, got {n_fidelities}")
        is_floor, is_known = values == self._floor, values.isfinite()
        above = (is_known & ~is_floor).nonzero()[:, 0]
        if len(above) > MOST_ABOVE:
            above = above[telling_rows(values[above], self.sign or 1.0, MOST_ABOVE, seed)]
        self._model.fit(features[above], fidelities[above], values[above], n_fidelities, seed)
        columns = layout(self.feature_blocks, features.shape[1])
        self._chance = Chance(columns, features[is_known], is_floor[is_known])
        self._is_above = dict(
            zip(_rows(features[is_known]), (~is_floor[is_known]).tolist(), strict=True)
        )
        self._n_floor, self.n_fidelities = int(is_floor.sum()), n_fidelities

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f, the floor included, without noise; `(q,)` each."""
        mean, sd = self._model.predict(features, fidelity)
        chance, above = self._log_chance(features).exp(), mean - self._floor
        variance = chance * (sd.square() + (1 - chance) * above.square())
        return self._floor + chance * above, variance.sqrt().clamp_min(1e-150)

    def mixture(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor, Tensor]:
        """What f is above the floor, `(p, q)`; the weights sum to the chance to be there."""
        mean, sd, log_weight = self._model.mixture(features, fidelity)
        return mean, sd, log_weight + self._log_chance(features)

    def _log_chance(self, features: Tensor) -> Tensor:
        told = [_LOG_CERTAIN[self._is_above.get(row)] for row in _rows(features)]
        known = torch.tensor(told, dtype=torch.float64)
        return torch.where(known.isnan(), self._chance.log_chance(features), known)

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        """Posterior covariance of f between two sets for what is above the floor, `(q_a, q_b)`."""
        above = self._model.covariance(features_a, fidelities_a, features_b, fidelities_b)
        a, b = self._log_chance(features_a).exp(), self._log_chance(features_b).exp()
        return above * a[:, None] * b

    def fidelity_covariance(self, features: Tensor) -> Tensor:
        """Posterior variance of f above the floor at each x, `(q, 1, 1)`."""
        return self._model.fidelity_covariance(features)

    def noise_variance(self) -> Tensor:
        """Observation noise variance above the floor, `(1,)`."""
        return self._model.noise_variance()

    def state(self) -> dict[str, Any]:
        """The model's own."""
        return self._model.state()

    def warm_start(self, state: Mapping[str, Any]) -> None:
        """Hand an earlier state to the model."""
        self._model.warm_start(state)

    def summary(self) -> dict[str, Any]:
        """The model's summary, the floor and how many observations were at it."""
        return self._model.summary() | {"floor": self._floor, "n_floor": self._n_floor}


def _rows(features: Tensor) -> list[bytes]:
    """A name for each row of `features (n, d)` of counts, equal for equal ones."""
    return [row.tobytes() for row in features.to(torch.uint8).numpy()]

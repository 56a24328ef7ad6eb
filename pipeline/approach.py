"""The distance of a modelled property to a target value, as an acquisition sees it.

The surrogate models the property itself: it is smoother than its distance to a target, which folds
there, and fidelities agree about it linearly. Predictions, calibration and figures stay in its
units. Only the acquisition is shown the distance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from surrogate.surrogate import Surrogate

if TYPE_CHECKING:
    from pipeline.goal import Goal


class Distance(Surrogate):
    """A fitted surrogate f seen as d = |f - target|: the normal of the same mean and variance.

    d of a normal f is folded normal (Leone, Nelson & Nottingham 1961, doi
    10.1080/00401706.1961.10489974). Covariances stay those of f: at a point and between fidelities
    they say how much an outcome tells of f, which is what it tells of d.
    """

    def __init__(self, model: Surrogate, target: float) -> None:
        self._model, self._target = model, target
        self.n_fidelities = model.n_fidelities

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        """Fit the model of the property: `values` are the property's."""
        self._model.fit(features, fidelities, values, n_fidelities, seed)
        self.n_fidelities = n_fidelities

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of |f - target|, `(q,)` each."""
        mean, sd = self._model.predict(features, fidelity)
        return folded(mean - self._target, sd)

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        """Posterior covariance of f, `(q_a, q_b)`."""
        return self._model.covariance(features_a, fidelities_a, features_b, fidelities_b)

    def fidelity_covariance(self, features: Tensor) -> Tensor:
        """Posterior covariance of f between the fidelities, `(q, m, m)`."""
        return self._model.fidelity_covariance(features)

    def noise_variance(self) -> Tensor:
        """Observation noise variance of the property at each fidelity, `(m,)`."""
        return self._model.noise_variance()

    def summary(self) -> dict[str, Any]:
        """What was fitted, and the target."""
        return self._model.summary() | {"target": self._target}


def folded(mean: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of |X| for X of N(mean, sd²), `(q,)` each.

    With z = |mean| / sd and h = pdf(z) - z cdf(-z): E|X| = sd (z + 2 h) and
    Var|X| = sd² (1 - 4 h (z + h)). Written so, nothing cancels far from zero, where h vanishes.
    """
    z = (mean / sd).abs()
    pdf = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    h = (pdf - z * torch.special.ndtr(-z)).clamp_min(0.0)
    return sd * (z + 2 * h), sd * (1 - 4 * h * (z + h)).sqrt()


def as_compared(model: Surrogate, goal: Goal) -> Surrogate:
    """What an acquisition is to raise or lower: the property, or its distance to the target."""
    return model if isinstance(goal, str) else Distance(model, goal.target)

"""A surrogate with a fixed posterior: the one feature is the number of its row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surrogate.surrogate import Surrogate


class Canned(Surrogate):
    """Posterior means `(r, m)` and covariances `(r, m, m)` of r points."""

    def __init__(self, means: Tensor, covariances: Tensor, noise: Tensor) -> None:
        self.means, self.covariances, self.noise = means, covariances, noise
        self.n_fidelities = means.shape[1]

    @property
    def features(self) -> Tensor:
        return torch.arange(len(self.means)).double()[:, None]

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        raise AssertionError("a canned posterior is not fitted")

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        rows = features[:, 0].long()
        return self.means[rows, fidelity], self.covariances[rows, fidelity, fidelity].sqrt()

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        """Different rows are independent of each other."""
        rows_a, rows_b = features_a[:, 0].long(), features_b[:, 0].long()
        own = self.covariances[rows_a[:, None], fidelities_a[:, None], fidelities_b[None, :]]
        return own * (rows_a[:, None] == rows_b[None, :])

    def fidelity_covariance(self, features: Tensor) -> Tensor:
        return self.covariances[features[:, 0].long()]

    def noise_variance(self) -> Tensor:
        return self.noise

    def summary(self) -> dict[str, Any]:
        return {}


def single(means: list[float], sds: list[float], noise: float = 0.0) -> Canned:
    """A canned surrogate of one fidelity."""
    mean, sd = torch.tensor(means, dtype=torch.float64), torch.tensor(sds, dtype=torch.float64)
    return Canned(
        mean[:, None], sd.square()[:, None, None], torch.tensor([noise], dtype=torch.float64)
    )


def two(mean: float, sd: float, rho: float, low_sd: float = 2.0, low_noise: float = 0.0) -> Canned:
    """One point at two fidelities; f(low) and f(target) have correlation `rho`."""
    cross = rho * sd * low_sd
    covariance = torch.tensor([[[low_sd**2, cross], [cross, sd**2]]], dtype=torch.float64)
    means = torch.tensor([[7.0, mean]], dtype=torch.float64)
    return Canned(means, covariance, torch.tensor([low_noise, 0.0], dtype=torch.float64))

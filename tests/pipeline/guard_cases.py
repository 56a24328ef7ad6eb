"""Ladders of two fidelities with a known share explained, and a surrogate that is quick to fit."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pipeline.guard_evidence import Seen
from surrogate.surrogate import Surrogate


class Fixed(Surrogate):
    """An exact Gaussian process whose hyper-parameters are given: correlation `rho`, unit sd."""

    def __init__(self, rho: float = 0.0, noise: float = 0.01, length: float = 0.3) -> None:
        self.rho, self.noise, self.length = rho, noise, length

    def _prior(self, x: Tensor, of_x: Tensor, z: Tensor, of_z: Tensor) -> Tensor:
        kernel = (-0.5 * (torch.cdist(x, z) / self.length).square()).exp()
        same = (of_x[:, None] == of_z[None, :]).double()
        return kernel * (same + (1 - same) * self.rho)

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        self.n_fidelities, self.x, self.of = n_fidelities, features, fidelities
        self.mean = values.mean()
        k = self._prior(features, fidelities, features, fidelities)
        self.inverse = torch.linalg.inv(k + self.noise * torch.eye(len(values)).double())
        self.weights = self.inverse @ (values - self.mean)

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        cross = self._prior(features, torch.full((len(features),), fidelity), self.x, self.of)
        variance = 1 - ((cross @ self.inverse) * cross).sum(1)
        return self.mean + cross @ self.weights, variance.clamp_min(1e-12).sqrt()

    def covariance(self, *_: Tensor) -> Tensor:
        raise AssertionError("not needed")

    def fidelity_covariance(self, features: Tensor) -> Tensor:
        raise AssertionError("not needed")

    def noise_variance(self) -> Tensor:
        return torch.full((self.n_fidelities,), self.noise, dtype=torch.float64)

    def summary(self) -> dict[str, Any]:
        return {}


def smooth(x: Tensor, seed: int) -> Tensor:
    """A random smooth function of `(n, d)`, of unit variance: `(n,)`."""
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(x.shape[1], 200, generator=g, dtype=torch.float64) / 0.3
    phase = 2 * math.pi * torch.rand(200, generator=g, dtype=torch.float64)
    return (x @ w + phase).cos() @ torch.randn(200, generator=g, dtype=torch.float64) / 10


def two_fields(x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Two random smooth functions that are uncorrelated over the unit square, `(n,)` each."""
    side = torch.linspace(0, 1, 40, dtype=torch.float64)
    square = torch.cartesian_prod(side, side)
    f, g = smooth(square, 2 * seed + 1), smooth(square, 2 * seed + 2)
    slope = ((f - f.mean()) @ (g - g.mean())) / (f - f.mean()).square().sum()
    rest = g - slope * f
    level, spread = rest.mean(), rest.std() / f.std()
    return smooth(x, 2 * seed + 1), (
        smooth(x, 2 * seed + 2) - slope * smooth(x, 2 * seed + 1) - level
    ) / spread


def ladder(r2: float, n_cheap: int, n_target: int, n_pairs: int, seed: int = 0) -> Seen:
    """What was seen of two fidelities in 2-D, the cheap one explaining `r2` of the target."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n_cheap + n_target - n_pairs, 2, generator=g, dtype=torch.float64)
    f, other = two_fields(x, seed)
    cheap = math.sqrt(r2) * f + math.sqrt(1 - r2) * other
    at_target = torch.arange(n_cheap - n_pairs, len(x))
    rows = torch.cat([torch.arange(n_cheap), at_target])
    of = torch.tensor([0] * n_cheap + [1] * n_target)
    values = torch.where(of == 0, cheap[rows], f[rows])
    return Seen(x[rows], of, values, [f"c{i}" for i in rows.tolist()])

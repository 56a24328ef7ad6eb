"""BoTorch's own models seen as surrogates, so that its acquisitions and ours judge the same."""

from __future__ import annotations

from typing import Any

import torch
from botorch.models import SingleTaskGP, SingleTaskMultiFidelityGP
from torch import Tensor

from surrogate.surrogate import Surrogate


class FromBotorch(Surrogate):
    """A BoTorch model of features and, where `levels` has several, the fidelity in a column."""

    def __init__(self, model: Any, levels: list[float]) -> None:
        self.model, self.levels = model.eval(), torch.tensor(levels, dtype=torch.float64)
        self.n_fidelities = len(levels)

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        raise AssertionError("fitted by BoTorch")

    def inputs(self, features: Tensor, fidelities: Tensor) -> Tensor:
        if self.n_fidelities == 1:
            return features
        return torch.cat([features, self.levels[fidelities][:, None]], 1)

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        of = torch.full((len(features),), fidelity)
        with torch.no_grad():
            posterior = self.model.posterior(self.inputs(features, of)[:, None])
        return posterior.mean[:, 0, 0], posterior.variance[:, 0, 0].sqrt()

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        both = [self.inputs(features_a, fidelities_a), self.inputs(features_b, fidelities_b)]
        with torch.no_grad():
            joint = self.model.posterior(torch.cat(both)).distribution.covariance_matrix
        return joint[: len(features_a), len(features_a) :]

    def fidelity_covariance(self, features: Tensor) -> Tensor:
        m = self.n_fidelities
        each = torch.stack(
            [self.inputs(features, torch.full((len(features),), j)) for j in range(m)], 1
        )
        with torch.no_grad():
            return self.model.posterior(each).distribution.covariance_matrix

    def noise_variance(self) -> Tensor:
        scale = float(self.model.outcome_transform.stdvs) ** 2
        noise = float(self.model.likelihood.noise.detach()) * scale
        return torch.full((self.n_fidelities,), noise, dtype=torch.float64)

    def summary(self) -> dict[str, Any]:
        return {}


def single_fidelity() -> tuple[FromBotorch, Tensor, Tensor]:
    """A surrogate, its observed features and some to ask about."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    model = SingleTaskGP(x, torch.sin(6 * x).sum(1, keepdim=True))
    model.likelihood.noise = 1e-4
    return FromBotorch(model, [1.0]), x, torch.rand(40, 2, generator=generator, dtype=torch.float64)


def three_fidelities() -> tuple[FromBotorch, Tensor, Tensor]:
    """As `single_fidelity`, with fidelities 0.3, 0.6 and 1 in a column of BoTorch's inputs."""
    generator = torch.Generator().manual_seed(1)
    levels = [0.3, 0.6, 1.0]
    x = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    level = torch.tensor(levels, dtype=torch.float64)[torch.arange(12) % 3][:, None]
    values = torch.sin(6 * x).sum(1, keepdim=True) * level
    model = SingleTaskMultiFidelityGP(torch.cat([x, level], 1), values, data_fidelities=[2])
    model.likelihood.noise = 1e-2
    query = torch.rand(25, 2, generator=generator, dtype=torch.float64)
    return FromBotorch(model, levels), x, query

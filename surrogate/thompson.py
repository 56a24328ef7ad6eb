"""Thompson sampling: one function drawn from the posterior, by which every candidate is judged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surrogate.acquisition import Acquisition, damp_cheaper
from surrogate.improvement import log_above
from surrogate.kernels import stable_cholesky
from surrogate.surrogate import Surrogate

_MAX_NODES = 256
"""Of the reference; bounds the cost of a path at so many covariances a candidate."""

_N_WAVES = 256

_LEVEL = 1e-8
"""Part of the nodes' mean variance added to each: near the observed ones rounding is larger."""


class ThompsonSampling(Acquisition):
    """How far above the bar a function drawn from the target's posterior lies (`log_above`).

    The function is fixed by `prepare` and its seed (see `SamplePath`): asked twice, or in another
    batch, it gives a candidate the same value to rounding. The bar is `kth_best`, or `best`
    without it. Cheaper fidelities are damped as in `ucb`. (Thompson 1933; a path in place of a
    joint draw at the candidates, as in Wilson et al. 2020, arXiv 2002.09309.)
    """

    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        # A candidate seen at several fidelities is in the reference as often.
        nodes = torch.unique(self._reference[_nodes(mean + 2 * sd)], dim=0)
        self._path = SamplePath(self._prepared(), nodes, seed)
        self._temperature = float(sd.quantile(0.5))

    def _judged(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, sd = self._target(features)
        return mean + self._path.deviation(features, sd), sd

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        return damp_cheaper(log_above(mean, self._bar, self._temperature), log_rho2)


class SamplePath:
    """A draw of f - mean at the target: exact at the nodes, marginally exact everywhere.

    At the nodes `(r, d)` a joint draw of the posterior. At another x its mean given the nodes,
    plus the standard deviation that they leave times a smooth random function of the features: a
    mean of cosines (Rahimi & Recht 2007) that varies over the distance between nodes. What the
    nodes leave of the correlation between two candidates is thus a guess; each one's variance and
    covariances with the nodes are the posterior's.
    """

    def __init__(self, surrogate: Surrogate, nodes: Tensor, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._surrogate, self._nodes = surrogate, nodes
        at_target = self._at_target(nodes)
        covariance = surrogate.covariance(nodes, at_target, nodes, at_target)
        level = _LEVEL * covariance.diagonal().mean()
        self._factor = stable_cholesky(covariance + level * torch.eye(len(nodes)))
        self._draw = _normal(len(nodes), generator=generator)
        self._rough = SmoothNoise(nodes, generator)

    def deviation(self, features: Tensor, sd: Tensor) -> Tensor:
        """Path less posterior mean at x, `(q,)`; `sd (q,)` is the target's posterior there."""
        cross = self._surrogate.covariance(
            self._nodes, self._at_target(self._nodes), features, self._at_target(features)
        )
        white = torch.linalg.solve_triangular(self._factor, cross, upper=False)
        left = (sd.square() - white.square().sum(0)).clamp_min(0.0).sqrt()
        deviation: Tensor = self._draw @ white + left * self._rough(features)
        return deviation

    def _at_target(self, features: Tensor) -> Tensor:
        return torch.full((len(features),), self._surrogate.n_fidelities - 1)


class SmoothNoise:
    """A random function of the features, of variance 1 over the draws, drawn once."""

    def __init__(self, nodes: Tensor, generator: torch.Generator) -> None:
        self._lowest, width = nodes.min(0).values, nodes.max(0).values - nodes.min(0).values
        self._width = torch.where(width > 0, width, 1.0)
        frequencies = _normal(nodes.shape[1], _N_WAVES, generator=generator)
        self._frequencies = frequencies / _spacing(self._in_cube(nodes))
        self._phases = 2 * math.pi * torch.rand(_N_WAVES, generator=generator, dtype=torch.float64)
        self._amplitudes = _normal(_N_WAVES, generator=generator) * math.sqrt(2 / _N_WAVES)

    def __call__(self, features: Tensor) -> Tensor:
        """Values at `features (q, d)`, `(q,)`."""
        angles = self._in_cube(features) @ self._frequencies + self._phases
        values: Tensor = angles.cos() @ self._amplitudes
        return values

    def _in_cube(self, features: Tensor) -> Tensor:
        return (features.double() - self._lowest) / self._width


def _nodes(bound: Tensor) -> Tensor:
    """Rows of the reference that carry the path: half the most promising, half any, sorted."""
    if len(bound) <= _MAX_NODES:
        return torch.arange(len(bound))
    order = torch.argsort(bound, descending=True, stable=True)
    half = _MAX_NODES // 2
    rest = order[half:].sort().values
    spread = torch.linspace(0, len(rest) - 1, half).long()
    return torch.cat([order[:half], rest[spread]]).sort().values


def _spacing(x: Tensor) -> float:
    """Median distance of a node to its nearest other one; 1 when there is no other."""
    distances = torch.cdist(x, x)
    nearest = distances.masked_fill(distances < 1e-9, torch.inf).min(1).values
    finite = nearest[nearest.isfinite()]
    return float(finite.median()) if len(finite) else 1.0


def _normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)

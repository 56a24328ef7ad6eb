"""The knowledge gradient over a fixed set of alternatives: what a query does to the best mean.

Named axes: b queries, l lines (one for each alternative), z nodes; q, m, d as in `acquisition`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from surrogate.acquisition import Acquisition
from surrogate.log_normal import log_expected_improvement

_CHUNK = 1024
"""Queries at a time: bounds the memory at about chunk x nodes x alternatives numbers."""

_FAR = [5.0, 6.0, 7.5, 9.0, 13.0, 20.0, 40.0, 100.0, 300.0, 1500.0]
"""Outcomes so far off that only their logarithm counts; the last is below the gain's floor."""


_LEAST_RISE = 1e-6
"""Least rise of slope, over the steepest: less is rounding between x and itself in the reference,
whose covariance a surrogate may reckon in two ways."""


class MultiFidelityKnowledgeGradient(Acquisition):
    """Expected rise of the best posterior mean at the target that one query brings.

    An observation at x and a fidelity moves the mean of an alternative r at the target along a
    line in the standard normal outcome z: mean_r + s_r z, s_r its posterior covariance with the
    observation over the observation's standard deviation, noise included. The gain is
    E[max_r(mean_r + s_r z)] - max_r mean_r (Frazier et al. 2009, doi 10.1287/ijoc.1080.0314; over
    fidelities: Wu et al. 2020, arXiv 1903.04703). The alternatives are x itself and the
    `n_alternatives` reference points with the highest mean + 2 sd. It measures from the best
    mean, so `best` and `kth_best` have no part in it.
    """

    def __init__(self, *, n_alternatives: int = 64) -> None:
        if n_alternatives < 1:
            raise ValueError(f"expected n_alternatives of 1 or more, got {n_alternatives}")
        self._n_alternatives = n_alternatives

    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        n = min(self._n_alternatives, len(mean))
        promising = torch.topk(mean + 2 * sd, n).indices.sort().values
        self._alternatives, self._means = self._reference[promising], mean[promising]

    def _log_gain_at(self, features: Tensor, *, is_every: bool) -> Tensor:
        m = self._prepared().n_fidelities
        fidelities = list(range(m)) if is_every else [m - 1]
        parts = [self._log_gain_part(part, fidelities) for part in torch.split(features, _CHUNK)]
        return torch.cat(parts) if parts else features.new_zeros(0, len(fidelities)).double()

    def _log_gain_part(self, features: Tensor, fidelities: list[int]) -> Tensor:
        mean, sd = self._target(features)
        variance, with_target = self._own(features, sd, fidelities)
        deviation = (variance + self._prepared().noise_variance()[fidelities]).sqrt()
        slopes = [with_target[:, :, None], self._with_alternatives(features, fidelities)]
        slope = torch.cat(slopes, 2) / deviation[:, :, None]
        means = torch.cat([mean[:, None], self._means.expand(len(mean), -1)], 1)
        level = means[:, None].expand(-1, len(fidelities), -1)
        gain = log_knowledge_gradient(level.flatten(0, 1), slope.flatten(0, 1))
        return gain.reshape(len(features), len(fidelities))

    def _own(self, features: Tensor, sd: Tensor, fidelities: list[int]) -> tuple[Tensor, Tensor]:
        """Variance of f(x, j) and its covariance with f(x, target), `(q, j)` each."""
        if len(fidelities) == 1:
            return sd.square()[:, None], sd.square()[:, None]
        covariance = self._prepared().fidelity_covariance(features)
        return covariance.diagonal(dim1=1, dim2=2), covariance[:, :, -1]

    def _with_alternatives(self, features: Tensor, fidelities: list[int]) -> Tensor:
        """Covariance of f(x, j) with f(alternative, target), `(q, j, n_alternatives)`."""
        surrogate, n = self._prepared(), len(self._alternatives)
        repeated = features.repeat_interleave(len(fidelities), 0)
        of = torch.tensor(fidelities).repeat(len(features))
        at_target = torch.full((n,), surrogate.n_fidelities - 1)
        covariance = surrogate.covariance(repeated, of, self._alternatives, at_target)
        return covariance.reshape(len(features), len(fidelities), n)


def log_knowledge_gradient(level: Tensor, slope: Tensor) -> Tensor:
    """Log of E[max_l(level + slope z)] - max_l level, z ~ N(0, 1), of lines `(b, l)`; `(b,)`.

    Frazier et al. 2009, eqs. 12-14: each kink c of the maximum, where the slope rises by s,
    adds s EI(-|c|). The kinks are those of the lines that are highest at one of a grid of z: a
    line that is highest only between two neighbours on the grid is left out, which makes the sum
    a close lower bound. Minus infinity where all slopes are equal.
    """
    nodes = _nodes()
    highest = (level[:, None, :] + nodes[:, None] * slope[:, None, :]).argmax(2)
    at, rise = level.gather(1, highest), slope.gather(1, highest).diff(dim=1)
    is_kink = rise > _LEAST_RISE * slope.abs().max(1, keepdim=True).values
    kink = -at.diff(dim=1) / torch.where(is_kink, rise, 1.0)
    log_share = rise.log() + log_expected_improvement(-kink.abs())
    return torch.where(is_kink, log_share, -torch.inf).logsumexp(1)


def _nodes() -> Tensor:
    """A grid of outcomes z, symmetric and with 0, `(z,)`."""
    far = torch.tensor(_FAR, dtype=torch.float64)
    return torch.cat([-far.flip(0), torch.linspace(-4, 4, 25, dtype=torch.float64), far])

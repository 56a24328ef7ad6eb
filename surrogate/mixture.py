"""Mixtures of Gaussians, for candidates of which more than one model is believed.

Named axes: p parts of the mixture, q candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor


def moments(mean: Tensor, sd: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sd of mixtures `(p, q)`, `(q,)` each; weights count in proportion."""
    if len(mean) == 1:
        return mean[0], sd[0]
    weight = log_weight.softmax(0)
    centre = (weight * mean).sum(0)
    variance = (weight * (sd.square() + (mean - centre).square())).sum(0)
    return centre, variance.sqrt()


def log_mixed(log_values: Tensor, log_weight: Tensor) -> Tensor:
    """Log of the sum over the parts of weight times value, `(p, q, …)` and `(p, q)` to `(q, …)`."""
    extra = log_values.dim() - log_weight.dim()
    return torch.logsumexp(log_values + log_weight[(..., *[None] * extra)], 0)

"""Samples of the maximum of f over a set of points, by a Gumbel approximation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_N_BISECTIONS = 80


def sample_max_values(mean: Tensor, sd: Tensor, n_samples: int, seed: int) -> Tensor:
    """Draw `(n_samples,)` values of max f from posterior `mean` and `sd`, `(r,)` each.

    Wang & Jegelka 2017 (arXiv 1703.01968, section 3.1): with the points taken as independent,
    P(max < y) is the product of cdf((y - mean) / sd); a Gumbel distribution is fitted to its
    quartiles and sampled. Systematic sampling (one draw shifts an even grid of probabilities)
    makes few samples represent it well.
    """
    low, median, high = (_max_quantile(mean, sd, p) for p in (0.25, 0.5, 0.75))
    # Quantile p of a Gumbel is location - spread log(-log p).
    spread = (high - low) / (math.log(math.log(4)) - math.log(math.log(4 / 3)))
    location = median + spread * math.log(math.log(2))
    generator = torch.Generator().manual_seed(seed)
    shift = torch.rand((), generator=generator, dtype=torch.float64)
    probabilities = (torch.arange(n_samples) + shift.clamp(1e-9, 1 - 1e-9)) / n_samples
    return location - spread * torch.log(-torch.log(probabilities))


def _max_quantile(mean: Tensor, sd: Tensor, probability: float) -> float:
    """Find the y with P(max < y) = `probability`, by bisection."""
    # One point alone is below `left` with probability < p; by Bonferroni all are below `right`.
    left, right = float((mean - 8 * sd).max()), float((mean + 8 * sd).max())
    for _ in range(_N_BISECTIONS):
        middle = (left + right) / 2
        log_cdf = torch.special.log_ndtr((middle - mean) / sd).sum()
        if float(log_cdf) < math.log(probability):
            left = middle
        else:
            right = middle
    return (left + right) / 2

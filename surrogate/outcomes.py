"""Standardisation of outcomes fidelity by fidelity, sane from one observation on.

A cheap fidelity may lie far above the target and spread wider, so each has its own location and
scale. Everything commutes with y -> a y + b (a > 0) up to rounding, except for the last resort
of a data set without any spread, whose scale can only come from its magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_RELATIVE_ZERO = 1e-12
"""A spread below this part of the largest value is rounding, not spread."""

_MAD_TO_SD = 1.4826
"""Median absolute deviation to standard deviation, for a Gaussian."""


@dataclass(frozen=True)
class OutcomeScale:
    """Location and scale of each fidelity, `(m,)`, in the property's units."""

    location: Tensor
    scale: Tensor

    def standardise(self, values: Tensor, fidelities: Tensor) -> Tensor:
        """Values `(n,)` of `fidelities (n,)` in standard units."""
        return (values - self.location[fidelities]) / self.scale[fidelities]


def fit_outcome_scale(values: Tensor, fidelities: Tensor, n_fidelities: int) -> OutcomeScale:
    """Location and scale of each fidelity from `values (n,)`, n >= 1.

    Location is the mean. The variance is shrunk, in logarithms, towards the pooled one with the
    weight of one observation; a fidelity without observations borrows from its nearest neighbour
    (the higher of two). Logarithms, because fidelities may differ in scale by orders.
    """
    magnitude = float(values.abs().max()) or 1.0
    groups = [values[fidelities == j] / magnitude for j in range(n_fidelities)]
    pooled = _pooled_variance(groups)
    location, scale = torch.zeros(2, n_fidelities, dtype=torch.float64)
    for j, group in enumerate(groups):
        if len(group) > 0:
            location[j] = group.mean()
            scale[j] = _shrunk_variance(group, pooled) ** 0.5
    donors = _donors([len(group) for group in groups])
    return OutcomeScale(location[donors] * magnitude, scale[donors] * magnitude)


def pull_in_outliers(
    values: Tensor, fidelities: Tensor, n_fidelities: int, n_mads: float
) -> tuple[Tensor, Tensor]:
    """Values clamped to median ± `n_mads` robust sd, and the extra noise variance of each, `(n,)`.

    The robust sd is 1.4826 median absolute deviations. What was clamped says little more than
    "far out": its extra noise sd is its distance from the median, else the kernel would shrink its
    lengthscales to explain it. Unrelaxed energies have such a right tail. Observations of the last
    fidelity, the target, are never touched: there the extremes are the point.
    """
    clamped, extra = values.clone(), torch.zeros_like(values)
    for j in range(n_fidelities - 1):
        mine = fidelities == j
        if bool(mine.any()):
            clamped[mine], extra[mine] = _clamp_to_bulk(values[mine], n_mads)
    return clamped, extra


def _clamp_to_bulk(group: Tensor, n_mads: float) -> tuple[Tensor, Tensor]:
    median = group.quantile(0.5)
    reach = n_mads * _MAD_TO_SD * (group - median).abs().quantile(0.5)
    # More than half the values equal: no bulk to measure against, so nothing is an outlier.
    is_outlier = ((group - median).abs() > reach) & (reach > 0)
    clamped = torch.where(is_outlier, group.clamp(median - reach, median + reach), group)
    return clamped, torch.where(is_outlier, reach.square(), torch.zeros_like(group))


def _variance(group: Tensor) -> float:
    """Sample variance, 0 where it is rounding or cannot be had; values are within [-1, 1]."""
    variance = float(group.var()) if len(group) > 1 else 0.0
    return variance if variance > _RELATIVE_ZERO**2 else 0.0


def _pooled_variance(groups: list[Tensor]) -> float:
    """Variance within fidelities; failing that among all values; failing that their square."""
    degrees = sum(max(len(group) - 1, 0) for group in groups)
    within = sum(_variance(group) * (len(group) - 1) for group in groups) / max(degrees, 1)
    every = torch.cat(groups)
    return within or _variance(every) or float(every.square().mean()) or 1.0


def _shrunk_variance(group: Tensor, pooled: float) -> float:
    """Weighted geometric mean of the group's variance and the pooled one."""
    variance = _variance(group)
    if variance == 0.0:
        return pooled
    weight = (len(group) - 1) / len(group)
    return float(variance**weight * pooled ** (1 - weight))


def _donors(counts: list[int]) -> list[int]:
    """For each fidelity the nearest one with observations, the higher of two, `(m,)`."""
    observed = [j for j, count in enumerate(counts) if count > 0]
    return [min(observed, key=lambda k: (abs(k - j), -k)) for j in range(len(counts))]

"""How the items of a batch stand to each other: what they would tell, and how far apart they are.

Named axes: q pool candidates, k items (pairs of a candidate and a fidelity), v function values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Covariance = Callable[[Tensor, Tensor], Tensor]
"""Posterior covariance `(v, v)` of f, given pool indices `(v,)` and fidelities `(v,)`."""

Distances = Callable[[Tensor, Tensor], Tensor]
"""Distances `(a, b)` in the space's own metric between the pool candidates `(a,)` and `(b,)`."""

_LEAST_SHARE = 1e-12
"""A smaller share of variance is rounding."""


class Novelty:
    """How much of what each item would tell of the target the batch so far leaves untold.

    An item is a noisy observation y of its candidate at its fidelity; t is f of the same candidate
    at the target. Observing y takes cov(y, t)² / var(y) out of the variance of t. Novelty is that
    under the posterior given the batch, over the same for an empty batch, in [1e-12, 1]: the batch
    may also make an item worth more (by telling how far off its fidelity is), which counts as 1.
    For items at the target without noise it is the share of variance left, the ratio by which an
    item multiplies the determinant of the batch's covariance (Chen, Zhang and Zhou 2018, arXiv
    1709.05135, algorithm 1). The variance of y itself would not do at a cheap fidelity: that is
    mostly its own error, which no other item explains, while what it tells of the target a
    neighbour may have told already.

    Conditioning keeps an incremental Cholesky factor: O(v) for each item of the batch before.
    """

    def __init__(
        self, index: Tensor, fidelity: Tensor, noise: Tensor, covariance: Covariance
    ) -> None:
        """Items `index (k,)` at `fidelity (k,)`; `noise (m,)` of each fidelity, the target last."""
        m = len(noise)
        own, target = index * m + fidelity, index * m + m - 1
        values, place = torch.unique(torch.cat([own, target]), return_inverse=True)
        self._own, self._target = place[: len(index)], place[len(index) :]
        self._covariance = covariance(values // m, values % m)
        self._variance = self._covariance.diagonal().clamp(min=0.0)
        self._with_target = self._covariance[self._own, self._target]
        self._noise = noise[fidelity]
        self._factor = self._covariance.new_zeros(0, len(values))
        self._told_at_first = self._told()
        self._variance_at_first = self.variance()

    def variance(self) -> Tensor:
        """Variance of each item's noisy observation given the batch, `(k,)`."""
        return (self._variance[self._own] + self._noise).clamp(min=1e-300)

    def log_share(self) -> Tensor:
        """Log novelty of each item, `(k,)`; by its own variance where it tells nothing of t."""
        of_target = self._told() / self._told_at_first
        of_itself = self.variance() / self._variance_at_first
        # Below that the squares have lost their digits.
        share = torch.where(self._told_at_first > 1e-280, of_target, of_itself)
        return share.clamp(_LEAST_SHARE, 1.0).log()

    def condition(self, item: int) -> None:
        """Add one item to the batch."""
        value = self._own[item]
        explained = self._factor[:, value] @ self._factor
        row = (self._covariance[value] - explained) / self.variance()[item].sqrt()
        self._factor = torch.cat([self._factor, row[None]])
        self._variance = (self._variance - row**2).clamp(min=0.0)
        self._with_target = self._with_target - row[self._own] * row[self._target]

    def _told(self) -> Tensor:
        # One division at a time: the square of a covariance of 1e-170 would underflow.
        return self._with_target * (self._with_target / self.variance())


class Spacing:
    """Which items keep their distance to every candidate of the batch."""

    def __init__(self, index: Tensor, min_distance: float, distances: Distances) -> None:
        """Items of the pool candidates `index (k,)`; distances below `min_distance` are too close.

        ValueError unless `min_distance` is above 0.
        """
        if not min_distance > 0:
            raise ValueError(f"min_distance: expected a number above 0, got {min_distance}")
        self._index, self._min, self._distances = index, min_distance, distances

    def are_far(self, item: int) -> Tensor:
        """Whether each item is far enough from `item`, `(k,)` bool."""
        to_item = self._distances(self._index[item : item + 1], self._index)[0]
        # The rounding of a distance must not decide on a grid whose spacing is `min_distance`.
        return to_item >= self._min * (1 - 1e-9)

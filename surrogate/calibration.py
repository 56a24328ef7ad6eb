"""How well predictions made before a query agreed with its outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_INTERVALS = {"coverage_68": 0.9944578832097530, "coverage_95": 1.9599639845400545}
"""Half-widths, in standard deviations, of the central 68 % and 95 % intervals."""


def calibration(
    mean: ArrayLike | Sequence[float],
    sd: ArrayLike | Sequence[float],
    value: ArrayLike | Sequence[float],
) -> dict[str, float | None]:
    """Agreement of predictions `mean (n,)`, `sd (n,)` with outcomes `value (n,)`.

    `n` used; `rmse` and `mean_error` (prediction minus outcome) in the property's units;
    `coverage_68`, `coverage_95`: the part of outcomes within the central intervals; `nll`: mean
    negative log density of the outcomes in nats; `spearman`: rank correlation. `sd` is that of an
    outcome: noise included. Rows with a value that is not finite, or sd not above 0, are left
    out; a figure that cannot be had (no rows; for `spearman` fewer than two different ones) is
    None. ValueError when the lengths differ.
    """
    columns = [np.asarray(column, dtype=np.float64).reshape(-1) for column in (mean, sd, value)]
    if len({len(column) for column in columns}) != 1:
        lengths = [len(column) for column in columns]
        raise ValueError(f"expected mean, sd and value of one length, got {lengths}")
    table = np.stack(columns)
    mu, sigma, y = table[:, np.isfinite(table).all(0) & (table[1] > 0)]
    z = (y - mu) / sigma
    figures: dict[str, float | None] = {
        "n": float(len(y)),
        "rmse": _root(_mean((mu - y) ** 2)),
        "mean_error": _mean(mu - y),
        "nll": _mean(z**2 / 2 + np.log(sigma) + math.log(2 * math.pi) / 2),
        "spearman": spearman(mu, y),
    }
    return figures | {name: _mean(np.abs(z) <= width) for name, width in _INTERVALS.items()}


def spearman(a: Array, b: Array) -> float | None:
    """Rank correlation of `a (n,)` with `b (n,)`, ties sharing their mean rank.

    None when either has fewer than two different values.
    """
    if len(a) < 2:
        return None
    ranks = np.stack([_ranks(a), _ranks(b)])
    centred = ranks - ranks.mean(1, keepdims=True)
    size = float(np.sqrt((centred**2).sum(1)).prod())
    return None if size == 0.0 else float(centred.prod(0).sum() / size)


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2)[inverse]
    return ranks


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)

"""What a query will cost: as declared, as learned from what was paid, or as long as it takes.

The budget is kept in declared costs whatever is chosen here: these are the costs by which
selection divides a gain. All are in the ladder's cost units. Named axes: n answers, q query
points, d features, m fidelities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

CostKind = Literal["declared", "learned", "seconds"]
PredictCost = Callable[[Tensor], Tensor]
"""Cost of each candidate at each fidelity, features `(q, d)` → `(q, m)`, above 0."""

LEAST_FOR_FEATURES = 20
"""So many answers at a fidelity before the features of a candidate may say what it costs."""

_PRIOR_WEIGHT = 1.0
"""The declared cost counts as so many answers."""
_MAX_MADS = 4.0
"""Log costs further from the median, in robust standard deviations, are pulled in to that."""
_MAD_TO_SD = 1.4826
_PENALTIES = torch.logspace(-2, 4, 13, dtype=torch.float64)
"""Ridge penalties that compete, for standardised features."""


@dataclass(frozen=True)
class Paid:
    """Answers: features `(n, d)`, and `fidelities`, `cost` and `seconds` `(n,)`; nan: not known."""

    features: Tensor
    fidelities: Tensor
    cost: Tensor
    seconds: Tensor

    def __post_init__(self) -> None:
        n = [len(column) for column in (self.features, self.fidelities, self.cost, self.seconds)]
        if len(set(n)) != 1:
            raise ValueError(
                "expected features, fidelities, cost and seconds of one length, got "
                + ", ".join(map(str, n))
            )


def paid(
    frame: pd.DataFrame, fidelities: Sequence[str], features_of: Callable[[list[str]], Tensor]
) -> Paid:
    """The answers of a ledger's frame; `features_of` maps candidates' keys to features `(n, d)`."""
    done = frame[frame["state"] == "done"]
    return Paid(
        features_of(done["candidate"].tolist()),
        torch.tensor([fidelities.index(name) for name in done["fidelity"]], dtype=torch.long),
        torch.tensor(done["actual_cost"].tolist(), dtype=torch.float64),
        torch.tensor(done["seconds"].tolist(), dtype=torch.float64),
    )


def predicted_costs(kind: CostKind, declared: Sequence[float], answers: Paid) -> PredictCost:
    """The cost of a query by its features and fidelity, given the ladder's `declared (m,)` costs.

    `declared`: those. `learned`: what was paid, as a factor on them. `seconds`: the time that an
    answer took, as a factor on them, over the factor of the ladder as a whole: a second costs the
    same at each fidelity. A factor is learned in logarithms, fidelity by fidelity: a robust mean
    shrunk towards 1 (for `seconds` towards the ladder's), and from `LEAST_FOR_FEATURES` answers
    on by the features too (ridge regression, its penalty by leave-one-out errors). It is a median
    cost, not a mean. Answers without a positive, finite cost or time say nothing. ValueError for
    an unknown kind, a declared cost not above 0 or a fidelity outside the ladder.
    """
    if not declared or not all(cost > 0 for cost in declared):
        raise ValueError(f"expected a declared cost above 0 for each fidelity, got {declared}")
    of = answers.fidelities
    if len(of) and not 0 <= int(of.min()) <= int(of.max()) < len(declared):
        raise ValueError(
            f"expected fidelities in 0..{len(declared) - 1}, got {sorted(set(of.tolist()))}"
        )
    log_declared = torch.tensor(declared, dtype=torch.float64).log()
    if kind == "declared":
        return _Cost(log_declared, {})
    if kind == "learned":
        factors = _log_factors(answers.cost, of, log_declared)
        origin = 0.0
    elif kind == "seconds":
        factors = _log_factors(answers.seconds, of, log_declared)
        origin = _of_the_ladder(factors, of, len(declared))
    else:
        raise ValueError(f"expected cost `declared`, `learned` or `seconds`, got {kind!r}")
    learned = {}
    for j in sorted(set(of[factors.isfinite()].tolist())):
        mine = (of == j) & factors.isfinite()
        learned[j] = _learn(answers.features[mine], factors[mine] - origin)
    return _Cost(log_declared, learned)


@dataclass(frozen=True)
class _Factor:
    """Log factor of one fidelity: linear in standardised features, inside what was seen."""

    mean: float
    weights: Tensor
    centre: Tensor
    scale: Tensor
    low: float
    high: float

    def __call__(self, features: Tensor) -> Tensor:
        """`(q,)`."""
        standard = (features - self.centre) / self.scale
        return (self.mean + standard @ self.weights).clamp(self.low, self.high)


@dataclass(frozen=True)
class _Cost:
    """Declared costs times the learned factors of the fidelities that have one."""

    log_declared: Tensor
    learned: dict[int, _Factor]

    def __call__(self, features: Tensor) -> Tensor:
        """`(q, m)`."""
        log_cost = self.log_declared.expand(len(features), -1).clone()
        for j, factor in self.learned.items():
            log_cost[:, j] += factor(features.double())
        return log_cost.exp()


def _log_factors(measured: Tensor, of: Tensor, log_declared: Tensor) -> Tensor:
    """Log of what was measured over what was declared, `(n,)`; nan where that says nothing."""
    says = (measured > 0) & measured.isfinite()
    return torch.where(says, measured, torch.nan).log() - log_declared[of]


def _of_the_ladder(factors: Tensor, of: Tensor, n_fidelities: int) -> float:
    """Mean over the fidelities of their median log factor; 0 before any measurement."""
    medians = [float(factors[of == j].nanmedian()) for j in range(n_fidelities) if (of == j).any()]
    known = torch.tensor([m for m in medians if m == m], dtype=torch.float64)
    return float(known.mean()) if len(known) else 0.0


def _learn(features: Tensor, factors: Tensor) -> _Factor:
    """The log factor by features `(n, d)` from n >= 1 log factors `(n,)`."""
    y = _pulled_in(factors)
    n, centre, scale = len(y), features.mean(0), features.std(0, unbiased=False)
    scale = torch.where(scale > 1e-12 * centre.abs(), scale, torch.ones_like(scale))
    mean = float(y.sum()) / (n + _PRIOR_WEIGHT)
    weights = torch.zeros(features.shape[1], dtype=torch.float64)
    if n < LEAST_FOR_FEATURES:
        return _Factor(mean, weights, centre, scale, mean, mean)
    weights = _ridge((features.double() - centre) / scale, y - y.mean())
    low, high = min(mean, float(y.min())), max(mean, float(y.max()))
    return _Factor(mean, weights, centre, scale, low, high)


def _pulled_in(y: Tensor) -> Tensor:
    """Log factors `(n,)` clamped to the median ± `_MAX_MADS` robust standard deviations."""
    median = y.median()
    reach = _MAX_MADS * _MAD_TO_SD * (y - median).abs().median()
    return y.clamp(median - reach, median + reach)


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    """Ridge weights `(d,)` of centred `y (n,)` on centred `x (n, d)`.

    The penalty, infinity included (no weights at all), is the one of the least leave-one-out
    errors, in closed form by the hat matrix's diagonal (Golub, Heath and Wahba 1979).
    """
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    shrink = s.square() / (s.square() + _PENALTIES[:, None])
    fitted = (shrink * (u.T @ y)) @ u.T
    leverage = shrink @ u.square().T + 1 / len(y)
    errors = ((y - fitted) / (1 - leverage).clamp_min(1e-9)).square().sum(1)
    without = (y / (1 - 1 / len(y))).square().sum()
    best = int(errors.argmin())
    if not float(errors[best]) < float(without):
        return torch.zeros(x.shape[1], dtype=torch.float64)
    safe = s.clamp_min(1e-300)
    weights: Tensor = vt.T @ (shrink[best] / safe * (u.T @ y))
    return weights

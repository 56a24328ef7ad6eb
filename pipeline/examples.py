"""The known candidates whose trajectories are mixed into the sampler's training.

Named axes: p candidates of the pool, w state columns.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from pipeline import metrics
from pipeline.goal import Goal
from pipeline.initial import distinct
from pipeline.pool import GainPool
from sampler.environment import Environment

N_EXAMPLES = 200
"""Of the best of each sort: enough to be different, few enough to be seen often."""
BY_VALUE_SHARE = 0.1
"""The share of them that is chosen by observed value; the others by the gain of today."""


def examples(
    environment: Environment,
    frame: pd.DataFrame,
    fidelities: list[str],
    goal: Goal,
    pool: GainPool,
    n: int = N_EXAMPLES,
) -> Tensor | None:
    """Up to n different terminal states `(<= n, w)` to train on, the best; None without any.

    The best of the ledger's `frame` by observed value, at the highest of `fidelities` (cheapest
    first) that has answered, up to `BY_VALUE_SHARE` of n; then the best of the pool by gain. The
    order, and so the choice, follows from these alone.
    """
    if n < 1:
        raise ValueError(f"examples: expected at least 1, got {n}")
    observed = best_observed(frame, fidelities, goal, max(1, round(BY_VALUE_SHARE * n)))
    chosen = torch.cat([environment.from_keys(observed), pool.best(n)])
    return distinct(chosen, environment.keys)[:n] if len(chosen) > 0 else None


def best_observed(frame: pd.DataFrame, fidelities: list[str], goal: Goal, n: int) -> list[str]:
    """Keys of the n best candidates at the highest of `fidelities` that has answered."""
    for fidelity in reversed(fidelities):
        found = metrics.top_k(frame, fidelity, goal, n)
        if len(found) > 0:
            return [str(candidate) for candidate in found["candidate"]]
    return []

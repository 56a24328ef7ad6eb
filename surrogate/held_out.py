"""Random shares of the observations, balanced over the fidelities: batches, and held-out judges."""

from __future__ import annotations

import torch
from torch import Tensor

from surrogate.posterior import Observations

_HELD_OUT = 0.2
"""The part of each fidelity's observations that may judge, and then does not teach."""
_MAX_HELD_OUT = 384


def split(
    seen: Observations, n_fidelities: int, generator: torch.Generator
) -> tuple[Observations, Observations]:
    """Observations that judge, balanced but at most a fifth of each fidelity, and the others."""
    order = torch.randperm(len(seen), generator=generator)
    may_judge = torch.zeros(len(seen), dtype=torch.bool)
    for j in range(n_fidelities):
        mine = order[seen.fidelities[order] == j]
        may_judge[mine[: int(_HELD_OUT * len(mine))]] = True
    pool = may_judge.nonzero()[:, 0]
    judging = pool[balanced_rows(seen.fidelities[pool], n_fidelities, _MAX_HELD_OUT, generator)]
    teaches = torch.ones(len(seen), dtype=torch.bool)
    teaches[judging] = False
    return seen.rows(judging), seen.rows(teaches)


def balanced_rows(
    fidelities: Tensor, n_fidelities: int, n_rows: int, generator: torch.Generator
) -> Tensor:
    """Sorted row numbers, `n_rows` at most: random shares, balanced over the fidelities.

    Balanced, because a rare target must be seen to be learned; the marginal likelihood of any
    subset chosen without a look at its values is a fair judge.
    """
    groups = [(fidelities == j).nonzero()[:, 0] for j in range(n_fidelities)]
    shares = _shares([len(group) for group in groups], n_rows)
    parts = [
        group[torch.randperm(len(group), generator=generator)[:share]]
        for group, share in zip(groups, shares, strict=True)
    ]
    return torch.cat(parts).sort().values


def _shares(counts: list[int], total: int) -> list[int]:
    """How many of each group to take: as equal as the counts allow, `total` together at most."""
    shares, left = [0] * len(counts), total
    for rank, j in enumerate(sorted(range(len(counts)), key=lambda j: counts[j])):
        shares[j] = min(counts[j], left // (len(counts) - rank))
        left -= shares[j]
    return shares

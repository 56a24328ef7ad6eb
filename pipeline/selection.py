"""Choose a round's batch of (candidate, fidelity): informative for its cost, and diverse.

Greedy maximisation of Σ [log gain + log v − log price], where v is the share of an item's
posterior variance that the batch so far leaves unexplained, and the price is the item's cost plus
what the place in the batch that it takes is worth: the money left for each place left. So the
cheapest fidelity wins where money is short, and not where places are. With the gain as quality
this is the greedy MAP of a determinantal point process (Chen, Zhang and Zhou 2018, arXiv
1709.05135, algorithm 1): a near-duplicate of a chosen item brings nothing. (GIBBON's batch term is
the same determinant: Moss et al. 2021, arXiv 2102.03324.)

Named axes: q pool candidates, m fidelities, k items (pairs of a candidate and a fidelity).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.ledger import affordable

MAX_ITEMS = 600
"""How many of the best items compete in the greedy choice; bounds its cost at k² covariances."""

PER_FAMILY = 3
"""How many variants of one family compete: novelty may favour another than the first."""

Covariance = Callable[[Tensor, Tensor], Tensor]
"""Posterior covariance `(k, k)` of items given their pool indices `(k,)` and fidelities `(k,)`."""


@dataclass(frozen=True)
class Pool:
    """What may be queried: gains `(q, m)` in nats, what is open to choice `(q, m)`, families."""

    log_gain: Tensor
    allowed: Tensor
    families: Sequence[str]


@dataclass(frozen=True)
class Pick:
    """One chosen item and why: log gain, cost, and the novelty v in (0, 1] when it was chosen."""

    index: int
    fidelity: int
    log_gain: float
    cost: float
    novelty: float


@dataclass(frozen=True)
class Limits:
    """What a batch may cost, how many queries it may have, how much goes to the target first."""

    cost: float
    count: int
    target_cost: float


def select(
    pool: Pool, costs: Sequence[float], noise: Tensor, covariance: Covariance, limits: Limits
) -> list[Pick]:
    """The batch, in the order of choice; empty when nothing is allowed or affordable.

    First the target fidelity up to `limits.target_cost` (and one query at least where that is
    affordable), then every fidelity with what is left. A family is queried once a batch.
    `noise (m,)` is the observation noise variance at each fidelity.
    """
    price = torch.tensor(costs, dtype=torch.float64)
    index, fidelity = _candidates(pool, price, limits.cost)
    if not len(index):
        return []
    choice = _Greedy(pool, index, fidelity, price, covariance(index, fidelity), noise)
    target = fidelity == len(costs) - 1
    quota = min(limits.cost, max(limits.target_cost, float(price[-1])))
    choice.extend(target, quota, limits.count)
    choice.extend(torch.ones_like(target), limits.cost, limits.count)
    return choice.picks


def _candidates(pool: Pool, price: Tensor, budget: float) -> tuple[Tensor, Tensor]:
    """The most promising items: by gain, each fidelity in equal parts, `(k,)` and `(k,)`."""
    n_fidelities = len(price)
    share = MAX_ITEMS // n_fidelities
    indices, fidelities = [], []
    for m in range(n_fidelities):
        open_rows = torch.nonzero(pool.allowed[:, m]).flatten()
        if not affordable(float(price[m]), budget) or not len(open_rows):
            continue
        best = _best_of_each_family(pool, open_rows, m)[:share]
        indices.append(best)
        fidelities.append(torch.full((len(best),), m))
    if not indices:
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
    return torch.cat(indices), torch.cat(fidelities)


def _best_of_each_family(pool: Pool, rows: Tensor, fidelity: int) -> Tensor:
    """Rows by falling gain, `PER_FAMILY` of a family at most: a batch takes one of each."""
    order = rows[torch.argsort(pool.log_gain[rows, fidelity], descending=True, stable=True)]
    seen: Counter[str] = Counter()
    kept = []
    for row in order.tolist():
        family = pool.families[row]
        seen[family] += 1
        if seen[family] <= PER_FAMILY:
            kept.append(row)
    return torch.tensor(kept, dtype=torch.long)


class _Greedy:
    """The greedy choice with an incremental Cholesky factor of the items' covariance."""

    def __init__(
        self,
        pool: Pool,
        index: Tensor,
        fidelity: Tensor,
        price: Tensor,
        covariance: Tensor,
        noise: Tensor,
    ) -> None:
        self.pool, self.index, self.fidelity = pool, index, fidelity
        self.cost = price[fidelity]
        self.log_gain = pool.log_gain[index, fidelity]
        diagonal = covariance.diagonal() + noise[fidelity]
        self.prior_variance = diagonal.clamp(min=1e-300)
        self.variance = self.prior_variance.clone()
        self.covariance = covariance
        self.factor = torch.zeros(0, len(index), dtype=torch.float64)
        self.open = torch.ones(len(index), dtype=torch.bool)
        self.spent = 0.0
        self.picks: list[Pick] = []

    def extend(self, eligible: Tensor, budget: float, count: int) -> None:
        """Add the best eligible items until the budget or the count is reached."""
        while len(self.picks) < count:
            fits = self.cost <= budget - self.spent + 1e-9 * max(1.0, budget)
            available = self.open & eligible & fits
            if not bool(available.any()):
                return
            place = max(0.0, budget - self.spent) / (count - len(self.picks))
            score = self.log_gain + self._log_novelty() - (self.cost + place).log()
            self._choose(int(score.masked_fill(~available, -torch.inf).argmax()))

    def _log_novelty(self) -> Tensor:
        return (self.variance / self.prior_variance).clamp(min=1e-12).log()

    def _choose(self, item: int) -> None:
        novelty = float(self._log_novelty()[item].exp())
        cost, gain = float(self.cost[item]), float(self.log_gain[item])
        row = int(self.index[item])
        self.picks.append(Pick(row, int(self.fidelity[item]), gain, cost, novelty))
        self.spent += cost
        self._condition(item)
        family = self.pool.families[row]
        same = [self.pool.families[int(i)] == family for i in self.index]
        self.open &= ~torch.tensor(same)

    def _condition(self, item: int) -> None:
        """Take the chosen item's share out of every variance: one more row of the factor."""
        explained = self.factor[:, item] @ self.factor
        row = (self.covariance[item] - explained) / self.variance[item].sqrt()
        self.factor = torch.cat([self.factor, row[None]])
        self.variance = (self.variance - row**2).clamp(min=1e-300)

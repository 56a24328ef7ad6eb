"""Choose a round's batch of (candidate, fidelity): informative for its cost, and diverse.

Greedy maximisation of Σ [log gain + log v − log price], where v is the share of what an item tells
of the target that the batch so far leaves untold (`Novelty`), and the price is the item's cost plus
what the place in the batch that it takes is worth: the money left for each place left. So the
cheapest fidelity wins where money is short, and not where places are. With the gain as quality
this is the greedy MAP of a determinantal point process (Chen, Zhang and Zhou 2018, arXiv
1709.05135, algorithm 1): a near-duplicate of a chosen item brings nothing. (GIBBON's batch term is
the same determinant: Moss et al. 2021, arXiv 2102.03324.)

The money is for two things. The target's share is harvested: it buys target queries by what each
is expected to add to the result (`Pool.log_harvest`) times novelty. The rest buys what is worth
learning for its cost, at any fidelity. In the last round nothing is left to learn for: all of it
is harvested, and novelty does not count, for the near neighbours of the best are good too.

Named axes: q pool candidates, m fidelities, k items (pairs of a candidate and a fidelity).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pipeline.diversity import Covariance, Distances, Novelty, Spacing
from pipeline.families import best_of_each, numbered
from pipeline.ledger import affordable

MAX_ITEMS, ITEMS_A_PLACE = 600, 16
"""How many of the best items compete in the greedy choice, and for each place of a large batch at
least: of a few hundred the best are much alike. Bounds its cost at k² covariances."""

LAST = "last round: of all candidates expected to add most to the best ones"
HARVEST = "the target's share: expected to add most to the best ones, given the batch so far"
GAIN = "highest gain per cost of the fidelities open to choice, given the batch so far"
AT_RANDOM = "fidelity drawn at random: highest gain at it, given the batch so far"

FidelityPolicy = Literal["gain", "target", "random", "cheapest", "trajectory"]
Diversity = Literal["dpp", "distance", "none"]


@dataclass(frozen=True)
class Pool:
    """What may be queried: gains `(q, m)` in nats, what is open to choice `(q, m)`, families.

    `log_harvest (q,)`: the log of what a query of the target would add to the result (see
    `pipeline.harvest`), -inf for never; it ranks the target's share and the last round. None: the
    gain at the target stands in.
    `predicted_cost (q, m)`: what the gain is divided by; None: the declared costs. The limits are
    kept in declared costs always.
    """

    log_gain: Tensor
    allowed: Tensor
    families: Sequence[str]
    log_harvest: Tensor | None = None
    predicted_cost: Tensor | None = None

    def harvest(self) -> Tensor:
        """`log_harvest`, or the gain at the target, `(q,)`."""
        return self.log_gain[:, -1] if self.log_harvest is None else self.log_harvest


@dataclass(frozen=True)
class Pick:
    """One chosen item and why: log gain, cost, and the novelty v in (0, 1] when it was chosen.

    `log_harvest`: None where it is not of the target.
    """

    index: int
    fidelity: int
    log_gain: float
    log_harvest: float | None
    cost: float
    novelty: float
    why: str


@dataclass(frozen=True)
class Limits:
    """What a batch may cost, how many queries it may have, how much goes to the target first.

    `is_last`: no round comes after this one. `most`: how many queries of each fidelity are left,
    None where there is no such limit.
    """

    cost: float
    count: int
    target_cost: float
    is_last: bool = False
    most: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class Rules:
    """How to choose.

    `fidelity`: `gain` takes the best gain per cost over all fidelities; `target` asks the target
    alone; `cheapest` asks the first fidelity alone until the last round; `random` draws each
    item's fidelity uniformly from those that it can pay, by `seed`; `trajectory` is `gain` without
    the target's share, over the fidelities that the sampler chose (`Pool.allowed`).
    `diversity`: `dpp` multiplies gains by novelty; `distance` does so and keeps candidates of the
    batch at least `min_distance` apart; `none` does neither.
    """

    fidelity: FidelityPolicy = "gain"
    diversity: Diversity = "dpp"
    min_distance: float | None = None
    seed: int = 0


DEFAULT = Rules()


def select(
    pool: Pool,
    costs: Sequence[float],
    noise: Tensor,
    covariance: Covariance,
    limits: Limits,
    rules: Rules = DEFAULT,
    distances: Distances | None = None,
) -> list[Pick]:
    """The batch, in the order of choice; empty when nothing is allowed or affordable.

    `costs (m,)` are the declared ones, the target's last; `noise (m,)` the observation noise
    variance at each fidelity. A family is queried once a batch. By the rule `gain`, first the
    target's harvest up to `limits.target_cost`, then every fidelity with what is left.
    ValueError where `rules` ask for a distance and lack one.
    """
    check_rules(rules, distances)
    price = torch.tensor(costs, dtype=torch.float64)
    items = _items(pool, price, limits, rules)
    if not len(items.index):
        return []
    novelty = Novelty(items.index, items.fidelity, noise, covariance)
    spacing = None
    if rules.diversity == "distance" and rules.min_distance and distances:
        spacing = Spacing(items.index, rules.min_distance, distances)
    uses_novelty = rules.diversity != "none" and not limits.is_last
    choice = _Greedy(items, novelty, spacing, uses_novelty, limits.most)
    if limits.is_last:
        choice.extend(items.harvest, limits.cost, limits.count, LAST)
    elif rules.fidelity == "random":
        choice.extend_at_random(limits, rules.seed)
    else:
        if rules.fidelity in ("gain", "target"):
            quota = min(limits.cost, limits.target_cost)
            choice.extend(items.harvest, quota, limits.count, HARVEST)
        choice.extend(items.gain, limits.cost, limits.count, GAIN)
    return choice.picks


def check_rules(rules: Rules, distances: Distances | None) -> None:
    """ValueError, one line, for rules that are not known or lack what they need."""
    if rules.fidelity not in get_args(FidelityPolicy):
        known = ", ".join(get_args(FidelityPolicy))
        raise ValueError(f"selection.fidelity: expected one of {known}, got {rules.fidelity!r}")
    if rules.diversity not in get_args(Diversity):
        known = ", ".join(get_args(Diversity))
        raise ValueError(f"selection.diversity: expected one of {known}, got {rules.diversity!r}")
    if rules.diversity == "distance" and (rules.min_distance is None or distances is None):
        raise ValueError(
            "selection.diversity: `distance` needs a min_distance and the distances of the pool, "
            f"got min_distance {rules.min_distance} and distances {distances}; give both, or "
            "choose `dpp`"
        )


@dataclass(frozen=True)
class _Items:
    """What competes: pool rows, fidelities, merits in nats, declared costs, prices, families.

    `harvest` is -inf for items that are not at the target.
    """

    index: Tensor
    fidelity: Tensor
    gain: Tensor
    harvest: Tensor
    cost: Tensor
    price: Tensor
    family: Tensor


def _items(pool: Pool, price: Tensor, limits: Limits, rules: Rules) -> _Items:
    """The most promising items: by merit, each fidelity in equal parts."""
    last = len(price) - 1
    asked = _open_fidelities(limits, rules, last)
    share = max(MAX_ITEMS, ITEMS_A_PLACE * limits.count) // len(asked)
    asked = [m for m in asked if affordable(float(price[m]), limits.cost)]
    best = [_best(pool, m, m == last, share, limits.is_last) for m in asked]
    none = torch.empty(0, dtype=torch.long)
    index = torch.cat([none, *best])
    fidelity = torch.cat([none, *map(torch.full_like, best, asked)])
    prices = price.expand_as(pool.log_gain) if pool.predicted_cost is None else pool.predicted_cost
    return _Items(
        index,
        fidelity,
        pool.log_gain[index, fidelity],
        pool.harvest()[index].where(fidelity == last, -torch.inf),
        price[fidelity],
        prices[index, fidelity],
        numbered([pool.families[row] for row in index.tolist()]),
    )


def _best(pool: Pool, fidelity: int, is_target: bool, share: int, is_last: bool) -> Tensor:
    """The `share` best rows at one fidelity; at the target half of them by their harvest."""
    allowed = pool.allowed[:, fidelity]
    by_gain = best_of_each(pool.families, pool.log_gain[:, fidelity], allowed)
    if not is_target or pool.log_harvest is None:
        return by_gain[:share]
    by_harvest = best_of_each(pool.families, pool.log_harvest, allowed)
    if is_last:
        return by_harvest[:share]
    both = [*by_harvest[: share // 2].tolist(), *by_gain[: share - share // 2].tolist()]
    return torch.tensor(list(dict.fromkeys(both)), dtype=torch.long)


def _open_fidelities(limits: Limits, rules: Rules, last: int) -> list[int]:
    """Fidelities that the rules let a round ask: in the last one nothing but the target."""
    if limits.is_last or rules.fidelity == "target":
        return [last]
    return [0] if rules.fidelity == "cheapest" else list(range(last + 1))


class _Greedy:
    """The greedy choice: the best item given the batch so far, until nothing fits."""

    def __init__(
        self,
        items: _Items,
        novelty: Novelty,
        spacing: Spacing | None,
        uses_novelty: bool,
        most: Sequence[int | None] | None = None,
    ) -> None:
        self.items, self.novelty, self.spacing = items, novelty, spacing
        self.uses_novelty = uses_novelty
        self.open = torch.ones(len(items.index), dtype=torch.bool)
        self.most = most
        self.spent = 0.0
        self.picks: list[Pick] = []

    def extend(self, merit: Tensor, budget: float, count: int, why: str) -> None:
        """Add the items of highest `merit (k,)`, above -inf, up to the budget or the count."""
        while len(self.picks) < count:
            available = self._available(budget) & (merit > -torch.inf)
            if not bool(available.any()):
                return
            score = (merit + self._worth(budget, count)).where(available, -torch.inf)
            self._choose(int(score.argmax()), why)

    def extend_at_random(self, limits: Limits, seed: int) -> None:
        """The same by gain, each item's fidelity drawn uniformly from those that can be paid."""
        generator = torch.Generator().manual_seed(seed)
        while len(self.picks) < limits.count:
            payable = torch.unique(self.items.fidelity[self._available(limits.cost)])
            if not len(payable):
                return
            drawn = payable[torch.randint(len(payable), (1,), generator=generator)]
            merit = self.items.gain.where(self.items.fidelity == drawn, -torch.inf)
            self.extend(merit, limits.cost, len(self.picks) + 1, AT_RANDOM)

    def _available(self, budget: float) -> Tensor:
        fits = self.items.cost <= budget - self.spent + 1e-9 * max(1.0, budget)
        for fidelity, most in enumerate(self.most or ()):
            n_picked = sum(pick.fidelity == fidelity for pick in self.picks)
            if most is not None and n_picked >= most:
                fits = fits & (self.items.fidelity != fidelity)
        return self.open & fits

    def _worth(self, budget: float, count: int) -> Tensor:
        """Log of novelty over price, `(k,)`."""
        place = max(0.0, budget - self.spent) / (count - len(self.picks))
        log_price = (self.items.price + place).log()
        return (self.novelty.log_share() if self.uses_novelty else 0.0) - log_price

    def _choose(self, item: int, why: str) -> None:
        items = self.items
        is_target = bool(items.harvest[item] > -torch.inf)
        self.picks.append(
            Pick(
                index=int(items.index[item]),
                fidelity=int(items.fidelity[item]),
                log_gain=float(items.gain[item]),
                log_harvest=float(items.harvest[item]) if is_target else None,
                cost=float(items.cost[item]),
                novelty=float(self.novelty.log_share()[item].exp()),
                why=why,
            )
        )
        self.spent += self.picks[-1].cost
        self.novelty.condition(item)
        self.open &= items.family != items.family[item]
        if self.spacing is not None:
            self.open &= self.spacing.are_far(item)

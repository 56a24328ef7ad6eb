"""How much of the money left one round may spend, and how much of that goes to the target."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.ledger import affordable
from pipeline.selection import FidelityPolicy, Limits


def round_limits(
    left: float,
    rounds_left: int,
    count: int,
    costs: Sequence[float],
    target_share: float,
    policy: FidelityPolicy = "gain",
    rounds: int | None = None,
) -> Limits:
    """Limits of the next round's batch of at most `count` queries.

    `left` is the money that is neither spent nor promised, `rounds_left` counts this round,
    `costs` are those of the fidelities that may be asked, the target's last. The money is spread
    over the rounds, `target_share` of it for the target: evenly, or growing with the number of
    the round out of `rounds`, because later money is spent knowing more (`_portion`). Where the
    target's part does not pay for a target query in every round, the rounds that ask one are
    spread evenly. The money for the final check is kept until the last round, which asks the
    target alone; a round is the last too when beside that check nothing can be paid. A round that
    is not can always pay for one query.
    """
    target = costs[-1]
    spendable = left - _final_check(left, count, target, target_share, policy)
    if rounds_left <= 1 or not affordable(target if policy == "target" else costs[0], spendable):
        return Limits(left, count, left, is_last=True)
    if policy == "cheapest":
        share = spendable / (rounds_left - 1)
    else:
        # What all later rounds together cannot spend is spent now.
        later = (rounds_left - 1) * count * target
        share = max(left * _portion(rounds_left, rounds), left - later)
    if policy == "gain" and len(costs) > 1:
        for_target = _target_money(left, share, rounds_left, target, target_share)
        cost = for_target + (1 - target_share) * share
    else:
        for_target, cost = 0.0, max(share, costs[0] if policy == "cheapest" else target)
    cost = min(max(cost, costs[0]), spendable)
    return Limits(cost, count, for_target if affordable(for_target, cost) else 0.0)


def _portion(rounds_left: int, rounds: int | None) -> float:
    """This round's part of the money left: its number over the sum of those still to come.

    Without `rounds` an equal part. What a query tells depends on what is known when it is chosen.
    """
    if rounds is None or rounds < rounds_left:
        return 1 / rounds_left
    number = rounds - rounds_left + 1
    return 2 * number / ((number + rounds) * rounds_left)


def _final_check(
    left: float, count: int, target: float, target_share: float, policy: FidelityPolicy
) -> float:
    """Money that is kept for the last round: one target query at least.

    By the rule `cheapest` nothing else asks the target: then a whole batch of them, as far as
    `target_share` of the money goes.
    """
    if policy != "cheapest":
        return target
    return max(target, min(count * target, target_share * left))


def _target_money(
    left: float, share: float, rounds_left: int, target: float, target_share: float
) -> float:
    """The target's part of this round, or one query in evenly spread rounds, the last included."""
    if affordable(target, target_share * share):
        return target_share * share
    gap = rounds_left / max(1.0, target_share * left / target)
    return target if (rounds_left - 1) % gap < 1 else 0.0

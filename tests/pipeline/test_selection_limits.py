"""A round's money, and what a query of the target is expected to add to the result."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor

from pipeline.harvest import harvest
from pipeline.ledger import affordable
from pipeline.limits import round_limits
from pipeline.selection import FidelityPolicy, Pool, Rules, select

LADDERS = ([0.01, 0.1, 1.0], [0.125, 0.25, 1.0], [1.0, 22.0, 99.0], [0.1, 1.0], [1.0])


@st.composite
def plans(draw: st.DrawFn) -> tuple[float, int, int, list[float], float, FidelityPolicy]:
    costs = draw(st.sampled_from(LADDERS))
    return (
        costs[-1] * draw(st.floats(1.0, 300.0)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 30)),
        costs,
        draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])),
        draw(st.sampled_from(get_args(FidelityPolicy))),
    )


def spent_by(batch: str, cost: float, count: int, costs: list[float]) -> float:
    """What a batch costs that buys the dearest (or cheapest) query as often as it can."""
    cost_of_one = max((c for c in costs if affordable(c, cost)), default=0.0)
    if batch == "cheapest":
        cost_of_one = min((c for c in costs if affordable(c, cost)), default=0.0)
    if cost_of_one == 0:
        return 0.0
    return cost_of_one * min(count, math.floor(cost / cost_of_one * (1 + 1e-9)))


@settings(max_examples=300)
@given(plans(), st.sampled_from(["cheapest", "dearest"]), st.booleans())
def test_law_a_campaign_keeps_the_money_for_its_final_check(
    plan: tuple[float, int, int, list[float], float, FidelityPolicy], batch: str, grows: bool
) -> None:
    left, rounds, count, costs, share, policy = plan
    total = rounds if grows else None
    asked = {"target": costs[-1:], "cheapest": costs[:1]}.get(policy, costs)
    for rounds_left in range(rounds, 0, -1):
        limits = round_limits(left, rounds_left, count, costs, share, policy, total)
        assert limits.cost <= left + 1e-9 * left
        assert limits.target_cost <= limits.cost * (1 + 1e-9)
        if limits.is_last:
            assert affordable(costs[-1], limits.cost)
            return
        assert affordable(min(asked), limits.cost), "a round that can ask nothing ends a campaign"
        left -= spent_by(batch, limits.cost, count, asked)
    pytest.fail("no round was the last")


@settings(max_examples=25)
@given(plans(), st.integers(0, 10**6))
def test_law_a_whole_campaign_never_overspends_or_repeats(
    plan: tuple[float, int, int, list[float], float, FidelityPolicy], seed: int
) -> None:
    budget, rounds, count, costs, share, policy = plan
    generator = torch.Generator().manual_seed(seed)
    q, m = 30, len(costs)
    joint = torch.randn(q * m, q * m, generator=generator, dtype=torch.float64)
    joint = joint @ joint.T / (q * m)
    highest = torch.full((q,), -1)
    asked: list[tuple[int, int]] = []
    left = budget
    for rounds_left in range(min(rounds, 6), 0, -1):
        limits = round_limits(left, rounds_left, count, costs, share, policy)
        gain = torch.randn(q, m, generator=generator, dtype=torch.float64)
        harvest = torch.randn(q, generator=generator, dtype=torch.float64)
        allowed = torch.arange(m) > highest[:, None]
        pool = Pool(gain, allowed, [str(i) for i in range(q)], harvest)

        def covariance(index: Tensor, fidelity: Tensor) -> Tensor:
            rows = index * m + fidelity
            return joint[rows][:, rows]

        picks = select(pool, costs, torch.ones(m).double(), covariance, limits, Rules(policy))
        assert len(picks) <= count
        assert picks or not bool((highest < 0).any()), "money for something, and nothing asked"
        for pick in picks:
            left -= pick.cost
            highest[pick.index] = pick.fidelity
            asked.append((pick.index, pick.fidelity))
        if limits.is_last or not picks:
            break
    assert left >= -1e-9 * budget
    assert len(set(asked)) == len(asked)
    assert any(fidelity == m - 1 for _, fidelity in asked) or not limits.is_last


def test_money_is_shared_equally() -> None:
    limits = round_limits(300.0, 10, 30, [0.01, 0.1, 1.0], 0.5)
    assert (limits.cost, limits.target_cost, limits.is_last) == (30.0, 15.0, False)
    last = round_limits(30.0, 1, 30, [0.01, 0.1, 1.0], 0.5)
    assert (last.cost, last.target_cost, last.is_last) == (30.0, 30.0, True)


def test_money_grows_with_the_rounds() -> None:
    left, spent = 300.0, []
    for rounds_left in range(10, 0, -1):
        limits = round_limits(left, rounds_left, 100, [1.0], 0.5, rounds=10)
        spent.append(limits.cost)
        left -= limits.cost
    assert spent == pytest.approx([300 * number / 55 for number in range(1, 11)])


def test_no_money_waits_for_more_than_the_later_rounds_can_spend() -> None:
    assert round_limits(300.0, 10, 30, [1.0], 0.5, rounds=10).cost == pytest.approx(30.0)


def test_dear_targets_are_spread_over_the_rounds() -> None:
    """2000 in 30 rounds pays for ten targets of 99 with half the money: one round in three."""
    left, asked = 2000.0, []
    for rounds_left in range(30, 0, -1):
        limits = round_limits(left, rounds_left, 16, [1.0, 22.0, 99.0], 0.5)
        asked.append(limits.is_last or limits.target_cost == 99.0)
        left -= limits.cost
    gaps = torch.tensor([i for i, a in enumerate(asked) if a]).diff()
    assert 9 <= sum(asked) <= 12
    assert asked[-1]
    assert bool((gaps <= 4).all())


def test_money_that_pays_for_the_check_alone_makes_a_round_the_last() -> None:
    assert round_limits(1.05, 9, 5, [0.1, 1.0], 0.5).is_last
    assert not round_limits(1.15, 9, 5, [0.1, 1.0], 0.5).is_last


def test_the_cheapest_alone_keeps_money_for_a_batch_of_checks() -> None:
    limits = round_limits(100.0, 11, 8, [0.1, 1.0], 0.5, "cheapest")
    assert limits.cost == pytest.approx((100 - 8) / 10)
    assert limits.target_cost == 0.0


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_law_harvest_is_the_growth_of_the_sum_of_the_best_up_to_the_ceiling(
    seed: int, k: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean, sd, values = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    sd = sd.abs() + 0.1
    bar = values.sort(descending=True).values[min(k, 7) - 1]
    ceiling = torch.cat([values, mean]).max()
    # The growth at the mid-points of 20,000 equal shares of each candidate's distribution.
    z = torch.special.ndtri((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)
    growth = (mean[:, None] + sd[:, None] * z - bar).clamp(0, float(ceiling - bar)).mean(1)
    assert bool((growth > 0).any()) or float(ceiling) == float(bar)
    told = harvest(mean, sd, values, k).log(mean, sd).exp()
    torch.testing.assert_close(told, growth, rtol=1e-3, atol=2e-4)


def test_a_gamble_on_the_unknown_is_no_harvest_beside_what_is_nearly_certain() -> None:
    """A place of mean far below the bar and a huge sd, and one that is nearly as good as the best:
    the first has the larger expected improvement."""
    mean = torch.tensor([-10.0, 0.9], dtype=torch.float64)
    sd = torch.tensor([20.0, 0.05], dtype=torch.float64)
    values = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    told = harvest(mean, sd, values, 3).log(mean, sd).exp()
    assert float(told[1]) == pytest.approx(0.9, abs=0.02)
    assert float(told[0]) < 0.4


def test_harvest_above_a_plateau_ranks_by_the_chance_to_pass_it() -> None:
    mean = torch.tensor([-1.0, -0.5, -1.0], dtype=torch.float64)
    sd = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    told = harvest(mean, sd, torch.zeros(5), 3).log(mean, sd)
    by_chance = torch.special.log_ndtr(mean / sd)
    torch.testing.assert_close(told.diff(), by_chance.diff(), rtol=1e-4, atol=1e-4)


def test_a_variant_adds_what_it_is_above_its_own_family() -> None:
    """The first is a variant of the best, the second of one below the bar, the third of none."""
    mean, sd = torch.full((3,), 0.9).double(), torch.full((3,), 0.1).double()
    values = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    own = torch.tensor([1.0, 0.2, -torch.inf], dtype=torch.float64)
    gains = harvest(mean, sd, values, 2)
    one = torch.zeros(1, len(mean), dtype=torch.float64)
    discount = gains.log_discount(mean[None], sd[None], one, own)
    assert discount[1:].tolist() == [0.0, 0.0]
    left = float(discount[0].exp()) * 0.4  # of an expected growth of 0.9 - 0.5
    assert left == pytest.approx(0.1 * (norm.pdf(-1) - norm.cdf(-1)), rel=1e-3)


def test_harvest_far_below_the_best_still_ranks() -> None:
    mean = torch.tensor([-300.0, -200.0, 1.0], dtype=torch.float64)
    sd = torch.ones(3, dtype=torch.float64)
    told = harvest(mean, sd, torch.tensor([0.0, 5.0, 7.0]), 2).log(mean, sd)
    assert bool(told.isfinite().all())
    assert bool((told.diff() > 0).all())


def test_harvest_without_any_value_follows_the_posterior() -> None:
    mean, sd = torch.tensor([0.0, 1.0]).double(), torch.ones(2).double()
    assert float(harvest(mean, sd, torch.empty(0), 3).log(mean, sd).diff()) > 0
    with pytest.raises(ValueError, match="top_k: expected 1 or more, got 0"):
        harvest(mean, sd, mean, 0)

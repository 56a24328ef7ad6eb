"""The batch: within its money, no family twice, no near-duplicates, the target's share first."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.selection import MAX_ITEMS, FidelityPolicy, Limits, Pick, Pool, Rules, select


def spd(n: int, seed: int) -> Tensor:
    """A random covariance `(n, n)`."""
    root = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / n + 0.05 * torch.eye(n, dtype=torch.float64)


class Space:
    """q candidates at m fidelities with a joint covariance over all q·m items."""

    def __init__(self, q: int, costs: list[float], seed: int, n_families: int | None = None):
        rng = np.random.default_rng(seed)
        self.costs, self.m = costs, len(costs)
        self.joint = spd(q * self.m, seed)
        gain = torch.from_numpy(rng.normal(0, 3, (q, self.m)))
        allowed = torch.from_numpy(rng.random((q, self.m)) < 0.8)
        names = [f"family {rng.integers(n_families) if n_families else i}" for i in range(q)]
        self.pool = Pool(gain, allowed, names)
        self.noise = torch.full((self.m,), 0.01, dtype=torch.float64)

    def covariance(self, index: Tensor, fidelity: Tensor) -> Tensor:
        rows = index * self.m + fidelity
        return self.joint[rows][:, rows]

    def select(self, limits: Limits, rules: Rules = Rules()) -> list[Pick]:  # noqa: B008
        return select(
            self.pool, self.costs, self.noise, self.covariance, limits, rules, self.distances
        )

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Candidates on a line, a tenth apart."""
        return (a[:, None] - b[None, :]).abs().double() / 10


POLICIES: tuple[FidelityPolicy, ...] = get_args(FidelityPolicy)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    policy, seed = draw(st.sampled_from(POLICIES)), draw(st.integers(0, 99))
    diversity = draw(st.sampled_from(["dpp", "distance", "none"]))
    return Rules(policy, diversity, 0.2 if diversity == "distance" else None, seed)


@st.composite
def spaces(draw: st.DrawFn) -> tuple[Space, Limits]:
    costs = sorted(draw(st.lists(st.sampled_from([0.1, 0.3, 1.0, 22.0]), min_size=1, max_size=3)))
    q, seed = draw(st.integers(1, 15)), draw(st.integers(0, 10**6))
    budget = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.2, 25.0]))
    count = draw(st.integers(1, 8))
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    space = Space(q, costs, seed, draw(st.sampled_from([None, 4])))
    return space, Limits(budget, count, share * budget, is_last=draw(st.booleans()))


@settings(max_examples=150)
@given(spaces(), rules())
def test_law_a_batch_keeps_its_limits(drawn: tuple[Space, Limits], rules: Rules) -> None:
    space, limits = drawn
    picks = space.select(limits, rules)
    assert sum(pick.cost for pick in picks) <= limits.cost + 1e-9 * max(1, limits.cost)
    assert len(picks) <= limits.count
    families = [space.pool.families[pick.index] for pick in picks]
    assert len(set(families)) == len(families)
    for pick in picks:
        assert bool(space.pool.allowed[pick.index, pick.fidelity])
        assert pick.cost == space.costs[pick.fidelity]
        assert pick.log_gain == float(space.pool.log_gain[pick.index, pick.fidelity])
        assert 0 < pick.novelty <= 1 + 1e-12
        assert not limits.is_last or pick.fidelity == space.m - 1


@settings(max_examples=60)
@given(spaces(), st.sampled_from(["gain", "trajectory", "random"]))
def test_law_nothing_that_fits_is_left_out(
    drawn: tuple[Space, Limits], policy: FidelityPolicy
) -> None:
    space, limits = drawn
    picks = space.select(limits, Rules(policy))
    left = limits.cost - sum(pick.cost for pick in picks)
    taken = {space.pool.families[pick.index] for pick in picks}
    open_costs = [
        space.costs[m]
        for i, m in torch.nonzero(space.pool.allowed).tolist()
        if space.pool.families[i] not in taken and (not limits.is_last or m == space.m - 1)
    ]
    fits = [cost for cost in open_costs if cost <= left - 1e-6]
    assert len(picks) == limits.count or not fits


@settings(max_examples=40)
@given(spaces(), rules())
def test_law_the_same_question_has_the_same_answer(
    drawn: tuple[Space, Limits], rules: Rules
) -> None:
    space, limits = drawn
    assert space.select(limits, rules) == space.select(limits, rules)


@settings(max_examples=60)
@given(spaces(), st.sampled_from(POLICIES))
def test_law_no_two_of_a_batch_are_too_close(
    drawn: tuple[Space, Limits], policy: FidelityPolicy
) -> None:
    space, limits = drawn
    picks = space.select(limits, Rules(policy, "distance", 0.2))
    chosen = torch.tensor([pick.index for pick in picks], dtype=torch.long)
    apart = space.distances(chosen, chosen) + torch.eye(len(chosen))
    assert bool((apart >= 0.2 - 1e-12).all())


def correlated(rho: float, gains: list[list[float]]) -> tuple[Pool, Tensor]:
    """Three candidates at one fidelity, the first two with correlation `rho`."""
    k = torch.eye(3, dtype=torch.float64)
    k[0, 1] = k[1, 0] = rho
    gain = torch.tensor(gains, dtype=torch.float64)
    return Pool(gain, torch.ones(3, 1, dtype=torch.bool), ["a", "b", "c"]), k


def pick_two(rho: float, gains: list[list[float]]) -> list[int]:
    pool, k = correlated(rho, gains)
    noise = torch.tensor([1e-6], dtype=torch.float64)
    picks = select(pool, [1.0], noise, lambda i, _: k[i][:, i], Limits(2.0, 2, 2.0))
    return [pick.index for pick in picks]


def test_a_near_duplicate_is_passed_over_for_something_new() -> None:
    gains = [[5.0], [4.9], [3.0]]
    assert pick_two(0.0, gains) == [0, 1]
    assert pick_two(0.999, gains) == [0, 2]
    assert pick_two(-0.999, gains) == [0, 2]


def test_a_near_duplicate_is_taken_when_it_is_worth_it() -> None:
    assert pick_two(0.999, [[50.0], [49.0], [3.0]]) == [0, 1]


def line_up(
    gains: list[list[float]],
    costs: list[float],
    limits: Limits,
    rules: Rules = Rules(),  # noqa: B008
    **more: Tensor,
) -> list[tuple[int, int]]:
    """Independent candidates: what is picked, as (candidate, fidelity)."""
    gain = torch.tensor(gains, dtype=torch.float64)
    names = [str(i) for i in range(len(gain))]
    pool = Pool(gain, torch.ones_like(gain, dtype=torch.bool), names, **more)

    def independent(index: Tensor, fidelity: Tensor) -> Tensor:
        return (index[:, None] == index[None, :]).double() * 0.999 + 0.001 * torch.eye(len(index))

    noise = torch.full((len(costs),), 1e-6, dtype=torch.float64)
    return [(p.index, p.fidelity) for p in select(pool, costs, noise, independent, limits, rules)]


def test_gain_counts_per_cost() -> None:
    # e^1.5 / 1 against e^2.5 / 10: the cheaper one tells more for its money.
    gains = [[1.5, 2.5], [1.4, 2.4]]
    assert line_up(gains, [1.0, 10.0], Limits(1.0, 5, 0.0)) == [(0, 0)]
    assert line_up(gains, [1.0, 1.5], Limits(1.5, 5, 0.0)) == [(0, 1)]


def test_the_target_gets_its_share_first() -> None:
    gains = [[9.0, 1.0], [8.0, 2.0], [7.0, 3.0], [6.0, 4.0]]
    picked = line_up(gains, [0.5, 1.0], Limits(3.0, 9, 2.0))
    assert picked == [(3, 1), (2, 1), (0, 0), (1, 0)]


def test_the_whole_budget_can_be_spent_to_the_unit() -> None:
    gains = [[float(i)] for i in range(20)]
    assert len(line_up(gains, [0.1], Limits(1.0, 50, 1.0))) == 10  # 10 × 0.1 > 1 in floating point


def test_nothing_affordable_or_allowed_is_an_empty_batch() -> None:
    assert line_up([[1.0]], [1.0], Limits(0.5, 5, 0.5)) == []
    assert line_up([[1.0]], [1.0], Limits(-1.0, 5, 0.0)) == []
    pool = Pool(torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.bool), ["a", "b"])
    limits = Limits(5.0, 5, 5.0)
    assert select(pool, [1.0], torch.zeros(1), lambda i, _: torch.eye(len(i)), limits) == []


def test_variants_of_a_family_are_queried_once_a_batch() -> None:
    gain = torch.tensor([[3.0], [2.0], [1.0]], dtype=torch.float64)
    pool = Pool(gain, torch.ones(3, 1, dtype=torch.bool), ["same", "same", "other"])
    eye = torch.eye(3, dtype=torch.float64)
    noise = torch.zeros(1, dtype=torch.float64)
    picks = select(pool, [1.0], noise, lambda i, _: eye[i][:, i], Limits(9.0, 9, 9.0))
    assert [pick.index for pick in picks] == [0, 2]


def test_a_singular_covariance_does_no_harm() -> None:
    pool, _ = correlated(0.0, [[3.0], [2.0], [1.0]])
    for k in (torch.ones(3, 3), torch.zeros(3, 3)):
        picks = select(
            pool,
            [1.0],
            torch.zeros(1, dtype=torch.float64),
            lambda i, _, k=k: k.double()[i][:, i],
            Limits(3.0, 3, 3.0),
        )
        assert sorted(pick.index for pick in picks) == [0, 1, 2]
        assert all(np.isfinite(pick.novelty) for pick in picks)


def test_a_large_pool_competes_with_its_best_at_each_fidelity() -> None:
    q = 2 * MAX_ITEMS
    seen: list[int] = []

    def covariance(index: Tensor, fidelity: Tensor) -> Tensor:
        seen.append(len(index))
        assert int((fidelity == 0).sum()) == int((fidelity == 1).sum())
        return torch.eye(len(index), dtype=torch.float64)

    gain = torch.arange(q, dtype=torch.float64)[:, None].expand(-1, 2) / 100
    pool = Pool(gain, torch.ones(q, 2, dtype=torch.bool), [str(i) for i in range(q)])
    noise = torch.zeros(2, dtype=torch.float64)
    picks = select(pool, [1.0, 1.5], noise, covariance, Limits(6.0, 4, 3.0))
    assert seen == [MAX_ITEMS]  # the best by both columns are the same candidates
    assert [pick.index for pick in picks] == [q - 1, q - 2, q - 3, q - 4]
    assert all(a.log_gain >= b.log_gain for a, b in pairwise(picks))


def test_a_place_in_the_batch_has_its_price() -> None:
    """With money for every place, a cheap item of little gain does not push out a dear one."""
    gains = [[-2.0, 0.0], [-2.0, 0.0], [-2.0, -9.0], [-2.0, -9.0]]
    rich = line_up(gains, [1.0, 10.0], Limits(cost=40.0, count=2, target_cost=0.0))
    assert sorted(rich) == [(0, 1), (1, 1)]
    poor = line_up(gains, [1.0, 10.0], Limits(cost=4.0, count=4, target_cost=0.0))
    assert sorted(poor) == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_a_large_family_leaves_room_for_others() -> None:
    q = MAX_ITEMS + 50
    gains = torch.zeros(q, 1, dtype=torch.float64)
    gains[-1] = -5.0
    families = ["one"] * (q - 1) + ["other"]
    pool = Pool(gains, torch.ones(q, 1, dtype=torch.bool), families)
    noise = torch.zeros(1, dtype=torch.float64)
    picks = select(pool, [1.0], noise, lambda i, m: torch.eye(len(i)).double(), Limits(9, 9, 0))
    assert sorted(families[pick.index] for pick in picks) == ["one", "other"]


GAINS = [[9.0, 8.0, 1.0], [8.0, 7.0, 2.0], [7.0, 6.0, 3.0], [6.0, 5.0, 4.0]]
COSTS = [0.1, 0.3, 1.0]


def test_the_last_round_asks_the_target_alone_by_its_harvest() -> None:
    harvest = torch.tensor([0.0, 3.0, 2.0, -torch.inf], dtype=torch.float64)
    last = Limits(3.5, 9, 0.0, is_last=True)
    assert line_up(GAINS, COSTS, last) == [(3, 2), (2, 2), (1, 2)]
    assert line_up(GAINS, COSTS, last, log_harvest=harvest) == [(1, 2), (2, 2), (0, 2)]


def test_the_target_share_is_harvested_and_the_rest_learns() -> None:
    harvest = torch.tensor([0.0, 3.0, 2.0, -torch.inf], dtype=torch.float64)
    limits = Limits(2.2, 4, target_cost=2.0)
    picked = line_up(GAINS, COSTS, limits, log_harvest=harvest)
    assert picked == [(1, 2), (2, 2), (0, 0), (3, 0)]
    gain = line_up(GAINS, COSTS, Limits(2.0, 2, 0.0), Rules("target"), log_harvest=harvest)
    assert gain == [(3, 2), (2, 2)]


def test_good_harvests_compete_though_their_gain_is_small() -> None:
    q = 2 * MAX_ITEMS
    gain = torch.arange(q, dtype=torch.float64)[:, None]
    pool = Pool(gain, torch.ones(q, 1, dtype=torch.bool), [str(i) for i in range(q)], -gain[:, 0])
    noise = torch.zeros(1, dtype=torch.float64)
    limits = Limits(2.0, 2, 1.0)
    picks = select(pool, [1.0], noise, lambda i, _: torch.eye(len(i)).double(), limits)
    assert [(p.index, p.log_gain, p.log_harvest) for p in picks] == [
        (0, 0, 0),
        (q - 1, q - 1, 1 - q),
    ]


def test_the_last_round_takes_near_duplicates() -> None:
    pool, k = correlated(0.999, [[5.0], [4.9], [3.0]])
    noise = torch.tensor([1e-6], dtype=torch.float64)
    last = Limits(2.0, 2, 2.0, is_last=True)
    picks = select(pool, [1.0], noise, lambda i, _: k[i][:, i], last)
    assert [pick.index for pick in picks] == [0, 1]


def test_each_rule_asks_its_fidelities() -> None:
    limits = Limits(9.0, 4, 0.0)
    assert {m for _, m in line_up(GAINS, COSTS, limits, Rules("target"))} == {2}
    assert {m for _, m in line_up(GAINS, COSTS, limits, Rules("cheapest"))} == {0}
    last = Limits(9.0, 4, 0.0, is_last=True)
    for policy in POLICIES:
        assert {m for _, m in line_up(GAINS, COSTS, last, Rules(policy))} == {2}


def test_random_fidelities_are_uniform_and_follow_the_seed() -> None:
    limits = Limits(9.0, 2, 0.0)
    batches = [line_up(GAINS, COSTS, limits, Rules("random", seed=i)) for i in range(300)]
    drawn = torch.tensor([m for batch in batches for _, m in batch])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    assert bool((shares - 1 / 3).abs().max() < 0.08)  # 4 standard deviations of 600 draws
    assert batches[7] == line_up(GAINS, COSTS, limits, Rules("random", seed=7))
    # Each takes the best of the fidelity that was drawn.
    assert all(i == (3 if m == 2 else 0) for (i, m), _ in batches)


def test_gain_is_divided_by_the_predicted_cost_and_limits_kept_in_the_declared_one() -> None:
    gains = [[1.0], [0.9], [0.8]]
    predicted = torch.tensor([[50.0], [1.0], [1.0]], dtype=torch.float64)
    picked = line_up(gains, [1.0], Limits(2.0, 9, 0.0), predicted_cost=predicted)
    assert [index for index, _ in picked] == [1, 2]


def test_near_duplicates_are_taken_without_diversity() -> None:
    pool, k = correlated(0.999, [[5.0], [4.9], [3.0]])
    noise = torch.tensor([1e-6], dtype=torch.float64)
    picks = select(
        pool, [1.0], noise, lambda i, _: k[i][:, i], Limits(2.0, 2, 2.0), Rules(diversity="none")
    )
    assert [pick.index for pick in picks] == [0, 1]
    assert picks[1].novelty < 0.01  # still told


def test_what_a_cheap_neighbour_told_of_the_target_is_not_told_again() -> None:
    """A cheap answer is mostly its own error; what it shares with the target is one thing."""
    n, error = 3, 9.0
    signal = torch.eye(n, dtype=torch.float64)
    signal[0, 1] = signal[1, 0] = 0.999

    def covariance(index: Tensor, fidelity: Tensor) -> Tensor:
        own = (index[:, None] == index) & (fidelity[:, None] == 0) & (fidelity == 0)
        return signal[index][:, index] + 0.01 * error * own.double()

    gain = torch.tensor([[5.0, -50.0], [4.9, -50.0], [3.5, -50.0]], dtype=torch.float64)
    pool = Pool(gain, torch.ones(n, 2, dtype=torch.bool), ["a", "b", "c"])
    noise = torch.full((2,), 1e-6, dtype=torch.float64)
    picks = select(pool, [0.1, 1.0], noise, covariance, Limits(0.2, 2, 0.0))
    assert [(p.index, p.fidelity) for p in picks] == [(0, 0), (2, 0)]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Rules(fidelity="best"), "selection.fidelity: expected one of gain, .* got 'best'"),  # type: ignore[arg-type]
        (Rules(diversity="dp"), "selection.diversity: expected one of dpp, .* got 'dp'"),  # type: ignore[arg-type]
        (Rules(diversity="distance"), "needs a min_distance"),
        (Rules(diversity="distance", min_distance=0.1), "distances of the pool"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(rules: Rules, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        line_up(GAINS, COSTS, Limits(1.0, 1, 0.0), rules)


def test_each_pick_says_why() -> None:
    gains = torch.tensor(GAINS, dtype=torch.float64)
    pool = Pool(gains, torch.ones_like(gains, dtype=torch.bool), list("abcd"))
    noise = torch.full((3,), 1e-6, dtype=torch.float64)

    def whys(limits: Limits, policy: FidelityPolicy) -> list[str]:
        picks = select(
            pool, COSTS, noise, lambda i, _: torch.eye(len(i)).double(), limits, Rules(policy)
        )
        return [pick.why for pick in picks]

    first, second = whys(Limits(2.0, 2, 1.0), "gain")
    assert "target's share" in first
    assert "gain per cost" in second
    assert "at random" in whys(Limits(2.0, 1, 1.0), "random")[0]
    assert "last round" in whys(Limits(2.0, 1, 1.0, is_last=True), "gain")[0]

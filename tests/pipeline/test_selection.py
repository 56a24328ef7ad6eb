"""The batch: within its money, no family twice, no near-duplicates, the target's share first."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.selection import MAX_ITEMS, Limits, Pick, Pool, _Greedy, select


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

    def select(self, limits: Limits) -> list[Pick]:
        return select(self.pool, self.costs, self.noise, self.covariance, limits)


@st.composite
def spaces(draw: st.DrawFn) -> tuple[Space, Limits]:
    costs = sorted(draw(st.lists(st.sampled_from([0.1, 0.3, 1.0, 22.0]), min_size=1, max_size=3)))
    q, seed = draw(st.integers(1, 15)), draw(st.integers(0, 10**6))
    budget = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.2, 25.0]))
    count = draw(st.integers(1, 8))
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    space = Space(q, costs, seed, draw(st.sampled_from([None, 4])))
    return space, Limits(budget, count, share * budget)


@settings(max_examples=150, deadline=None)
@given(spaces())
def test_law_a_batch_keeps_its_limits(drawn: tuple[Space, Limits]) -> None:
    space, limits = drawn
    picks = space.select(limits)
    assert sum(pick.cost for pick in picks) <= limits.cost + 1e-9 * max(1, limits.cost)
    assert len(picks) <= limits.count
    families = [space.pool.families[pick.index] for pick in picks]
    assert len(set(families)) == len(families)
    for pick in picks:
        assert bool(space.pool.allowed[pick.index, pick.fidelity])
        assert pick.cost == space.costs[pick.fidelity]
        assert pick.log_gain == float(space.pool.log_gain[pick.index, pick.fidelity])
        assert 0 < pick.novelty <= 1 + 1e-12


@settings(max_examples=60, deadline=None)
@given(spaces())
def test_law_nothing_that_fits_is_left_out(drawn: tuple[Space, Limits]) -> None:
    space, limits = drawn
    picks = space.select(limits)
    left = limits.cost - sum(pick.cost for pick in picks)
    taken = {space.pool.families[pick.index] for pick in picks}
    open_costs = [
        space.costs[m]
        for i, m in torch.nonzero(space.pool.allowed).tolist()
        if space.pool.families[i] not in taken
    ]
    fits = [cost for cost in open_costs if cost <= left - 1e-6]
    assert len(picks) == limits.count or not fits


@settings(max_examples=40, deadline=None)
@given(spaces())
def test_law_the_same_question_has_the_same_answer(drawn: tuple[Space, Limits]) -> None:
    space, limits = drawn
    assert space.select(limits) == space.select(limits)


@pytest.mark.parametrize("seed", range(5))
def test_the_incremental_variance_is_the_schur_complement(seed: int) -> None:
    space = Space(12, [1.0], seed)
    index, zeros = torch.arange(12), torch.zeros(12, dtype=torch.long)
    joint = space.covariance(index, zeros)
    price = torch.ones(1, dtype=torch.float64)
    greedy = _Greedy(space.pool, index, zeros, price, joint, space.noise)
    chosen: list[int] = []
    for item in (3, 8, 0, 11, 5):
        greedy._condition(item)
        chosen.append(item)
        noisy = joint[chosen][:, chosen] + space.noise[0] * torch.eye(len(chosen))
        explained = joint[:, chosen] @ torch.linalg.solve(noisy, joint[chosen])
        direct = joint.diagonal() + space.noise[0] - explained.diagonal()
        rest = [i for i in range(12) if i not in chosen]
        torch.testing.assert_close(greedy.variance[rest], direct[rest], rtol=1e-9, atol=1e-12)


def test_the_novelty_of_a_pick_is_its_share_of_unexplained_variance() -> None:
    space = Space(8, [1.0], 3)
    first, second = space.select(Limits(2.0, 2, 0.0))
    assert first.novelty == pytest.approx(1.0)
    a, b = first.index, second.index
    k = space.joint + 0.01 * torch.eye(8)
    assert second.novelty == pytest.approx(float(1 - k[a, b] ** 2 / (k[a, a] * k[b, b])))


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


def line_up(gains: list[list[float]], costs: list[float], limits: Limits) -> list[tuple[int, int]]:
    """Independent candidates: what is picked, as (candidate, fidelity)."""
    gain = torch.tensor(gains, dtype=torch.float64)
    pool = Pool(gain, torch.ones_like(gain, dtype=torch.bool), [str(i) for i in range(len(gain))])

    def independent(index: Tensor, fidelity: Tensor) -> Tensor:
        return (index[:, None] == index[None, :]).double() * 0.999 + 0.001 * torch.eye(len(index))

    noise = torch.full((len(costs),), 1e-6, dtype=torch.float64)
    return [(p.index, p.fidelity) for p in select(pool, costs, noise, independent, limits)]


def test_gain_counts_per_cost() -> None:
    # e^1.5 / 1 against e^2.5 / 10: the cheaper one tells more for its money.
    gains = [[1.5, 2.5], [1.4, 2.4]]
    assert line_up(gains, [1.0, 10.0], Limits(1.0, 5, 0.0)) == [(0, 0)]
    assert line_up(gains, [1.0, 1.5], Limits(1.5, 5, 0.0)) == [(0, 1)]


def test_the_target_gets_its_share_first() -> None:
    gains = [[9.0, 1.0], [8.0, 2.0], [7.0, 3.0], [6.0, 4.0]]
    picked = line_up(gains, [0.5, 1.0], Limits(3.0, 9, 2.0))
    assert picked == [(3, 1), (2, 1), (0, 0), (1, 0)]


def test_one_target_query_is_bought_where_it_is_affordable() -> None:
    picked = line_up([[9.0, -9.0], [8.0, -9.0]], [0.1, 1.0], Limits(1.05, 9, 0.0))
    assert picked[0][1] == 1


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
    assert seen == [MAX_ITEMS]
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

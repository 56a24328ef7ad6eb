"""Replay: what it keeps, what it draws, and that it helps to find rare rewards again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sampler import GFlowNet, environment
from sampler.replay import Replay, make_replay

LINE = environment("hyper_grid", n_dims=1, length=100)
GRID = environment("hyper_grid", n_dims=2, length=20)


def at(*places: int) -> Tensor:
    return LINE.from_keys([str(place) for place in places])


def scores(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def places(replay: Replay) -> list[int]:
    return [int(key) for key in LINE.keys(replay.states)]


def filled(n: int, **options) -> Replay:
    """Places 0 … n - 1 with log rewards 0, -1, -2, …"""
    replay = Replay(LINE, **options)
    replay.add(at(*range(n)), -torch.arange(n).double())
    return replay


def test_it_ranks_and_forgets_repeats() -> None:
    replay = Replay(LINE)
    assert len(replay) == 0
    replay.add(at(3, 1, 3, 2), scores(0.0, 2.0, 0.0, 1.0))
    replay.add(at(1, 4), scores(2.0, 1.5))
    assert places(replay) == [1, 4, 2, 3]
    assert replay.log_reward.tolist() == [2.0, 1.5, 1.0, 0.0]


def test_it_keeps_the_best_up_to_its_capacity() -> None:
    replay = Replay(LINE, capacity=3)
    replay.add(at(0, 1), scores(0.0, 1.0))
    replay.add(at(2, 3), scores(2.0, -1.0))
    assert places(replay) == [2, 1, 0]
    replay.add(at(4, 5), scores(-0.5, 1.5))
    assert places(replay) == [2, 5, 1]
    replay.add(at(6), scores(-9.0))
    assert places(replay) == [2, 5, 1]


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(1, 10),
)
def test_in_parts_or_all_at_once(parts: list[list[int]], capacity: int) -> None:
    """What is kept depends on what was seen, not on the batches that it came in."""
    value = torch.randperm(100, generator=torch.Generator().manual_seed(0)).double()
    replay = Replay(LINE, capacity=capacity)
    for part in parts:
        replay.add(at(*part), value[part])
    seen = sorted({place for part in parts for place in part}, key=lambda i: -value[i])
    assert places(replay) == seen[:capacity]


def test_min_distance_spreads_what_is_kept() -> None:
    """Features are place / 99: at a distance of 5 places, a better one shadows its neighbours."""
    replay = Replay(LINE, min_distance=4.5 / 99)
    replay.add(at(10, 12, 14, 15, 30), scores(5.0, 4.0, 3.0, 2.0, 1.0))
    # 12 and 14 are too near to 10; 15 is near 12 and 14 alone, which are not kept.
    assert places(replay) == [10, 15, 30]
    replay.add(at(13), scores(9.0))
    assert places(replay) == [13, 30]
    near = (LINE.features(replay.states) - LINE.features(replay.states).t()).abs()
    assert float(near[0, 1]) >= 4.5 / 99


def test_reward_ranked_draws_half_from_the_best_tenth() -> None:
    replay = filled(50)
    drawn = replay.draw(4000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn[:, 0], minlength=50) / 4000
    assert float(counts[:5].sum()) == pytest.approx(0.5, abs=0.03)
    assert torch.allclose(counts[:5], torch.full((5,), 0.1), atol=0.02)
    assert torch.allclose(counts[5:], torch.full((45,), 0.5 / 45), atol=0.007)


def test_prioritized_draws_in_proportion_to_a_power_of_the_reward() -> None:
    for exponent in (1.0, 0.5):
        replay = filled(6, kind="prioritized", exponent=exponent)
        drawn = replay.draw(4000, torch.Generator().manual_seed(0))
        counts = torch.bincount(drawn[:, 0], minlength=6) / 4000
        expected = (-exponent * torch.arange(6.0)).softmax(dim=0)
        assert torch.allclose(counts, expected, atol=0.03)


@pytest.mark.parametrize("kind", ["reward_ranked", "prioritized"])
def test_one_state_is_drawn_again_and_again(kind: str) -> None:
    replay = filled(1, kind=kind)
    assert torch.equal(replay.draw(3, torch.Generator()), at(0, 0, 0))


def test_a_new_reward_ranks_anew() -> None:
    replay = filled(5)
    replay.rescore(lambda states: states[:, 0].double())
    assert places(replay) == [4, 3, 2, 1, 0]
    assert replay.log_reward.tolist() == [4, 3, 2, 1, 0]
    Replay(LINE).rescore(lambda states: pytest.fail("an empty buffer asks for nothing"))


def test_training_again_rescores() -> None:
    net = GFlowNet(LINE, hidden=(8,), replay={"capacity": 20, "fraction": 0.5})
    net.train(lambda states: -states[:, 0].double(), 5, 16)
    assert net.replay is not None
    assert places(net.replay)[0] == 0
    net.train(lambda states: states[:, 0].double(), 0, 16)
    assert places(net.replay) == sorted(places(net.replay), reverse=True)
    assert torch.equal(net.replay.log_reward, net.replay.states[:, 0].double())


@settings(max_examples=200)
@given(st.floats(0, 1), st.integers(1, 300), st.data())
def test_its_number_in_a_batch_is_near_its_share(fraction: float, n: int, data) -> None:
    """Within half of a trajectory, one at least, and one left for the policy whatever is asked."""
    n_taken = data.draw(st.integers(0, n))
    replay = filled(3, fraction=fraction)
    n_replayed, n_free = replay.n_of(n, n_taken), n - n_taken
    assert 0 <= n_replayed <= max(0, n_free - 1)
    wanted = fraction * n
    if 0.5 <= wanted <= n_free - 1.5:
        assert abs(n_replayed - wanted) <= 0.5
    assert (n_replayed >= 1) == (fraction > 0 and n_free >= 2)
    assert replay.n_of(n + 1, n_taken) >= n_replayed


@pytest.mark.parametrize(
    ("fraction", "n", "n_taken", "expected"),
    [
        (0.25, 16, 0, 4),
        (0.25, 2, 0, 1),  # a fraction above zero is never rounded to none
        (0.25, 10, 0, 3),  # halves are rounded up
        (0.01, 8, 0, 1),
        (1.0, 8, 0, 7),  # the policy goes on exploring
        (1.0, 8, 6, 1),
        (0.5, 8, 7, 0),  # room for one alone
        (0.5, 1, 0, 0),
        (0.5, 8, 8, 0),
        (0.0, 8, 0, 0),
    ],
)
def test_its_number_in_a_batch(fraction: float, n: int, n_taken: int, expected: int) -> None:
    assert filled(3, fraction=fraction).n_of(n, n_taken) == expected
    assert Replay(LINE, fraction=fraction).n_of(n, n_taken) == 0  # nothing found yet


def test_equal_real_states_are_kept_once() -> None:
    """Of repeats the first of the best stays; states that differ in one number are two."""
    space = environment("hypercube", n_dims=2, bounds=[[0, 1], [0, 1]])
    states = GFlowNet(space, hidden=(8,)).sample(4, seed=0)
    replay = Replay(space)
    replay.add(states[[0, 1, 0, 2, 1]], scores(1.0, 2.0, 1.0, 3.0, 2.0))
    replay.add(states[[3, 2]], scores(0.0, 3.0))
    assert torch.equal(replay.states, states[[2, 1, 0, 3]])
    assert replay.log_reward.tolist() == [3.0, 2.0, 1.0, 0.0]


def test_what_is_saved_has_memory_of_its_own() -> None:
    """It does not change with the buffer, nor drag along what the buffer is a slice of."""
    replay = filled(50, capacity=5)
    saved = replay.state()
    for tensor in saved.values():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    saved["states"].zero_()
    saved["log_reward"].zero_()
    assert places(replay) == [0, 1, 2, 3, 4]
    assert replay.log_reward.tolist() == [0, -1, -2, -3, -4]


def test_saved_and_restored() -> None:
    replay = filled(7)
    other = Replay(LINE)
    other.restore(replay.state())
    assert torch.equal(other.states, replay.states)
    assert torch.equal(other.log_reward, replay.log_reward)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kind": "best"}, "replay kind: expected .*'reward_ranked'.* got 'best'"),
        ({"capacity": 0}, "replay capacity: expected at least 1, got 0"),
        ({"fraction": 1.5}, "replay fraction: expected a share from 0 to 1, got 1.5"),
        ({"min_distance": -1.0}, "replay min_distance: expected 0 or more"),
        ({"size": 3}, "replay: unknown option 'size'; expected kind, capacity"),
    ],
)
def test_impossible_options_are_refused(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        GFlowNet(GRID, replay=options)


def test_no_options_no_buffer() -> None:
    assert make_replay(GRID, None) is None
    assert make_replay(GRID, {}) is not None


def test_its_share_of_a_batch() -> None:
    """Before anything was found there is nothing to replay; then a quarter of every batch is."""
    sizes: list[int] = []

    def recording(states: Tensor) -> Tensor:
        sizes.append(len(states))
        return states[:, 0].double()

    net = GFlowNet(LINE, hidden=(8,), replay={"fraction": 0.25, "capacity": 1})
    net.train(recording, 1, 16)
    best = net.replay.states if net.replay is not None else at(0)
    batches: list[Tensor] = []
    net.train(lambda states: (batches.append(states), states[:, 0].double())[1], 1, 16)
    assert sizes == [16]
    assert len(batches[1]) == 16  # batches[0] is the buffer's, which is asked for again
    assert torch.equal(batches[1][12:], best.expand(4, -1))


@pytest.mark.parametrize("kind", ["reward_ranked", "prioritized"])
def test_it_keeps_hold_of_a_rare_mode(kind: str) -> None:
    """Found once in passing, the far corner is not forgotten."""
    target = GRID.from_keys(["19,19"])

    def needle(states: Tensor) -> Tensor:
        return 9.0 * (states == target).all(dim=1).double()

    def trained(replay: dict | None) -> float:
        net = GFlowNet(GRID, hidden=(32,), replay=replay)
        net.train(needle, 1, 16, examples=target, example_fraction=1 / 16)
        if net.replay is not None:
            net.replay.add(target, needle(target))
        net.train(needle, 60, 16)
        return float(net.log_prob(target))

    assert trained({"kind": kind, "fraction": 0.25}) > trained(None) + 1


def test_a_fraction_of_one_goes_on_finding() -> None:
    """All but one of a batch are replayed; that one brings new candidates into the buffer."""
    net = GFlowNet(LINE, hidden=(8,), exploration=1.0, replay={"fraction": 1.0})
    net.train(lambda states: states[:, 0].double(), 1, 4)
    assert net.replay is not None
    known = {tuple(state) for state in net.replay.states.tolist()}
    batches: list[list[list[int]]] = []

    def recording(states: Tensor) -> Tensor:
        batches.append(states.tolist())
        return states[:, 0].double()

    net.train(recording, 40, 4)
    assert len(net.replay) > len(known)
    for batch in batches[1:]:  # batches[0] is the buffer's, which is asked for again
        assert len(batch) == 4
        assert sum(tuple(state) not in known for state in batch) <= 1
        known |= {tuple(state) for state in batch}

"""Candidate and fidelity in one trajectory: what pairs are worth, and how they come apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.pool import searched_pool
from pipeline.reward import scaled_reward
from pipeline.trajectory_fidelity import TrajectoryFidelity
from sampler import Genetic, environment
from surrogate.acquisition import LOG_FLOOR, Acquisition

GRID = environment("hyper_grid", n_dims=2, length=6)
NAMES, COSTS = ["low", "middle", "high"], [0.1, 0.5, 2.0]
ALL = GRID.from_keys([f"{i},{j}" for i in range(6) for j in range(6)])


class Told(Acquisition):
    """A gain of 10 x0 at the target, less 1 a rung below it."""

    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        """Learn nothing."""

    def log_gain(self, features: Tensor) -> Tensor:
        return 10 * features[:, :1] - torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)


class First(Told):
    """The gain is the first feature."""

    def log_gain(self, features: Tensor) -> Tensor:
        return features[:, :1]


def pairs() -> TrajectoryFidelity:
    return TrajectoryFidelity(GRID, NAMES, COSTS)


def test_a_pair_is_worth_its_gain_over_its_cost() -> None:
    both = pairs()
    states = both.space.from_keys(["5,1 @ low", "5,1 @ high", "0,0 @ middle"])
    worth = both.gain(Told()).target_log_gain(both.space.features(states))
    expected = [8 - math.log(0.1), 10 - math.log(2), -1 - math.log(0.5)]
    assert worth.tolist() == pytest.approx(expected)


def test_a_fidelity_that_is_stopped_is_worth_nothing() -> None:
    both = pairs()
    states = both.space.from_keys(["5,1 @ low", "5,1 @ high"])
    worth = both.gain(Told(), stopped=["low"]).target_log_gain(both.space.features(states))
    assert worth.tolist() == pytest.approx([LOG_FLOOR, 10 - math.log(2)])


def test_pairing_and_splitting_are_inverse() -> None:
    both = pairs()
    paired = both.paired(ALL)
    assert len(set(both.space.keys(paired))) == 36 * 3
    states, fidelity = both.split(paired)
    assert torch.equal(states, ALL.repeat_interleave(3, dim=0))
    assert fidelity.tolist() == [0, 1, 2] * 36


def test_what_was_drawn_is_offered_and_nothing_else() -> None:
    both = pairs()
    drawn = both.space.from_keys(["1,2 @ high", "0,0 @ low", "1,2 @ low", "1,2 @ high"])
    states, is_offered = both.offered(drawn)
    assert GRID.keys(states) == ["1,2", "0,0"]
    assert is_offered.tolist() == [[True, False, True], [True, False, False]]
    none = both.offered(both.space.initial_states(0))
    assert none[1].shape == (0, 3)


def test_one_fidelity_is_a_ladder_too() -> None:
    one = TrajectoryFidelity(GRID, ["only"], [2.0])
    worth = one.gain(First()).target_log_gain(one.space.features(one.paired(ALL[:2])))
    assert worth.tolist() == pytest.approx([-math.log(2)] * 2)


def test_a_sampler_finds_where_and_at_which_fidelity() -> None:
    """Gain per cost is best at x0 = 5: e^8 / 0.1 at low, e^9 / 0.5, e^10 / 2 at high."""
    both = pairs()
    for stopped, best in (((), "low"), (("low",), "middle")):
        gain = both.gain(Told(), stopped)
        pool = searched_pool(both.space, gain, both.paired(ALL[:6]), seed=0, n_generations=2)
        reward = scaled_reward(both.space, gain, both.space.features(pool.states))
        search = Genetic(both.space, seed=0)
        search.train(reward, 6, 32, examples=pool.best(8), example_fraction=0.25)
        states, fidelity = both.split(search.sample(6))
        assert states[:, 0].tolist() == [5] * 6
        assert [NAMES[m] for m in fidelity.tolist()] == [best] * 6


@pytest.mark.parametrize(
    ("costs", "message"),
    [([1.0], "a cost for each of 3 fidelities, got 1"), ([0.0, 1.0, 2.0], "above 0, got 0.0")],
)
def test_costs_that_cannot_be_are_refused(costs: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrajectoryFidelity(GRID, NAMES, costs)


@pytest.mark.parametrize(
    ("stopped", "message"), [(["hihg"], "got 'hihg'"), (NAMES, "leave at least one")]
)
def test_fidelities_that_cannot_be_stopped_are_named(stopped: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairs().gain(Told(), stopped)

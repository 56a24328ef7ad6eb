"""Schedules and early stopping."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sampler import GFlowNet, environment
from sampler.schedule import EarlyStopping, Schedule

GRID = environment("hyper_grid", n_dims=2, length=4)


def flat(states: torch.Tensor) -> torch.Tensor:
    return states[:, 0].double()


def test_shapes_by_hand() -> None:
    linear, cosine = Schedule("linear", 100), Schedule("cosine", 100)
    assert [linear.share(step) for step in (0, 25, 50, 100, 1000)] == [1, 0.75, 0.5, 0, 0]
    assert [cosine.share(step) for step in (0, 50, 100, 1000)] == pytest.approx([1, 0.5, 0, 0])
    assert cosine.share(25) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert Schedule().share(10**9) == 1
    assert Schedule("constant", 10).share(10) == 1


def test_between_two_values() -> None:
    assert Schedule("linear", 10).between(4.0, 1.0, 5) == pytest.approx(2.5)
    assert Schedule("linear", 10).between(4.0, 1.0, 99) == pytest.approx(1.0)
    assert Schedule().between(4.0, 1.0, 99) == pytest.approx(4.0)


@given(st.sampled_from(["linear", "cosine"]), st.integers(1, 50), st.integers(0, 80))
def test_shares_fall_from_one_to_zero(shape: str, n_steps: int, step: int) -> None:
    schedule = Schedule(shape, n_steps)
    assert 0 <= schedule.share(step + 1) <= schedule.share(step) <= 1
    assert schedule.share(0) == 1
    assert schedule.share(n_steps) == pytest.approx(0)


def test_what_follows_the_schedule() -> None:
    net = GFlowNet(
        GRID,
        hidden=(8,),
        learning_rate=1e-2,
        log_z_learning_rate=1.0,
        schedule="linear",
        schedule_steps=4,
        exploration=0.4,
        temperature=3.0,
    )
    rates, behaviours = [], []
    for _ in range(6):
        behaviours.append(net._behaviour())
        net.train(flat, 1, 8)
        rates.append([group["lr"] for group in net._optimizer.param_groups])
    exploration = [behaviour.exploration for behaviour in behaviours]
    assert exploration == pytest.approx([0.4, 0.3, 0.2, 0.1, 0, 0])
    assert [b.temperature for b in behaviours] == pytest.approx([3, 2.5, 2, 1.5, 1, 1])
    shares = [1, 0.7525, 0.505, 0.2575, 0.01, 0.01]
    for i, start in ((0, 1e-2), (-1, 1.0)):
        assert [rate[i] for rate in rates] == pytest.approx([start * share for share in shares])


def test_falling_losses_do_not_stop() -> None:
    stopping = EarlyStopping(patience=10)
    assert not any(stopping.is_enough(1000 * 0.9**i) for i in range(100))


def test_level_losses_stop_after_the_patience() -> None:
    stopping = EarlyStopping(patience=5)
    assert [stopping.is_enough(1.0) for _ in range(7)] == [False] * 5 + [True, True]
    stopping.reset()
    assert [stopping.is_enough(1.0) for _ in range(6)] == [False] * 5 + [True]


def test_a_single_low_loss_is_smoothed_away() -> None:
    stopping = EarlyStopping(patience=5, tolerance=0.05)
    assert [stopping.is_enough(loss) for loss in (1.0, 1.0, 0.0, 1.0, 1.0, 1.0)][-1]


def test_tolerance_is_the_share_that_counts_as_falling() -> None:
    losses = [1.0 * 0.9**i for i in range(30)]  # smoothed: falls by 0.2 %, then more
    impatient = EarlyStopping(patience=1, tolerance=0.9)
    assert [impatient.is_enough(loss) for loss in losses][1]
    keen = EarlyStopping(patience=1, tolerance=0.0)
    assert not any(keen.is_enough(loss) for loss in losses)


def test_without_patience_it_never_stops() -> None:
    stopping = EarlyStopping()
    assert not any(stopping.is_enough(1.0) for _ in range(1000))


def test_early_stopping_goes_on_from_its_state() -> None:
    losses = [1.0, 0.5, 0.9, 0.95, 0.9, 0.95, 0.9]
    once = EarlyStopping(patience=3)
    expected = [once.is_enough(loss) for loss in losses]
    first, second = EarlyStopping(patience=3), EarlyStopping(patience=3)
    answers = [first.is_enough(loss) for loss in losses[:3]]
    second.restore(first.state())
    answers += [second.is_enough(loss) for loss in losses[3:]]
    assert answers == expected
    assert second.state() == once.state()


def test_training_stops_early_and_a_new_seed_begins_anew() -> None:
    net = GFlowNet(GRID, hidden=(8,), patience=3, tolerance=0.99)
    assert len(net.train(flat, 50, 8)) == 4
    assert net.n_steps_trained == 4
    assert len(net.train(flat, 50, 8)) == 4  # it had stopped: training again begins anew
    assert len(net.train(flat, 50, 8, seed=1)) == 4


def test_early_stopping_and_schedule_survive_a_file(tmp_path: Path) -> None:
    def made() -> GFlowNet:
        return GFlowNet(
            GRID,
            hidden=(8,),
            patience=8,
            tolerance=0.99,
            schedule="cosine",
            schedule_steps=9,
        )

    once = made()
    losses = once.train(flat, 50, 8)
    assert len(losses) == 9
    first, second = made(), made()
    before = first.train(flat, 5, 8)
    first.save(tmp_path / "net.pt")
    second.load(tmp_path / "net.pt")
    assert second.n_steps_trained == 5
    assert before + second.train(flat, 50, 8) == losses


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"schedule": "step"}, "schedule: expected .*'cosine'.* got 'step'"),
        ({"schedule": "linear"}, "schedule 'linear' needs schedule_steps"),
        ({"schedule": "linear", "schedule_steps": 0}, "needs schedule_steps.* got 0"),
        ({"patience": 0}, "patience: expected at least 1 step, got 0"),
        ({"tolerance": 1.0}, "tolerance: expected a share from 0 to 1, got 1.0"),
    ],
)
def test_impossible_options_are_refused(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        GFlowNet(GRID, **options)

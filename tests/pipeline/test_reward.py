"""The log-reward: the acquisition's order, on a scale that the sampler can learn."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.reward import (
    EFFECTIVE_SHARE,
    MARGIN,
    MIN_KNEE,
    AcquisitionReward,
    bent,
    effective_share,
    scaled_reward,
    temperature,
)
from sampler import environment
from surrogate.acquisition import LOG_FLOOR
from tests.fakes import Menu

N = 1000
SPACE = Menu(N)
EVERYTHING = SPACE.from_keys([f"item {i}" for i in range(N)])


class Told:
    """An acquisition whose gain at the target is a function of the features."""

    def __init__(self, gain: Callable[[Tensor], Tensor]) -> None:
        self.gain = gain

    def target_log_gain(self, features: Tensor) -> Tensor:
        return self.gain(features)


def reward(gain: Callable[[Tensor], Tensor]) -> AcquisitionReward:
    told = Told(lambda features: gain(features[:, 0]))
    return scaled_reward(SPACE, told, SPACE.features(EVERYTHING))


def gains_of(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@given(values=st.lists(FINITE, min_size=1, max_size=40))
@settings(max_examples=60, derandomize=True)
def test_any_pool_has_a_temperature(values: list[float]) -> None:
    gains = gains_of(values)
    told = temperature(gains, gains, torch.zeros_like(gains))
    assert 0 < told.beta < math.inf
    assert told.top == max(values)
    assert 0 < told.effective_share <= 1 + 1e-9
    logs = bent(told.beta * (gains - told.top), told.knee)
    assert bool(logs.isfinite().all())
    assert float(logs.max()) == 0


@given(values=st.lists(st.floats(-1e8, 50), min_size=2, max_size=40), knee=st.floats(1, 200))
@settings(max_examples=60, derandomize=True)
def test_bending_keeps_the_order(values: list[float], knee: float) -> None:
    raw = gains_of(values).sort().values
    made = bent(raw, knee)
    assert bool((made.diff() >= 0).all())
    is_apart = raw.diff() > 1e-6 * raw.abs()[:-1] + 1e-9
    assert bool((made.diff()[is_apart] > 0).all())
    assert torch.equal(made[raw >= -knee], raw[raw >= -knee])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_every_round_comes_to_the_same_scale(scale: float) -> None:
    made = reward(lambda x: scale * x - 7.0)
    values = made(EVERYTHING)
    assert values[-1].item() == 0
    assert effective_share(values, 1.0) == pytest.approx(EFFECTIVE_SHARE, rel=0.01)
    assert values[499].item() == pytest.approx(
        reward(lambda x: x)(EVERYTHING)[499].item(), rel=0.02
    )


def test_the_share_is_kishs() -> None:
    assert effective_share(torch.zeros(8), 3.0) == pytest.approx(1)
    assert effective_share(gains_of([0.0, math.log(3)]), 1.0) == pytest.approx(16 / 10 / 2)
    assert effective_share(gains_of([5.0, *[-1e6] * 9]), 1.0) == pytest.approx(0.1)


def test_the_order_is_the_acquisitions() -> None:
    values = reward(lambda x: -((x - 0.5) ** 2))(EVERYTHING)
    assert int(values.argmax()) == 500
    assert values.dtype == torch.float64


def test_what_is_worthless_does_not_make_the_rest_flat() -> None:
    values = reward(lambda x: torch.where(x < 0.9, LOG_FLOOR, x))(EVERYTHING)
    assert -500 < values.min().item() < -MIN_KNEE
    assert values[950].item() < -0.5 < values[990].item() < 0


def test_one_that_stands_out_is_no_needle() -> None:
    """A lone outlier leaves a slope among the others, and they stay within reach."""
    values = reward(lambda x: torch.where(x == x.max(), 1e4, x))(EVERYTHING)
    assert values[-1].item() == 0
    assert bool((values.diff() > 0).all())
    assert values[0].item() > -500


def test_many_words_do_not_outweigh_the_best_by_their_number() -> None:
    """Of 20^12 words almost all have the same gain, 2 nats below the few good ones."""
    words = environment("sequence", alphabet="peptide", min_length=12, max_length=12)
    good = words.from_keys(["ACDEFGHIKLMN", "ACDEFGHIKLMP"])
    ends = words.features(good)

    def gain(features: Tensor) -> Tensor:
        return 2.0 * ((features @ ends.T).amax(dim=1) >= 12).double() - 3.0

    log_size = 12 * math.log(20)
    made = scaled_reward(words, Told(gain), torch.cat([ends, ends.flip(1)]))
    assert made.temperature.knee == pytest.approx(log_size + MARGIN)
    assert made(good).tolist() == [0, 0]
    common = words.from_keys(["WWWWWWWWWWWW"])
    assert made(common).item() == pytest.approx(math.log(2 * 2) - log_size)
    assert made.temperature.log_random == pytest.approx(math.log(2 * 2))


def test_the_best_are_no_needle_however_large_the_space() -> None:
    """Where the many are nearly as good as the best, the many are what is sampled."""
    gains = gains_of([0.0, -0.01, -0.02, -0.05])
    told = temperature(gains, gains_of([-0.1]), gains_of([101.0]))
    assert told.knee == pytest.approx(111)
    assert told.beta == pytest.approx(MIN_KNEE / 0.02)


@pytest.mark.parametrize("level", [0.0, -3.5, LOG_FLOOR])
def test_a_flat_acquisition_is_a_flat_reward(level: float) -> None:
    made = reward(lambda x: torch.full_like(x, level))
    assert made.beta == 1
    assert bool((made(EVERYTHING) == 0).all())


def test_a_single_point_is_a_pool() -> None:
    gain = Told(lambda features: features[:, 0])
    made = scaled_reward(SPACE, gain, SPACE.features(EVERYTHING[:1]))
    assert made.top == 0
    assert bool(made(EVERYTHING).isfinite().all())


def test_the_same_pool_gives_the_same_reward_and_its_notes_are_plain() -> None:
    one, other = (reward(lambda x: x) for _ in range(2))
    assert one.notes() == other.notes()
    assert set(one.notes()) >= {"beta", "top", "effective_share"}
    assert all(isinstance(value, float) for value in one.notes().values())


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one candidate in the pool"):
        scaled_reward(SPACE, Told(lambda features: features[:, 0]), torch.zeros(0, 2))

"""The log-reward: the acquisition's order, on a scale that the sampler can learn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.reward import FLOOR, SHARPNESS, scaled_reward
from tests.fakes import Menu


class Told:
    """An acquisition whose gain at the target is a function of feature 0; elsewhere it is 99."""

    def __init__(self, gain: Any) -> None:
        self.gain = gain

    def log_gain(self, features: Tensor) -> Tensor:
        at_target = self.gain(features[:, 0])
        return torch.stack([torch.full_like(at_target, 99.0), at_target], dim=1)


def reward(gain: Any) -> Any:
    space = Menu(1000)
    everything = space.from_keys([f"item {i}" for i in range(1000)])
    made = scaled_reward(space, Told(gain), space.features(everything))
    return SimpleNamespace(made=made, values=made(everything))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_every_round_comes_to_the_same_scale(scale: float) -> None:
    values = reward(lambda x: scale * x - 7.0).values
    # q99 is the reference's top: reward 0; q90 lies SHARPNESS below it.
    assert values[989].item() == pytest.approx(0, abs=0.05)
    assert values[899].item() == pytest.approx(-SHARPNESS, abs=0.05)


def test_the_order_is_the_acquisitions_and_the_target_alone_counts() -> None:
    values = reward(lambda x: -((x - 0.5) ** 2)).values
    assert int(values.argmax()) == 500
    assert values.dtype == torch.float64


def test_the_worst_is_floored_and_the_best_is_not_cut() -> None:
    found = reward(lambda x: torch.where(x == 0, -1e6, x))
    assert found.values.min().item() == FLOOR
    assert found.values.argmax().item() == 999
    assert found.values.max().item() > 0


def test_a_flat_acquisition_is_no_division_by_zero() -> None:
    found = reward(torch.zeros_like)
    assert torch.isfinite(found.values).all()
    assert found.values.unique().numel() == 1

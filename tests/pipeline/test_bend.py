"""Bad outcomes are drawn in before a surrogate learns from them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bend import Bend, bend_of
from pipeline.goal import Goal, Target

VALUES = torch.tensor([-1.0, 0.0, 2.0, 5.0, 160.0], dtype=torch.float64)
FINITE = st.floats(-1e6, 1e6)


@settings(max_examples=100)
@given(st.lists(FINITE, min_size=3, max_size=30), st.sampled_from(["minimize", "maximize"]))
def test_law_the_order_stays_and_good_values_are_as_they_are(
    numbers: list[float], goal: Goal
) -> None:
    values = torch.tensor(numbers, dtype=torch.float64)
    bend = bend_of(values, goal)
    bent = bend.bend(values)
    order = values.argsort(stable=True)
    assert bool((bent[order].diff() >= -1e-9).all())
    is_good = bend.way * values >= bend.way * bend.knee
    assert torch.equal(bent[is_good], values[is_good])


@settings(max_examples=100)
@given(st.lists(FINITE, min_size=3, max_size=30), st.sampled_from(["minimize", "maximize"]))
def test_law_what_was_bent_is_straightened_to_what_it_was(numbers: list[float], goal: Goal) -> None:
    values = torch.tensor(numbers, dtype=torch.float64)
    bend = bend_of(values, goal)
    mean, sd = bend.straighten(bend.bend(values), torch.ones_like(values))
    torch.testing.assert_close(mean, values, rtol=1e-9, atol=1e-6)
    assert bool((sd >= 1).all())


def test_walls_are_drawn_in_to_the_scale_of_the_wells() -> None:
    bend = bend_of(VALUES, "minimize")
    assert (bend.knee, bend.scale) == (2.0, 0.05 * 161)
    bent = bend.bend(VALUES)
    assert bent[:3].tolist() == [-1.0, 0.0, 2.0]
    assert float(bent[4]) == pytest.approx(2 + 8.05 * math.log1p(158 / 8.05))
    up = bend_of(-VALUES, "maximize").bend(-VALUES)
    torch.testing.assert_close(up, -bent)


def test_the_slope_at_the_prediction_stretches_its_sd() -> None:
    bend = bend_of(VALUES, "minimize")
    at = bend.bend(torch.tensor([100.0], dtype=torch.float64))
    step = 1e-4
    ahead, _ = bend.straighten(at + step, at)
    mean, sd = bend.straighten(at, torch.tensor([0.5], dtype=torch.float64))
    assert float(sd) == pytest.approx(0.5 * float(ahead - mean) / step, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "goal"),
    [
        (VALUES, Target(target=3.0)),
        (VALUES[:2], "minimize"),
        (torch.tensor([1.0, 1.0, 1.0, 0.0]), "maximize"),
        (torch.linspace(0.0, 1.0, 30), "maximize"),  # no tail
        (torch.tensor([math.nan, 1.0, 2.0]), "maximize"),
    ],
)
def test_nothing_is_bent_where_there_is_no_bad_side_to_tell(
    values: torch.Tensor, goal: Goal
) -> None:
    bend = bend_of(values, goal)
    assert bend == Bend()
    assert bend.notes() == {}
    assert torch.equal(bend.bend(values.nan_to_num()), values.nan_to_num())

"""Branin agrees with BoTorch's, and a bad row harms no other."""

import math

import numpy as np
import pytest
import torch
from botorch.test_functions.multi_fidelity import AugmentedBranin
from botorch.test_functions.synthetic import Branin as BoTorchBranin

from oracles.branin import Branin
from oracles.oracle import NotRun

POINTS = np.random.default_rng(0).uniform([-5, 0], [10, 15], size=(64, 2))


def values(bias: float, points: np.ndarray) -> np.ndarray:
    answers = Branin(fidelity="f", cost=1, bias=bias).query(list(points))
    return np.array([answer["value"] for answer in answers])


@pytest.mark.parametrize("bias", [0.0, 0.3, 1.0])
def test_agrees_with_botorch_at_every_fidelity(bias: float) -> None:
    rows = np.column_stack([POINTS, np.full(len(POINTS), 1 - bias)])
    expected = AugmentedBranin()(torch.tensor(rows, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(values(bias, POINTS), expected, rtol=1e-12)


def test_without_bias_it_is_exact_branin() -> None:
    expected = BoTorchBranin()(torch.tensor(POINTS, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(values(0.0, POINTS), expected, rtol=1e-12)


@pytest.mark.parametrize("minimum", [(-math.pi, 12.275), (math.pi, 2.275), (3 * math.pi, 2.475)])
def test_its_three_minima(minimum: tuple[float, float]) -> None:
    assert values(0.0, np.array([minimum]))[0] == pytest.approx(0.397887, abs=1e-6)


@pytest.mark.parametrize(
    "absurd",
    [[1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], [math.nan, 1.0], [math.inf, 1.0], "CCO", None, [11, 1]],
)
def test_a_bad_candidate_fails_alone_and_is_refunded(absurd: object) -> None:
    good = POINTS[0]
    first, bad, last = Branin(fidelity="f", cost=1).query([good, absurd, good])
    assert isinstance(bad, NotRun)
    assert "expected" in str(bad)
    assert first == last == {"value": values(0.0, POINTS[:1])[0]}


def test_integers_and_an_empty_batch_are_fine() -> None:
    branin = Branin(fidelity="f", cost=1)
    assert branin.query([]) == []
    assert branin.query([np.array([0, 0])]) == branin.query([(0.0, 0.0)])


@pytest.mark.parametrize(
    "options", [{"bias": -0.1}, {"bias": 1.5}, {"cost": -1}, {"cost": math.nan}]
)
def test_impossible_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Branin(**{"fidelity": "f", "cost": 1, **options})


def test_the_version_tells_biases_apart() -> None:
    assert Branin("f", 1, bias=0.1).version != Branin("f", 1, bias=0.2).version

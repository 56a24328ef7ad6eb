"""Hartmann and Park agree with their sources; `r2` is what it says, for every function."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from botorch.test_functions.multi_fidelity import AugmentedHartmann

from oracles.branin import Branin
from oracles.hartmann import Hartmann
from oracles.misleading import mixture
from oracles.park import Park
from oracles.synthetic import Synthetic

FUNCTIONS = [Branin, Hartmann, Park]


def points(function: type[Synthetic], n: int, seed: int = 0) -> np.ndarray:
    low, high = np.array(function.box).T
    return low + (high - low) * np.random.default_rng(seed).uniform(size=(n, len(low)))


def values(oracle: Synthetic, at: np.ndarray) -> np.ndarray:
    return np.array([answer["value"] for answer in oracle.query(list(at))])


@pytest.mark.parametrize("bias", [0.0, 0.5, 0.875])
def test_hartmann_is_minus_botorchs_at_every_fidelity(bias: float) -> None:
    at = points(Hartmann, 64)
    rows = torch.tensor(np.column_stack([at, np.full(len(at), 1 - bias)]))
    # BoTorch's constants are rounded to float32.
    expected = -AugmentedHartmann()(rows).numpy()
    np.testing.assert_allclose(values(Hartmann("f", 1, bias=bias), at), expected, rtol=1e-5)


def test_hartmann_has_its_maximum() -> None:
    top = [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573]
    assert values(Hartmann("f", 1), np.array([top]))[0] == pytest.approx(3.32237, abs=1e-5)


def test_the_ten_best_of_hartmanns_grid_have_the_published_mean() -> None:
    near = [[0.1, 0.2, 0.3], [0.0, 0.1, 0.2, 0.3], [0.3, 0.4, 0.5, 0.6], [0.2, 0.3, 0.4],
            [0.2, 0.3, 0.4], [0.6, 0.7, 0.8]]  # fmt: skip
    grid = np.stack(np.meshgrid(*near), -1).reshape(-1, 6)
    best = np.sort(values(Hartmann("f", 1), grid))[-10:]
    assert best.mean() == pytest.approx(3.1674, abs=5e-5)


def park_as_written(x1: float, x2: float, x3: float, x4: float) -> tuple[float, float]:
    """The two formulas as Xiong et al. print them, with their division by x1."""
    first = x1 / 2 * (math.sqrt(1 + (x2 + x3**2) * x4 / x1**2) - 1)
    high = first + (x1 + 3 * x4) * math.exp(1 + math.sin(x3))
    return high, (1 + math.sin(x1) / 10) * high - 2 * x1 + x2**2 + x3**2 + 0.5


def test_park_and_its_low_form_are_the_published_formulas() -> None:
    at = points(Park, 64)
    expected = np.array([park_as_written(*row) for row in at])
    np.testing.assert_allclose(values(Park("f", 1), at), expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(values(Park("f", 1, bias=1), at), expected[:, 1], rtol=1e-12)
    np.testing.assert_allclose(values(Park("f", 1, bias=0.25), at), expected @ [0.75, 0.25])


def test_park_where_the_formula_divides_by_zero_is_its_limit() -> None:
    at = np.array([[0.0, 0.3, 0.6, 0.9], [0.0, 0.0, 0.0, 0.0]])
    near = at + np.array([1e-9, 0, 0, 0])
    np.testing.assert_allclose(
        values(Park("f", 1), at), [park_as_written(*row)[0] for row in near], atol=1e-6
    )
    assert values(Park("f", 1), np.ones((1, 4)))[0] == pytest.approx(25.5893, abs=1e-4)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("r2", [0.0, 0.6, 0.95])
def test_the_cheap_form_explains_the_stated_share(function: type[Synthetic], r2: float) -> None:
    at = points(function, 4000, seed=1)
    exact, cheap = values(function("f", 1), at), values(function("f", 1, r2=r2), at)
    assert np.corrcoef(exact, cheap)[0, 1] ** 2 == pytest.approx(r2, abs=0.06)
    assert cheap.mean() == pytest.approx(exact.mean(), abs=0.1 * exact.std())
    assert cheap.std() == pytest.approx(exact.std(), rel=0.1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_misleads_is_smooth(function: type[Synthetic]) -> None:
    low, high = np.array(function.box).T
    at = points(function, 400).clip(low, high - 1e-3 * (high - low))
    step = 1e-3 * (high - low)
    oracle = function("f", 1, r2=0.0)
    change = values(oracle, at + step) - values(oracle, at)
    assert np.abs(change).max() < 0.1 * values(oracle, at).std()


def test_r2_of_one_is_the_formula_itself() -> None:
    at = points(Branin, 8)
    assert (values(Branin("f", 1, r2=1.0), at) == Branin("f", 1).formula(at)).all()


def test_r2_of_a_constant_function_is_refused() -> None:
    constant: Callable[[np.ndarray], np.ndarray] = lambda x: np.ones(len(x))  # noqa: E731
    with pytest.raises(ValueError, match="varies"):
        mixture(constant, [(0.0, 1.0)], 0.5)


@pytest.mark.parametrize("options", [{"r2": -0.1}, {"r2": 1.1}, {"r2": math.nan}, {"bias": 2.0}])
def test_impossible_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Park("f", 1, **options)


def test_the_version_tells_r2_apart() -> None:
    assert Park("f", 1, r2=0.1).version != Park("f", 1, r2=0.2).version

import math

import numpy as np
import pytest

from surrogate.calibration import calibration, spearman


def test_figures_of_a_hand_computed_case():
    figures = calibration([0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 2.0], [0.5, 2.5, 2.0, 8.0])
    # z: 0.5, 1.5, 0, 2.5
    assert figures["n"] == 4
    assert figures["coverage_68"] == 0.5
    assert figures["coverage_95"] == 0.75
    assert figures["rmse"] == pytest.approx(math.sqrt((0.25 + 2.25 + 0 + 25) / 4))
    assert figures["mean_error"] == pytest.approx(-(0.5 + 1.5 + 0 + 5) / 4)
    squares = (0.25 + 2.25 + 0 + 6.25) / 2
    assert figures["nll"] == pytest.approx(
        (squares + math.log(2)) / 4 + 0.5 * math.log(2 * math.pi)
    )
    assert figures["spearman"] == pytest.approx(0.8)


def test_honest_predictions_are_calibrated():
    generator = np.random.default_rng(0)
    mean, sd = generator.normal(size=20_000), generator.uniform(0.1, 3, size=20_000)
    figures = calibration(mean, sd, mean + sd * generator.normal(size=20_000))
    assert figures["coverage_68"] == pytest.approx(0.68, abs=0.01)
    assert figures["coverage_95"] == pytest.approx(0.95, abs=0.01)


def test_no_rows_give_none():
    figures = calibration([], [], [])
    assert figures.pop("n") == 0
    assert set(figures.values()) == {None}


def test_one_row_has_no_rank_correlation():
    figures = calibration([1.0], [1.0], [1.5])
    assert figures["spearman"] is None
    assert figures["rmse"] == 0.5


def test_unusable_rows_are_left_out():
    figures = calibration([0, 0, 0, math.nan], [1, 0, 1, 1], [1, 1, math.inf, 1])
    assert figures["n"] == 1


def test_lengths_must_agree():
    with pytest.raises(ValueError, match=r"one length, got \[1, 1, 2\]"):
        calibration([1], [1], [1, 2])


def test_spearman_agrees_with_scipy_including_ties():
    from scipy.stats import spearmanr

    generator = np.random.default_rng(1)
    a = generator.integers(0, 6, 40).astype(float)
    b = a + generator.integers(0, 6, 40)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_spearman_sees_only_order_and_needs_variety():
    a = np.array([1.0, 2.0, 5.0])
    assert spearman(a, np.exp(a)) == pytest.approx(1.0)
    assert spearman(a, -a) == pytest.approx(-1.0)
    assert spearman(a, np.ones(3)) is None

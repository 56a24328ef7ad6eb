"""The guard's evidence recovers the truth, with an uncertainty that holds."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import guard_evidence
from pipeline.guard_evidence import (
    PRIOR_SD,
    PRIOR_Z,
    Belief,
    Links,
    Seen,
    believe,
    contrast,
    leave_one_out_log_density,
    links,
    nearest,
)
from surrogate.surrogate import Surrogate
from tests.pipeline.guard_cases import Fixed, ladder


def pairs(r2: float, n: int, rng: np.random.Generator, sign: float = 1.0) -> Links:
    """Gaussian pairs of which one explains `r2` of the other."""
    a, e = rng.normal(size=(2, n))
    return Links(a, sign * (math.sqrt(r2) * a + math.sqrt(1 - r2) * e), np.ones(n), n)


def line(n: int) -> Links:
    return pairs(0.9999, n, np.random.default_rng(0))


# Laws of the evidence


@pytest.mark.parametrize("r2", [0.0, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_law_the_belief_recovers_what_is_explained(r2: float, sign: float) -> None:
    rng = np.random.default_rng(1)
    expected, low, high = believe(pairs(r2, 800, rng, sign)).explained()
    assert expected == pytest.approx(r2, abs=0.06)
    assert low <= expected <= high


@pytest.mark.parametrize("n", [5, 10, 20])
def test_law_the_interval_holds_the_truth_as_often_as_it_says(n: int) -> None:
    """Where the truth is as was believed before: a central 80 %."""
    rng = np.random.default_rng(2)
    inside = []
    for z in rng.normal(PRIOR_Z, PRIOR_SD, size=400):
        r2 = math.tanh(z) ** 2
        _, low, high = believe(pairs(r2, n, rng)).explained()
        inside.append(low <= r2 <= high)
    assert 0.7 < np.mean(inside) < 0.9


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(4, 30), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_law_units_and_order_do_not_matter(seed: int, n: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    one = pairs(0.5, n, rng)
    order = rng.permutation(n)
    other = Links(scale * one.cheap[order] + shift, one.target[order], one.weight[order], n)
    np.testing.assert_allclose(believe(one).explained(), believe(other).explained(), atol=1e-6)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 40))
def test_law_shares_are_ordered_and_within_0_and_1(seed: int, n: int) -> None:
    expected, low, high = believe(pairs(0.4, n, np.random.default_rng(seed))).explained()
    assert 0 <= low <= high <= 1
    assert 0 <= expected <= 1


def test_more_evidence_is_surer() -> None:
    beliefs = [believe(line(n)) for n in (3, 5, 10, 40)]
    assert beliefs[0] == Belief(n_links=3.0)
    assert all(a.sd > b.sd for a, b in pairwise(beliefs))
    assert beliefs[-1].explained()[1] > 0.9


def test_a_prediction_that_knows_half_is_not_taken_for_a_fidelity_that_explains_half() -> None:
    """y = mu + e is what the cheap fidelity would answer, and mu all that is known of it."""
    rng = np.random.default_rng(3)
    mu, e, rest = rng.normal(size=(3, 20000))
    target = 0.9 * (mu + e) / math.sqrt(2) + math.sqrt(1 - 0.81) * rest
    known = Links(mu, target, np.full(20000, 0.5), 0)
    assert believe(known).explained()[0] == pytest.approx(0.81, abs=0.05)
    assert believe(known).n_links == pytest.approx(10000)


def test_the_rank_correlation_is_spearmans() -> None:
    seen = pairs(0.5, 12, np.random.default_rng(5))
    belief = believe(seen)
    order_a, order_b = seen.cheap.argsort().argsort(), seen.target.argsort().argsort()
    assert belief.rank_correlation == pytest.approx(float(np.corrcoef(order_a, order_b)[0, 1]))
    low, middle, high = belief.rank_low, belief.rank_correlation, belief.rank_high
    assert low is not None
    assert middle is not None
    assert high is not None
    assert low < middle < high


def test_law_an_outcome_left_out_is_one_that_was_not_learned() -> None:
    """Against refits without each outcome in turn."""
    seen = ladder(0.8, 12, 9, 3)
    model = Fixed(rho=0.7)
    model.fit(seen.features, seen.fidelities, seen.values, 2, 0)
    model.mean = torch.zeros(())  # the level is not learned, so that leaving out is exact
    model.weights = model.inverse @ seen.values
    rows = (seen.fidelities == 1).nonzero()[:, 0]
    found = leave_one_out_log_density(model, seen.features[rows], seen.values[rows])
    for row, density in zip(rows.tolist(), found.tolist(), strict=True):
        rest = torch.arange(len(seen.values)) != row
        k = model._prior(
            seen.features[rest], seen.fidelities[rest], seen.features[rest], seen.fidelities[rest]
        )
        cross = model._prior(
            seen.features[row : row + 1],
            seen.fidelities[row : row + 1],
            seen.features[rest],
            seen.fidelities[rest],
        )[0]
        solved = torch.linalg.solve(k + 0.01 * torch.eye(len(k)).double(), cross)
        error = float(seen.values[row] - solved @ seen.values[rest])
        variance = float(1.01 - solved @ cross)
        expected = -0.5 * (error**2 / variance + math.log(2 * math.pi * variance))
        assert density == pytest.approx(expected, abs=1e-6)


def test_an_outcome_that_its_model_merely_repeats_is_no_infinity() -> None:
    seen = ladder(1.0, 5, 5, 5).at(1)
    model = Fixed(noise=1e-12)
    model.fit(seen.features, torch.zeros(5, dtype=torch.long), seen.values, 1, 0)
    assert bool(leave_one_out_log_density(model, seen.features, seen.values).isfinite().all())


@pytest.mark.parametrize(("r2", "is_better"), [(0.98, True), (0.0, False)])
def test_the_contrast_tells_data_that_help_from_data_that_mislead(
    r2: float, is_better: bool
) -> None:
    """A model that takes the fidelities for one gains by the first and loses by the second."""
    seen = ladder(r2, 40, 12, 0, seed=3)
    together, alone, target = Fixed(rho=0.95), Fixed(), seen.at(1)
    together.fit(seen.features, seen.fidelities, seen.values, 2, 0)
    alone.fit(target.features, torch.zeros(12, dtype=torch.long), target.values, 1, 0)
    assert (contrast(together, alone, target) > 2) == is_better
    assert (contrast(together, alone, target) < -2) != is_better


# Links


def test_pairs_are_taken_as_they_are_and_others_by_prediction() -> None:
    seen = ladder(0.9, 40, 6, 2)
    found = links(seen.at(0), seen.at(1), Fixed)
    assert found.n_pairs == 2
    assert sorted(found.weight)[-2:] == [1.0, 1.0]
    assert len(found.weight) == 6
    assert all(0 < w <= 1 for w in found.weight)


def test_with_pairs_alone_no_surrogate_is_fitted() -> None:
    def none() -> Surrogate:
        raise AssertionError("not needed")

    assert links(ladder(0.9, 8, 5, 5).at(0), ladder(0.9, 8, 5, 5).at(1), none).n_pairs == 5
    few = ladder(0.9, 2, 5, 1)  # too few to learn from
    assert links(few.at(0), few.at(1), none).cheap.shape == (1,)


def test_a_far_prediction_is_no_link() -> None:
    cheap, target = ladder(0.9, 10, 4, 0).at(0), ladder(0.9, 10, 4, 0).at(1)
    far = Seen(target.features + 100, target.fidelities, target.values, target.candidates)
    assert links(cheap, far, Fixed).weight.sum() == pytest.approx(0, abs=0.3)


def test_a_failed_value_is_no_evidence() -> None:
    seen = ladder(0.9, 8, 5, 5)
    seen.values[0] = math.nan
    assert len(seen.at(0).values) == 7


def test_the_guards_own_surrogate_learns_from_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_evidence, "MOST_TO_LEARN", 3)
    x = torch.arange(10).double()[:, None]
    seen = Seen(x, torch.zeros(10).long(), x[:, 0], [str(i) for i in range(10)])
    assert nearest(seen, torch.tensor([[7.1]]).double()).candidates == ["6", "7", "8"]

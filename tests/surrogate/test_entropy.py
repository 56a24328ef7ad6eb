import math

import pytest
import torch
from botorch.acquisition.max_value_entropy_search import (
    qLowerBoundMaxValueEntropy,
    qMaxValueEntropy,
    qMultiFidelityLowerBoundMaxValueEntropy,
    qMultiFidelityMaxValueEntropy,
)

from surrogate.entropy import (
    Gibbon,
    MaxValueEntropySearch,
    MultiFidelityGibbon,
    MultiFidelityMaxValueEntropySearch,
)
from tests.surrogate.canned import single, two
from tests.surrogate.from_botorch import single_fidelity, three_fidelities

ALL = [Gibbon, MaxValueEntropySearch, MultiFidelityGibbon, MultiFidelityMaxValueEntropySearch]
FAR_BELOW = -100.0


def _prepared(acquisition, surrogate, features, best=FAR_BELOW):
    acquisition.prepare(surrogate, sign=1.0, best=best, reference_features=features, seed=3)
    return acquisition


@pytest.fixture
def maxima(monkeypatch):
    """Set the maxima instead of drawing them."""

    def choose(*values: float) -> None:
        fixed = torch.tensor(values, dtype=torch.float64)
        monkeypatch.setattr("surrogate.entropy.sample_max_values", lambda *_: fixed)

    return choose


def _exact_information(cut: float) -> float:
    """Entropy of a standard normal less that of one cut off above `cut`, by quadrature."""
    z = torch.linspace(-12, cut, 200_001, dtype=torch.float64)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    density = density - math.log(0.5 * math.erfc(-cut / 2**0.5))
    return 0.5 * math.log(2 * math.pi * math.e) + float(torch.trapezoid(density.exp() * density, z))


@pytest.mark.parametrize("cut", [-2.0, 0.0, 0.7, 2.5])
def test_mes_is_the_information_of_the_cut(maxima, cut):
    maxima(3.0 + 2 * cut)
    canned = single([3.0], [2.0])
    acquisition = _prepared(MaxValueEntropySearch(n_max_samples=1), canned, canned.features)
    found = float(acquisition.log_gain(canned.features).exp())
    assert found == pytest.approx(_exact_information(cut), rel=1e-6)


def test_mf_gibbon_of_a_hand_computed_value(maxima):
    maxima(0.0, 1.5)
    canned = two(0.5, 2.0, 0.6, low_noise=1.0)
    acquisition = _prepared(MultiFidelityGibbon(n_max_samples=2), canned, canned.features)
    expected = []
    for rho2 in (0.36 * 4 / 5, 1.0):
        nats = 0.0
        for gamma in (-0.25, 0.5):
            h = (
                math.exp(-(gamma**2) / 2)
                / math.sqrt(2 * math.pi)
                / (0.5 * math.erfc(-gamma / 2**0.5))
            )
            nats -= 0.25 * math.log(1 - rho2 * h * (gamma + h))
        expected.append(math.log(nats))
    found = acquisition.log_gain(canned.features)[0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_without_noise_mf_mes_at_the_target_is_mes():
    canned = single([0.0, 0.5, 1.0], [1.0, 2.0, 0.8])
    gains = [
        _prepared(kind(), canned, canned.features).log_gain(canned.features)
        for kind in (MaxValueEntropySearch, MultiFidelityMaxValueEntropySearch)
    ]
    torch.testing.assert_close(*gains, rtol=1e-2, atol=1e-2)


def test_gibbon_at_the_target_is_mf_gibbon_noise_included():
    canned = single([-3.0, 0.0, 0.5, 1.0], [0.5, 1.0, 2.0, 0.1], noise=0.3)
    gains = [
        _prepared(kind(), canned, canned.features).log_gain(canned.features)
        for kind in (Gibbon, MultiFidelityGibbon)
    ]
    assert torch.equal(*gains)


@pytest.mark.parametrize("rho", [0.2, 0.6, 0.9, 0.99])
def test_gibbon_bounds_the_information_from_below(rho):
    canned = two(0.0, 1.0, rho, low_noise=0.1)
    bound, exact = (
        _prepared(kind(), canned, canned.features).log_gain(canned.features)
        for kind in (MultiFidelityGibbon, MultiFidelityMaxValueEntropySearch)
    )
    assert (bound <= exact).all()
    assert (bound > exact - math.log(1.5)).all()


def test_a_cheap_fidelity_never_tells_more_than_the_target():
    for kind in ALL:
        canned = two(0.0, 1.0, 0.97, low_noise=0.0)
        found = _prepared(kind(), canned, canned.features).log_gain(canned.features)[0]
        assert found[0] < found[1]


def _given_maxima(maxima, their) -> None:
    values = torch.linspace(1.0, 2.5, 16, dtype=torch.float64)
    maxima(*values.tolist())
    their.posterior_max_values = values[:, None]


def _project(inputs: torch.Tensor) -> torch.Tensor:
    return torch.cat([inputs[..., :-1], torch.ones_like(inputs[..., -1:])], -1)


@pytest.mark.parametrize(
    ("ours", "theirs", "options", "tolerance"),
    [
        (Gibbon, qLowerBoundMaxValueEntropy, {}, 1e-6),
        # theirs draws observations; the noise here is nearly none
        (MaxValueEntropySearch, qMaxValueEntropy, {"num_y_samples": 2048}, 5e-2),
    ],
)
def test_agrees_with_botorch_given_the_same_maxima(maxima, ours, theirs, options, tolerance):
    surrogate, _, query = single_fidelity()
    their = theirs(surrogate.model, query, **options)
    _given_maxima(maxima, their)
    with torch.no_grad():
        expected = their(query[:, None])
    found = _prepared(ours(n_max_samples=16), surrogate, query).target_log_gain(query).exp()
    mean, sd = surrogate.predict(query, 0)
    # theirs clamps far below, and noise counts where little is unknown
    usual = ((1.0 - mean) / sd > -4) & (sd > 0.2)
    assert (expected[usual] > 0.05).sum() > 5
    torch.testing.assert_close(found[usual], expected[usual], rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        (MultiFidelityGibbon, qMultiFidelityLowerBoundMaxValueEntropy, 1e-6),
        (MultiFidelityMaxValueEntropySearch, qMultiFidelityMaxValueEntropy, 2e-2),
    ],
)
def test_agrees_with_botorch_at_every_fidelity(maxima, ours, theirs, tolerance):
    surrogate, _, query = three_fidelities()
    at_target = surrogate.inputs(query, torch.full((len(query),), 2))
    their = theirs(surrogate.model, at_target, project=_project, num_y_samples=2048)
    _given_maxima(maxima, their)
    found = _prepared(ours(n_max_samples=16), surrogate, query).log_gain(query).exp()
    for j in range(3):
        inputs = surrogate.inputs(query, torch.full((len(query),), j))[:, None]
        with torch.no_grad():
            # theirs divides by a cost, 1 plus the fidelity unless told
            one = torch.ones(1, len(query), dtype=torch.float64)
            expected = their(inputs) / their.cost_aware_utility(inputs, one)[0]
        assert expected.max() > 0.015
        torch.testing.assert_close(found[:, j], expected, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("kind", ALL)
def test_takes_no_maximum_below_the_best_seen(kind):
    canned = single([0.0, 0.1], [1.0, 1.0])
    acquisition = _prepared(kind(), canned, canned.features, best=50.0)
    assert torch.equal(acquisition._max_values, torch.full((16,), 50.0, dtype=torch.float64))


@pytest.mark.parametrize("kind", ALL)
def test_impossible_number_of_maxima(kind):
    with pytest.raises(ValueError, match="n_max_samples"):
        kind(n_max_samples=0)

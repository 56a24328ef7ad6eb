import math

import pytest
import torch
from botorch.acquisition.analytic import LogExpectedImprovement as BotorchLogEI
from botorch.acquisition.max_value_entropy_search import qLowerBoundMaxValueEntropy
from botorch.models import SingleTaskGP

from surrogate.acquisition import (
    LOG_FLOOR,
    Acquisition,
    LogExpectedImprovement,
    MultiFidelityGibbon,
    UpperConfidenceBound,
)
from surrogate.max_values import sample_max_values
from tests.surrogate.canned import Canned, single, two

KINDS = [LogExpectedImprovement, UpperConfidenceBound, MultiFidelityGibbon]


def _prepared(acquisition: Acquisition, canned: Canned, sign=1.0, best: float | None = 0.0, seed=0):
    acquisition.prepare(canned, sign=sign, best=best, reference_features=canned.features, seed=seed)
    return acquisition


def _gain(acquisition: Acquisition, canned: Canned, **options) -> torch.Tensor:
    return _prepared(acquisition, canned, **options).log_gain(canned.features)


def _random(n: int, m: int) -> Canned:
    generator = torch.Generator().manual_seed(n)
    root = torch.randn(n, m, m + 1, generator=generator, dtype=torch.float64)
    means = torch.randn(n, m, generator=generator, dtype=torch.float64)
    return Canned(means, root @ root.mT, torch.full((m,), 0.1, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryAcquisition:
    def test_shape_type_and_target_column(self, kind):
        canned = _random(7, 3)
        acquisition = _prepared(kind(), canned)
        gain = acquisition.log_gain(canned.features)
        assert gain.shape == (7, 3)
        assert gain.dtype == torch.float64
        assert torch.equal(acquisition.target_log_gain(canned.features), gain[:, -1])

    def test_no_points_give_no_gains(self, kind):
        canned = _random(7, 3)
        assert _prepared(kind(), canned).log_gain(canned.features[:0]).shape == (0, 3)

    def test_minimising_mirrors_maximising(self, kind):
        canned = _random(9, 2)
        mirrored = Canned(-canned.means, canned.covariances, canned.noise)
        up = _gain(kind(), canned, sign=1.0, best=0.7)
        down = _gain(kind(), mirrored, sign=-1.0, best=-0.7)
        torch.testing.assert_close(up, down, rtol=0, atol=0)

    def test_same_seed_same_gain(self, kind):
        canned = _random(9, 2)
        assert torch.equal(_gain(kind(), canned, seed=5), _gain(kind(), canned, seed=5))

    def test_without_a_best_the_best_posterior_mean_stands_in(self, kind):
        canned = _random(9, 2)
        top = float(canned.means[:, -1].max())
        assert torch.equal(_gain(kind(), canned, best=None), _gain(kind(), canned, best=top))

    def test_a_better_mean_is_worth_more(self, kind):
        canned = single([-400.0, -40.0, -3.0, -1.0, 0.0, 1.0], [1.0] * 6)
        gain = _gain(kind(), canned, best=1.0)[:, 0]
        assert (gain.diff() > 0).all()

    def test_a_less_certain_point_of_equal_mean_is_worth_more(self, kind):
        canned = single([0.0] * 4, [0.1, 0.5, 1.0, 3.0])
        assert (_gain(kind(), canned, best=1.0)[:, 0].diff() > 0).all()

    def test_a_better_correlated_fidelity_tells_more(self, kind):
        gains = [float(_gain(kind(), two(0.0, 1.0, rho))[0, 0]) for rho in (0.1, -0.4, 0.7, 0.99)]
        assert gains == sorted(gains)
        assert len(set(gains)) == 4

    def test_a_noisier_fidelity_tells_less(self, kind):
        gains = [float(_gain(kind(), two(0, 1, 0.9, low_noise=s))[0, 0]) for s in (0.0, 1.0, 9.0)]
        assert gains == sorted(gains, reverse=True)
        assert len(set(gains)) == 3

    def test_the_unit_of_the_cheap_fidelity_does_not_matter(self, kind):
        gains = [_gain(kind(), two(0, 1, 0.8, low_sd=sd)) for sd in (2.0, 2e80, 2e-80)]
        torch.testing.assert_close(gains[1], gains[0])
        torch.testing.assert_close(gains[2], gains[0])

    def test_finite_where_nothing_can_be_hoped_or_doubted(self, kind):
        hopeless = single([-1e12, -40.0, 0.0, 1e12], [1e-9, 1.0, 1e-12, 1e6])
        for best in (0.0, None, 1e15, -1e15):
            gain = _gain(kind(), hopeless, best=best)
            assert gain.isfinite().all()
            assert (gain >= LOG_FLOOR).all()

    def test_an_unrelated_or_perfect_fidelity_gives_a_finite_gain(self, kind):
        for rho in (0.0, 1.0, -1.0):
            assert _gain(kind(), two(0.0, 1.0, rho)).isfinite().all()

    def test_the_order_survives_forty_sd_below_the_best(self, kind):
        canned = single([-40.0, -41.0, -42.0], [1.0] * 3)
        gain = _gain(kind(), canned, best=0.0)[:, 0]
        assert (gain.diff() < -0.1).all()

    def test_misuse_is_named(self, kind):
        canned = _random(3, 2)
        with pytest.raises(RuntimeError, match="prepare"):
            kind().log_gain(canned.features)
        with pytest.raises(ValueError, match="sign"):
            _prepared(kind(), canned, sign=0.5)
        with pytest.raises(ValueError, match="reference"):
            kind().prepare(canned, sign=1, best=0, reference_features=canned.features[:0], seed=0)


def test_log_ei_of_hand_computed_values():
    # mean equal to best: EI = sd / sqrt(2 pi)
    canned = single([1.0, 1.0], [1.0, 3.0])
    expected = torch.tensor([1.0, 3.0], dtype=torch.float64).log() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(_gain(LogExpectedImprovement(), canned, best=1.0)[:, 0], expected)


def test_log_ei_of_a_cheap_fidelity_is_damped_by_its_squared_correlation():
    # var(y_low) = 4 + 5 = 9; cov = 0.6 * 1 * 2 = 1.2; rho^2 = 1.44 / 9
    gain = _gain(LogExpectedImprovement(), two(0.3, 1.0, 0.6, low_noise=5.0))[0]
    assert float(gain[0] - gain[1]) == pytest.approx(math.log(1.44 / 9))


def _botorch_model() -> tuple[SingleTaskGP, torch.Tensor, Canned]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    model = SingleTaskGP(x, torch.sin(6 * x).sum(1, keepdim=True))
    query = torch.rand(40, 2, generator=generator, dtype=torch.float64)
    posterior = model.posterior(query)
    mean, sd = posterior.mean.detach()[:, 0], posterior.variance.detach()[:, 0].sqrt()
    noise = float(model.likelihood.noise.detach()) * float(model.outcome_transform.stdvs) ** 2
    return model, query, single(mean.tolist(), sd.tolist(), noise)


@pytest.mark.parametrize("best", [0.5, 30.0])
def test_log_ei_agrees_with_botorch(best):
    model, query, canned = _botorch_model()
    theirs = BotorchLogEI(model, best_f=best)(query[:, None]).detach()
    torch.testing.assert_close(
        _gain(LogExpectedImprovement(), canned, best=best)[:, 0], theirs, rtol=1e-6, atol=0
    )


def test_gibbon_agrees_with_botorch_given_the_same_maxima():
    model, query, canned = _botorch_model()
    mean, sd = canned.predict(canned.features, 0)
    theirs = qLowerBoundMaxValueEntropy(model, query)
    theirs.posterior_max_values = sample_max_values(mean, sd, 16, seed=3)[:, None]
    ours = _gain(MultiFidelityGibbon(n_max_samples=16), canned, best=-100.0, seed=3)[:, 0]
    # theirs clamps and uses float32-sized floors in the tails: compare where it is not tiny
    expected = theirs(query[:, None]).detach()
    assert (expected > 1e-4).sum() > 10
    torch.testing.assert_close(ours.exp(), expected, rtol=1e-3, atol=1e-5)


def test_gibbon_of_a_hand_computed_value(monkeypatch):
    monkeypatch.setattr(
        "surrogate.acquisition.sample_max_values",
        lambda *_: torch.tensor([0.0, 1.5], dtype=torch.float64),
    )
    gain = _gain(MultiFidelityGibbon(n_max_samples=2), two(0.5, 2.0, 0.6, low_noise=1.0), best=-9.0)
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
    torch.testing.assert_close(gain[0], torch.tensor(expected, dtype=torch.float64))


def test_gibbon_is_a_lower_bound_on_the_information_about_the_maximum(monkeypatch):
    # I(y; m*) for one noiseless target query and a known maximum: entropy of the normal minus
    # that of the truncated normal, by quadrature.
    monkeypatch.setattr(
        "surrogate.acquisition.sample_max_values",
        lambda *_: torch.tensor([0.7], dtype=torch.float64),
    )
    gain = float(_gain(MultiFidelityGibbon(n_max_samples=1), single([0.0], [1.0]), best=-9.0).exp())
    z = torch.linspace(-12, 0.7, 200_001, dtype=torch.float64)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    density = density - math.log(0.5 * math.erfc(-0.7 / 2**0.5))
    entropy = -float(torch.trapezoid(density.exp() * density, z))
    exact = 0.5 * math.log(2 * math.pi * math.e) - entropy
    assert 0 < gain <= exact
    assert gain > 0.5 * exact


def test_gibbon_takes_no_maximum_below_the_best_seen():
    canned = single([0.0, 0.1], [1.0, 1.0])
    acquisition = _prepared(MultiFidelityGibbon(), canned, best=50.0)
    assert torch.equal(acquisition._max_values, torch.full((16,), 50.0, dtype=torch.float64))


def test_ucb_ranks_as_the_bound_does():
    canned = _random(50, 2)
    mean, sd = canned.predict(canned.features, 1)
    for beta in (0.0, 1.0, 9.0):
        gain = _gain(UpperConfidenceBound(beta=beta), canned)[:, -1]
        assert torch.equal(gain.argsort(), (mean + beta**0.5 * sd).argsort())


def test_ucb_far_above_the_best_is_the_bound_itself():
    gain = _gain(UpperConfidenceBound(beta=4.0), single([100.0, 0.0], [1.0, 1.0]), best=2.0)
    assert float(gain[0, 0].exp()) == pytest.approx(100.0)


@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf])
def test_impossible_beta(beta):
    with pytest.raises(ValueError, match="beta"):
        UpperConfidenceBound(beta=beta)


def test_impossible_number_of_maxima():
    with pytest.raises(ValueError, match="n_max_samples"):
        MultiFidelityGibbon(n_max_samples=0)

"""Laws of every acquisition, against canned posteriors."""

import math
from importlib import import_module

import pytest
import torch

from surrogate import ACQUISITIONS
from surrogate.acquisition import LOG_FLOOR, Acquisition
from tests.surrogate.canned import Canned, single, two


def _kind(name: str) -> type[Acquisition]:
    module, _, attribute = ACQUISITIONS[name].partition(":")
    return getattr(import_module(module), attribute)


ALL = sorted(ACQUISITIONS)
ENTROPIES = ["gibbon", "mes", "mf_gibbon", "mf_mes"]
DAMPED = ["gibbon", "mes", "thompson", "ucb"]
MULTI_FIDELITY = ["mf_gibbon", "mf_kg", "mf_mes"]
BY_MEAN = sorted(set(ALL) - {"mf_kg", "thompson"})
"""Kinds whose gain is a function of the mean and sd at x: a draw or the alternatives decide too."""


def prepared(acquisition: Acquisition, canned: Canned, sign=1.0, best: float | None = 0.0, **more):
    options = {"reference_features": canned.features, "seed": 0} | more
    acquisition.prepare(canned, sign=sign, best=best, **options)
    return acquisition


def gain(name: str, canned: Canned, **options) -> torch.Tensor:
    return prepared(_kind(name)(), canned, **options).log_gain(canned.features)


def _random(n: int, m: int) -> Canned:
    generator = torch.Generator().manual_seed(n)
    root = torch.randn(n, m, m + 1, generator=generator, dtype=torch.float64)
    means = torch.randn(n, m, generator=generator, dtype=torch.float64)
    return Canned(means, root @ root.mT, torch.full((m,), 0.1, dtype=torch.float64))


@pytest.mark.parametrize("name", ALL)
class TestEveryAcquisition:
    def test_shape_and_type(self, name):
        found = gain(name, _random(7, 3))
        assert found.shape == (7, 3)
        assert found.dtype == torch.float64

    @pytest.mark.parametrize("m", [1, 3])
    def test_the_target_alone_is_the_last_column(self, name, m):
        canned = _random(7, m)
        acquisition = prepared(_kind(name)(), canned)
        alone = acquisition.target_log_gain(canned.features)
        assert alone.shape == (7,)
        torch.testing.assert_close(alone, acquisition.log_gain(canned.features)[:, -1])

    def test_no_points_give_no_gains(self, name):
        canned = _random(7, 3)
        acquisition = prepared(_kind(name)(), canned)
        assert acquisition.log_gain(canned.features[:0]).shape == (0, 3)
        assert acquisition.target_log_gain(canned.features[:0]).shape == (0,)

    def test_a_candidate_is_worth_the_same_in_any_company(self, name):
        canned = _random(40, 3)
        acquisition = prepared(_kind(name)(), canned)
        together = acquisition.log_gain(canned.features)
        order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
        shuffled = acquisition.log_gain(canned.features[order])
        torch.testing.assert_close(shuffled, together[order], rtol=1e-9, atol=1e-9)
        for i in (0, 39):
            alone = acquisition.log_gain(canned.features[i : i + 1])
            torch.testing.assert_close(alone[0], together[i], rtol=1e-9, atol=1e-9)

    def test_same_seed_same_gain(self, name):
        canned = _random(9, 2)
        assert torch.equal(gain(name, canned, seed=5), gain(name, canned, seed=5))

    def test_without_a_best_the_best_posterior_mean_stands_in(self, name):
        canned = _random(9, 2)
        top = float(canned.means[:, -1].max())
        assert torch.equal(gain(name, canned, best=None), gain(name, canned, best=top))

    def test_a_better_correlated_fidelity_tells_more(self, name):
        gains = [float(gain(name, two(0.0, 1.0, rho))[0, 0]) for rho in (0.1, -0.4, 0.7, 0.99)]
        assert gains == sorted(gains)
        assert len(set(gains)) == (1 if name == "mf_kg" else 4)  # one alternative: no choice

    def test_a_noisier_fidelity_tells_less(self, name):
        gains = [float(gain(name, two(0, 1, 0.9, low_noise=s))[0, 0]) for s in (0.0, 1.0, 9.0)]
        assert gains == sorted(gains, reverse=True)
        assert len(set(gains)) == (1 if name == "mf_kg" else 3)

    def test_the_unit_of_the_cheap_fidelity_does_not_matter(self, name):
        gains = [gain(name, two(0, 1, 0.8, low_sd=sd)) for sd in (2.0, 2e80, 2e-80)]
        torch.testing.assert_close(gains[1], gains[0])
        torch.testing.assert_close(gains[2], gains[0])

    def test_finite_where_nothing_can_be_hoped_or_doubted(self, name):
        hopeless = single([-1e12, -40.0, 0.0, 1e12], [1e-9, 1.0, 1e-12, 1e6])
        for best in (0.0, None, 1e15, -1e15):
            found = gain(name, hopeless, best=best)
            assert found.isfinite().all()
            assert (found >= LOG_FLOOR).all()

    def test_an_unrelated_or_perfect_fidelity_gives_a_finite_gain(self, name):
        for rho in (0.0, 1.0, -1.0):
            assert gain(name, two(0.0, 1.0, rho)).isfinite().all()

    def test_a_fidelity_that_is_the_target_is_worth_the_same(self, name):
        canned = _random(9, 1)
        both = Canned(
            canned.means.expand(-1, 2),
            canned.covariances.expand(-1, 2, 2),
            canned.noise.expand(2) if name in MULTI_FIDELITY else torch.zeros(2).double(),
        )
        found = gain(name, both, best=5.0)
        torch.testing.assert_close(found[:, 0], found[:, 1])

    def test_misuse_is_named(self, name):
        canned, acquisition = _random(3, 2), _kind(name)()
        with pytest.raises(RuntimeError, match="prepare"):
            acquisition.log_gain(canned.features)
        with pytest.raises(RuntimeError, match="prepare"):
            acquisition.target_log_gain(canned.features)
        with pytest.raises(ValueError, match="sign"):
            prepared(acquisition, canned, sign=0.5)
        with pytest.raises(ValueError, match="reference"):
            prepared(acquisition, canned, reference_features=canned.features[:0])
        with pytest.raises(ValueError, match="kth_best"):
            prepared(acquisition, canned, best=1.0, kth_best=2.0)
        with pytest.raises(ValueError, match="kth_best"):
            prepared(acquisition, canned, sign=-1.0, best=1.0, kth_best=0.5)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"thompson"}))
def test_minimising_mirrors_maximising(name):
    canned = _random(9, 2)
    mirrored = Canned(-canned.means, canned.covariances, canned.noise)
    up = gain(name, canned, sign=1.0, best=0.7, kth_best=0.5)
    down = gain(name, mirrored, sign=-1.0, best=-0.7, kth_best=-0.5)
    torch.testing.assert_close(up, down, rtol=0, atol=0)


@pytest.mark.parametrize("name", BY_MEAN)
class TestByMeanAndSd:
    def test_a_better_mean_is_worth_more(self, name):
        canned = single([-400.0, -40.0, -3.0, -1.0, 0.0, 1.0], [1.0] * 6)
        assert (gain(name, canned, best=1.0)[:, 0].diff() > 0).all()

    def test_a_less_certain_point_of_equal_mean_is_worth_more(self, name):
        canned = single([0.0] * 4, [0.1, 0.5, 1.0, 3.0])
        assert (gain(name, canned, best=1.0)[:, 0].diff() > 0).all()

    def test_the_order_survives_forty_sd_below_the_best(self, name):
        canned = single([-40.0, -41.0, -42.0], [1.0] * 3)
        assert (gain(name, canned, best=0.0)[:, 0].diff() < -0.1).all()


@pytest.mark.parametrize("name", DAMPED)
def test_a_cheap_fidelity_is_damped_by_its_squared_correlation(name):
    # var(y_low) = 4 + 5 = 9; cov = 0.6 * 1 * 2 = 1.2; rho^2 = 1.44 / 9
    found = gain(name, two(0.3, 1.0, 0.6, low_noise=5.0))[0]
    assert float(found[0] - found[1]) == pytest.approx(math.log(1.44 / 9))


@pytest.mark.parametrize("name", ["log_ei", "thompson", "ucb"])
def test_improvement_is_measured_from_the_kth_best(name):
    canned = _random(9, 2)
    by_kth = gain(name, canned, best=3.0, kth_best=1.0)
    assert torch.equal(by_kth, gain(name, canned, best=1.0))
    assert (by_kth > gain(name, canned, best=3.0)).all()
    assert torch.equal(gain(name, canned, best=None, kth_best=1.0), by_kth)


@pytest.mark.parametrize("name", [*ENTROPIES, "mf_kg"])
def test_the_kth_best_does_not_move_what_asks_for_the_maximum(name):
    canned = _random(9, 2)
    assert torch.equal(gain(name, canned, best=3.0, kth_best=1.0), gain(name, canned, best=3.0))


def test_an_acquisition_without_a_gain_is_named():
    class Nothing(Acquisition):
        def _learn_reference(self, mean, sd, seed):
            pass

    canned = _random(3, 2)
    with pytest.raises(NotImplementedError, match="Nothing"):
        prepared(Nothing(), canned).log_gain(canned.features)

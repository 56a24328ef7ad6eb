import math

import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.test_functions import Branin
from gpytorch.mlls import ExactMarginalLogLikelihood
from scipy.stats import qmc
from torch import Tensor

from surrogate.fitting import telling_rows
from surrogate.gp import GP, MultiFidelityGP


def _branin(x: Tensor) -> Tensor:
    """Branin on the unit square."""
    return Branin()(x * 15 + torch.tensor([-5.0, 0.0], dtype=torch.float64))


def _other(x: Tensor) -> Tensor:
    """A function that has nothing to do with Branin."""
    return torch.sin(9 * x[:, 0] + 1) * torch.cos(7 * x[:, 1])


def _points(n: int, seed: int, d: int = 2) -> Tensor:
    return torch.from_numpy(qmc.Sobol(d, rng=seed).random(n))


def _two_levels(cheap, n_cheap: int, n_target: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    low, high = _points(n_cheap, 1), _points(n_target, 2)
    fidelities = torch.tensor([0] * n_cheap + [1] * n_target)
    return torch.cat([low, high]), fidelities, torch.cat([cheap(low), _branin(high)])


def _fitted(model, data, m=2):
    model.fit(*data, m, 0)
    return model


def _rmse(model, fidelity: int = 1) -> float:
    query = _points(512, 7)
    return float((model.predict(query, fidelity)[0] - _branin(query)).square().mean().sqrt())


def _scaled_and_noisy(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(x), generator=generator, dtype=torch.float64)
    return 500 + 3 * _branin(x) + 5 * noise


@pytest.mark.parametrize("kind", [GP, MultiFidelityGP])
def test_the_posterior_interpolates_noiseless_data(kind):
    x = _points(40, 3)
    y = _branin(x)
    model = _fitted(kind(), (x, torch.zeros(40, dtype=torch.int64), y), 1)
    mean, sd = model.predict(x, 0)
    assert (mean - y).abs().max() < 0.01 * y.std()
    assert sd.max() < 0.02 * y.std()


def test_predictions_are_as_good_as_botorchs_on_one_fidelity():
    x = _points(30, 3)
    y = _branin(x)
    ours = _rmse(_fitted(GP(), (x, torch.zeros(30, dtype=torch.int64), y), 1), 0)
    theirs = SingleTaskGP(x, y[:, None])
    fit_gpytorch_mll(ExactMarginalLogLikelihood(theirs.likelihood, theirs))
    query = _points(512, 7)
    error = theirs.posterior(query).mean.detach()[:, 0] - _branin(query)
    assert ours < 1.1 * float(error.square().mean().sqrt())


def test_cheap_data_improve_the_target():
    with_cheap = _fitted(MultiFidelityGP(), _two_levels(_scaled_and_noisy, 60))
    without = _fitted(GP(), _two_levels(_scaled_and_noisy, 60))
    assert _rmse(with_cheap) < 0.5 * _rmse(without)


def test_more_data_at_a_good_cheap_fidelity_leave_less_doubt_about_the_target():
    doubts = [
        float(
            _fitted(MultiFidelityGP(), _two_levels(_scaled_and_noisy, n))
            .predict(_points(128, 7), 1)[1]
            .mean()
        )
        for n in (8, 24, 64)
    ]
    assert doubts[0] > doubts[1] > doubts[2]


def test_a_good_cheap_fidelity_is_believed_a_mirrored_one_too_and_a_misleading_one_not():
    good, mirrored, misleading = (
        _fitted(MultiFidelityGP(), _two_levels(f, 60, 25)).summary()["correlation_with_target"][0]
        for f in (_scaled_and_noisy, lambda x: -_branin(x), _other)
    )
    assert good > 0.9
    assert mirrored < -0.8
    assert abs(misleading) < 0.6


def test_a_misleading_cheap_fidelity_does_little_harm():
    data = _two_levels(_other, 60, 25)
    assert _rmse(_fitted(MultiFidelityGP(), data)) < 1.3 * _rmse(_fitted(GP(), data))


def test_noise_is_learned_fidelity_by_fidelity():
    # each point twice: otherwise noise could as well be a process with short lengthscales
    x = torch.cat([_points(30, 1)] * 2 + [_points(60, 2)])
    generator = torch.Generator().manual_seed(0)
    noise = 20 * torch.randn(120, generator=generator, dtype=torch.float64)
    fidelities = torch.arange(2).repeat_interleave(60)
    y = _branin(x) + torch.where(fidelities == 0, noise, 0)
    low, high = _fitted(MultiFidelityGP(), (x, fidelities, y)).noise_variance().sqrt().tolist()
    assert low == pytest.approx(20, rel=0.35)
    assert high < 4


def test_predictions_are_calibrated_on_fresh_points():
    query = _points(256, 7)
    mean, sd = _fitted(MultiFidelityGP(), _two_levels(_scaled_and_noisy, 60, 25)).predict(query, 1)
    inside = ((mean - _branin(query)).abs() <= 2 * sd).double().mean()
    assert inside > 0.8


def test_gp_looks_at_the_target_alone_and_knows_nothing_of_the_others():
    x, fidelities, y = _two_levels(_scaled_and_noisy, 20)
    model = _fitted(GP(), (x, fidelities, y))
    spoiled = _fitted(GP(), (x, fidelities, torch.where(fidelities == 0, -y, y)))
    query = _points(64, 7)
    assert torch.equal(model.predict(query, 1)[0], spoiled.predict(query, 1)[0])
    assert torch.equal(
        model.fidelity_covariance(query)[:, 0, 1], torch.zeros(64, dtype=torch.float64)
    )
    mean, sd = model.predict(query, 0)
    target = y[fidelities == 1]
    torch.testing.assert_close(mean, target.mean().expand(64))
    assert (sd >= model.predict(query, 1)[1].max() * 0.9).all()


def test_gp_without_target_data_is_the_prior_of_what_was_seen():
    x, y = _points(9, 3), torch.arange(9, dtype=torch.float64)
    model = _fitted(GP(), (x, torch.zeros(9, dtype=torch.int64), y))
    mean, sd = model.predict(_points(4, 7), 1)
    torch.testing.assert_close(mean, torch.full((4,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(sd, (math.sqrt(2) * y.std()).expand(4))


def test_an_unseen_feature_that_was_constant_brings_doubt_not_disaster():
    x, fidelities, y = _two_levels(_scaled_and_noisy, 20)
    constant = torch.cat([x, torch.full((len(x), 1), 1e6, dtype=torch.float64)], 1)
    model = _fitted(MultiFidelityGP(), (constant, fidelities, y))
    moved = constant.clone()
    moved[:, 2] += 1e5
    assert (model.predict(moved, 1)[1] > model.predict(constant, 1)[1].max()).all()


def test_misuse_is_named():
    x, fidelities, y = _two_levels(_scaled_and_noisy, 5)
    with pytest.raises(RuntimeError, match="fit"):
        MultiFidelityGP().predict(x, 0)
    with pytest.raises(ValueError, match=r"0\.\.0, got \[0, 1\]"):
        GP().fit(x, fidelities, y, 1, 0)
    with pytest.raises(ValueError, match=r"features \(n, d\)"):
        GP().fit(x[:-1], fidelities, y, 2, 0)
    with pytest.raises(ValueError, match="at least one feature"):
        GP().fit(x[:, :0], fidelities, y, 2, 0)
    with pytest.raises(ValueError, match="finite features"):
        GP().fit(x / 0, fidelities, y, 2, 0)
    with pytest.raises(ValueError, match=r"features \(q, 2\)"):
        _fitted(GP(), (x, fidelities, y)).predict(x[:, :1], 0)


@pytest.mark.parametrize(
    "options",
    [{"n_starts": 0}, {"max_iterations": 0}, {"outlier_mads": 0.0}, {"outlier_mads": math.nan}],
)
def test_impossible_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MultiFidelityGP(**options)


def test_telling_rows_are_the_best_and_others_and_not_only_equal_ones():
    y = torch.cat([torch.full((100,), 2.0), torch.linspace(1.0, 0.0, 60)]).double()
    rows = telling_rows(y, 1.0, 32, 0)
    assert len(set(rows.tolist())) == 32
    best = [i for i in rows.tolist() if i >= 100][:12]
    assert best == list(range(100, 112))  # 4 of the equal ones, 12 others of the best
    lowest = telling_rows(-y, -1.0, 32, 0)
    assert torch.equal(rows, lowest)
    assert len(telling_rows(torch.zeros(50), 1.0, 32, 0)) == 32

import math

import pytest
import torch
from torch import Tensor

from surrogate.fitting import _closure, _screening_rows, fit_prior, negative_log_likelihood
from surrogate.kernels import JointPrior, bounds_of, stable_cholesky
from surrogate.matern import matern
from surrogate.posterior import Observations, Posterior, observation_covariance, one_hot


def _prior(m: int = 3, d: int = 4, seed: int = 0) -> JointPrior:
    prior = JointPrior(d, m, is_correlated=True)
    prior.randomise(torch.Generator().manual_seed(seed))
    return prior


def _observations(n: int = 12, m: int = 3, d: int = 4) -> Observations:
    generator = torch.Generator().manual_seed(n)
    x = torch.rand(n, d, generator=generator, dtype=torch.float64)
    y = torch.randn(n, generator=generator, dtype=torch.float64)
    return Observations(
        x, torch.arange(n) % m, y, torch.rand(n, dtype=torch.float64, generator=generator)
    )


def _observation_covariance(prior: JointPrior, seen: Observations) -> Tensor:
    of = one_hot(seen.fidelities, prior.n_fidelities)
    return observation_covariance(prior, prior.compare(seen.x, seen.x), seen, of)


def _matern(x_a: Tensor, x_b: Tensor, lengthscale: Tensor) -> Tensor:
    r = math.sqrt(5) * ((x_a[:, None] - x_b[None]) / lengthscale).square().sum(-1).sqrt()
    return (1 + r + r**2 / 3) * torch.exp(-r)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_correlations(m, seed):
    prior = _prior(m, seed=seed)
    correlation = prior.correlation().detach()
    torch.testing.assert_close(correlation.diagonal(), torch.ones(m, dtype=torch.float64))
    torch.testing.assert_close(correlation, correlation.T)
    assert torch.linalg.eigvalsh(correlation).min() > 0


def test_every_correlation_can_be_reached_and_the_first_partial_is_the_targets():
    prior = _prior(2)
    for value in (-0.99, 0.0, 0.72):
        prior.signals.partials.data.fill_(math.atanh(value))
        assert float(prior.correlation()[0, 1].detach()) == pytest.approx(value)


def test_covariance_is_the_hand_written_formula():
    prior, seen = _prior(), _observations()
    i, signal = seen.fidelities, prior.signals.log_signal.exp()
    target, rest = (
        _matern(seen.x, seen.x, kernel.continuous.lengthscale)
        for kernel in (prior.target_kernel, prior.discrepancy_kernel)
    )
    with_target = prior.correlation()[i, -1]
    both = with_target[:, None] * with_target[None]
    expected = target * both + rest * (prior.correlation()[i][:, i] - both)
    expected = expected * signal[i, None] * signal[None, i] + (i[:, None] == i[None]).double()
    expected = expected + torch.diag(prior.log_noise.exp()[i] + seen.extra_noise)
    torch.testing.assert_close(_observation_covariance(prior, seen), expected)


def test_matern_agrees_with_gpytorch():
    kernel = JointPrior(4, 1, is_correlated=False).target_kernel.continuous
    x, other = _observations(7).x, _observations(5).x
    torch.testing.assert_close(matern(x, other, kernel.lengthscale), kernel(x, other).to_dense())
    torch.testing.assert_close(matern(x, x, kernel.lengthscale), kernel(x, x).to_dense())


def test_posterior_is_the_conditional_of_the_joint_gaussian():
    prior, seen = _prior(), _observations()
    query, fidelities = _observations(9).x + 0.1, torch.arange(9) % 3
    of_seen, of_query = one_hot(seen.fidelities, 3), one_hot(fidelities, 3)
    with torch.no_grad():
        k_ss = _observation_covariance(prior, seen)
        k_qs = prior.covariance(query, of_query, seen.x, of_seen)
        k_qq = prior.covariance(query, of_query, query, of_query)
    mean = k_qs @ torch.linalg.inv(k_ss) @ seen.y
    covariance = k_qq - k_qs @ torch.linalg.inv(k_ss) @ k_qs.T
    posterior = Posterior(prior, seen)
    torch.testing.assert_close(posterior.covariance(query, of_query, query, of_query), covariance)
    for j in range(3):
        got_mean, got_variance = posterior.predict(query, j)
        torch.testing.assert_close(got_mean[fidelities == j], mean[fidelities == j])
        torch.testing.assert_close(
            got_variance[fidelities == j], covariance.diagonal()[fidelities == j]
        )


def test_posterior_of_nothing_is_the_prior():
    prior, query = _prior(), _observations(5).x
    posterior = Posterior(prior, _observations(0))
    mean, variance = posterior.predict(query, 1)
    assert torch.equal(mean, torch.zeros(5, dtype=torch.float64))
    expected = sum(prior.signal_covariances()).detach() + torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(variance, expected[1, 1].expand(5))
    torch.testing.assert_close(posterior.fidelity_covariance(query), expected.expand(5, 3, 3))


def test_likelihood_and_its_slope_agree_with_torch():
    prior, seen = _prior(), _observations()
    covariance = _observation_covariance(prior, seen).detach()
    covariance.requires_grad_()
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(12, dtype=torch.float64), covariance
    )
    expected = -normal.log_prob(seen.y) / 12
    loss, slope = negative_log_likelihood(covariance.detach(), seen.y)
    assert float(loss) == pytest.approx(float(expected.detach()))
    expected.backward()
    torch.testing.assert_close(slope, (covariance.grad + covariance.grad.T) / 2)


def test_every_free_parameter_gets_its_true_gradient():
    prior, seen = _prior(), _observations()
    free = dict(prior.named_parameters())
    assert all(low < high for low, high in map(bounds_of, free))
    evaluate = _closure(prior, list(free.values()), seen)
    gradients = [gradient.clone() for gradient in evaluate()[1]]
    for parameter, gradient in zip(free.values(), gradients, strict=True):
        assert (gradient != 0).all()
        entry, step = parameter.data.view(-1), 1e-5
        entry[0] += step
        above = float(evaluate()[0])
        entry[0] -= 2 * step
        below = float(evaluate()[0])
        entry[0] += step
        assert float(gradient.view(-1)[0]) == pytest.approx((above - below) / (2 * step), rel=1e-4)


def test_independent_fidelities_stay_so():
    prior = JointPrior(4, 3, is_correlated=False)
    fit_prior(prior, _observations(), n_starts=2, max_iterations=20, seed=0)
    correlation = prior.correlation().detach()
    assert torch.equal(correlation - torch.diag(correlation.diagonal()), torch.zeros(3, 3).double())
    torch.testing.assert_close(correlation.diagonal(), torch.ones(3, dtype=torch.float64))


def test_another_start_is_never_worse():
    one, four = (fit_prior(_prior(), _observations(40), n, 100, seed=0) for n in (1, 4))
    assert four >= one


def test_few_rows_are_all_screened_and_many_are_shared_between_fidelities():
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(_screening_rows(torch.zeros(256).long(), 2, generator), torch.arange(256))
    fidelities = torch.tensor([0] * 600 + [1] * 20)
    rows = _screening_rows(fidelities, 2, generator)
    assert torch.bincount(fidelities[rows]).tolist() == [128, 20]
    assert (rows.diff() > 0).all()


def test_a_fit_to_many_ends_on_all_of_them():
    seen = _observations(300)
    prior = JointPrior(4, 3, is_correlated=True)
    reached = fit_prior(prior, seen, n_starts=1, max_iterations=30, seed=0)
    loss = _closure(prior, list(prior.parameters()), seen)()[0]
    assert reached == pytest.approx(-float(loss))


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_cholesky_of_a_singular_matrix_gets_the_jitter_it_needs(size):
    flat = torch.ones(6, 6, dtype=torch.float64)
    flat[0, 0] -= 1e-9
    with pytest.warns(Warning, match="jitter"):
        factor = stable_cholesky(size * flat)
    torch.testing.assert_close(factor @ factor.T, size * flat, rtol=1e-4, atol=0)


@pytest.mark.parametrize("entry", [-1.0, math.nan])
def test_cholesky_of_nonsense_says_so(entry):
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[1, 1] = entry
    with pytest.raises(RuntimeError, match="positive definite"):
        stable_cholesky(matrix)

import pytest
import torch
from botorch.models.kernels import DownsamplingKernel, LinearTruncatedFidelityKernel
from torch import Tensor

from surrogate.fidelity_signals import Downsampling, LinearTruncated
from surrogate.fitting import fit_prior
from surrogate.gp import GP, MultiFidelityGP
from surrogate.kernels import JointPrior
from surrogate.posterior import Observations, one_hot

VALUES = [0.25, 0.5, 1.0]


def _rows(n: int = 12) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.arange(n) % 3


def _prior(kind) -> JointPrior:
    prior = JointPrior(2, 3, is_correlated=True, signals=kind(VALUES))
    prior.randomise(torch.Generator().manual_seed(1))
    return prior


def _with_values(x: Tensor, of: Tensor) -> Tensor:
    return torch.cat([x, torch.tensor(VALUES, dtype=torch.float64)[of, None]], 1)


def _without_levels(prior: JointPrior, x: Tensor, of: Tensor) -> Tensor:
    hot = one_hot(of, 3)
    return prior.covariance(x, hot, x, hot) - hot @ hot.T


def test_linear_truncated_is_botorchs_kernel():
    prior, (x, of) = _prior(LinearTruncated), _rows()
    bias = prior.signals.log_bias.exp()
    theirs = LinearTruncatedFidelityKernel(
        [2],
        dimension=3,
        covar_module_unbiased=prior.target_kernel.continuous,
        covar_module_biased=prior.discrepancy_kernel.continuous,
    ).double()
    theirs.power = prior.signals.log_power.detach().exp()
    s = _with_values(x, of)
    both = theirs(s, s).to_dense()
    plain = prior.target_kernel.continuous(x, x).to_dense()
    expected = (plain + bias * (both - plain)) * (2 * prior.signals.log_signal).exp()
    torch.testing.assert_close(_without_levels(prior, x, of), expected)


def test_downsampling_is_botorchs_kernel():
    prior, (x, of) = _prior(Downsampling), _rows()
    bias = prior.signals.log_bias.detach().exp()
    theirs = DownsamplingKernel().double()
    theirs.power, theirs.offset = prior.signals.log_power.detach().exp(), 1 / bias
    s = _with_values(x, of)[:, 2:]
    fidelity = bias * theirs(s, s).to_dense()
    plain = prior.target_kernel.continuous(x, x).to_dense()
    expected = plain * fidelity * (2 * prior.signals.log_signal).exp()
    torch.testing.assert_close(_without_levels(prior, x, of), expected)


@pytest.mark.parametrize("kind", [LinearTruncated, Downsampling])
def test_a_fit_moves_every_parameter_and_the_target_has_no_discrepancy(kind):
    prior, (x, of) = JointPrior(2, 3, True, signals=kind(VALUES)), _rows(30)
    before = {name: p.clone() for name, p in prior.signals.named_parameters()}
    y = torch.sin(5 * x).sum(1) + 0.3 * (2 - of) * torch.cos(9 * x[:, 0])
    fit_prior(prior, Observations(x, of, y, torch.zeros(30).double()), 1, 30, 0)
    for name, p in prior.signals.named_parameters():
        assert not torch.equal(p, before[name])
    assert torch.equal(prior.signal_covariances()[1][-1], torch.zeros(3).double())


def _levels(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.rand(45, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    of = torch.tensor([0] * 20 + [1] * 15 + [2] * 10)
    lack = 1 - torch.tensor(VALUES, dtype=torch.float64)[of]
    return x, of, scale * (torch.sin(5 * x).sum(1) + 0.3 * lack * torch.cos(9 * x[:, 0]))


@pytest.mark.parametrize("kind", ["linear_truncated", "downsampling"])
def test_cheap_data_improve_the_target(kind):
    x, of, y = _levels(scale=100.0)
    query = torch.rand(200, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    truth, errors = 100 * torch.sin(5 * query).sum(1), []
    for model in (GP(), MultiFidelityGP(fidelities=kind, fidelity_values=VALUES)):
        model.fit(x, of, y, 3, 0)
        errors.append(float((model.predict(query, 2)[0] - truth).square().mean()))
    assert errors[1] < 0.5 * errors[0]
    correlation = model.summary()["correlation_with_target"]
    assert correlation[0] < correlation[1] < correlation[2] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", [MultiFidelityGP, GP])
def test_given_noise_is_kept(kind):
    x, of, y = _levels(scale=100.0)
    model = kind(noise_sd=[30.0, 20.0, 10.0])
    model.fit(x, of, y, 3, 0)
    expected = torch.tensor([900.0, 400.0, 100.0], dtype=torch.float64)
    torch.testing.assert_close(model.noise_variance(), expected)
    assert model.summary()["noise"] == "given"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fidelities": "linear"}, "linear_truncated, downsampling, got 'linear'"),
        ({"fidelities": "linear_truncated"}, "rising numbers"),
        ({"fidelities": "downsampling", "fidelity_values": [0.5, 0.2, 1.0]}, "rising numbers"),
        ({"fidelities": "downsampling", "fidelity_values": [0.2, 0.5]}, "the target's 1"),
        ({"fidelity_values": [0.5, 1.0]}, "takes none"),
        ({"noise_sd": [-1.0]}, "noise_sd: expected finite numbers of 0 or more"),
    ],
)
def test_impossible_options(options, words):
    with pytest.raises(ValueError, match=words):
        MultiFidelityGP(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"noise_sd": [0.1]}, "noise_sd"),
        ({"fidelities": "downsampling", "fidelity_values": [0.5, 1.0]}, "fidelity_values"),
    ],
)
def test_one_entry_a_fidelity(options, name):
    with pytest.raises(ValueError, match=f"expected {name} for each of the 3 fidelities"):
        MultiFidelityGP(**options).fit(*_levels(), 3, 0)

import pytest
import torch
from torch import Tensor

from surrogate import ensemble_posterior
from surrogate.ensemble import Ensemble
from surrogate.ensemble_posterior import EnsemblePosterior, member_values, stretch_and_noise
from surrogate.members import Members, training
from surrogate.posterior import Observations, one_hot

SMALL = {"n_members": 4, "n_steps": 300, "batch_size": 64, "width": 32}


def _points(n: int, d: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _wave(x: Tensor) -> Tensor:
    return torch.sin(5 * x[:, 0]) + x[:, 1] ** 2


def _data(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the observations at a cheap fidelity, which is the target halved and shifted."""
    x, of = _points(n, seed=seed), torch.arange(n) % 2
    return x, of, _wave(x) * (1 + of) - 5.0 * of


def _members(k: int = 4, m: int = 2, seed: int = 0) -> Members:
    return Members(2, m, n_members=k, width=16, prior_scale=0.5, seed=seed)


def _run(members: Members, x: Tensor, y: Tensor, n_steps: int = 30) -> list[int]:
    settings = {"n_steps": n_steps, "batch_size": 16, "learning_rate": 1e-2}
    generator = torch.Generator().manual_seed(0)
    return list(training(members, x, y, torch.ones_like(y), generator=generator, **settings))


@pytest.fixture(scope="module")
def fitted() -> Ensemble:
    model = Ensemble(**SMALL)
    model.fit(*_data(200), 2, 0)
    return model


def test_training_moves_what_is_learned_and_leaves_the_opinions():
    members, x = _members(), _points(40, d=4)
    rows = x.expand(4, -1, -1)
    opinion, learned = members.opinion(rows), members.learned(rows).detach()
    assert _run(members, x, x.sum(1)) == list(range(1, 31))
    assert torch.equal(members.opinion(rows), opinion)
    assert not torch.allclose(members.learned(rows), learned)
    torch.testing.assert_close(members(rows), opinion + members.learned(rows))


def test_every_parameter_gets_a_gradient_and_no_member_another_s():
    members = _members()
    rows = _points(10, d=4).expand(4, -1, -1)
    members(rows)[0].sum().backward()
    for parameter in members.learning():
        assert parameter.grad is not None
        assert (parameter.grad[0] != 0).any()
        assert (parameter.grad[1:] == 0).all()
    assert all(p.grad is None for p in members.prior_weights)


def test_the_batched_layers_are_each_member_s_own():
    members = _members()
    x, k = _points(10, d=4), 2
    value = x
    for i, (weight, shift) in enumerate(zip(members.weights, members.shifts, strict=True)):
        value = value @ weight[k] + shift[k]
        value = torch.nn.functional.silu(value) if i < 2 else value
    torch.testing.assert_close(members.learned(x.expand(4, -1, -1))[k], value[:, 0])


def test_covariance_is_positive_definite_beyond_the_number_of_members():
    posterior = EnsemblePosterior(_members(k=3), 2.0)
    x, of = _points(60), one_hot(torch.arange(60) % 2, 2)
    covariance = posterior.covariance(x, of, x, of)
    torch.testing.assert_close(covariance, covariance.T)
    assert torch.linalg.eigvalsh(covariance).min() > 1e-6 * covariance.diagonal().mean()
    blocks = posterior.fidelity_covariance(x)
    assert (torch.linalg.eigvalsh(blocks) > 0).all()


def test_predict_is_the_members_mean_and_stretched_variance():
    members, x = _members(), _points(7)
    values = member_values(members, x, one_hot(torch.ones(7, dtype=torch.int64), 2))
    mean, variance = EnsemblePosterior(members, 3.0).predict(x, 1)
    torch.testing.assert_close(mean, values.mean(0))
    torch.testing.assert_close(variance, 3.0 * values.var(0), rtol=1e-6, atol=1e-7)


def test_chunks_change_nothing(monkeypatch, fitted):
    x = _points(50, seed=5)
    whole = fitted.predict(x, 1)
    monkeypatch.setattr(ensemble_posterior, "_CHUNK", 7)
    torch.testing.assert_close(fitted.predict(x, 1), whole)


@pytest.mark.parametrize(("stretch", "noise"), [(1.0, (0.1, 0.5)), (4.0, (1.0, 0.3))])
def test_stretch_and_the_variance_of_outcomes_at_each_fidelity_are_found(stretch, noise):
    # far and near points: a spread that is everywhere the same could as well be noise
    members = Members(2, 2, n_members=4, width=16, prior_scale=0.1, seed=0)
    x, of = 6 * _points(4000) - 3, torch.arange(4000) % 2
    values = member_values(members, x, one_hot(of, 2))
    variance = stretch * values.var(0) + torch.tensor(noise, dtype=torch.float64)[of]
    draws = torch.randn(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    judges = Observations(x, of, values.mean(0) + variance.sqrt() * draws, torch.zeros(4000))
    found, noises = stretch_and_noise(members, judges)
    assert found == pytest.approx(stretch, rel=0.25)
    told = found * values.var(0) + noises[of]
    for j in range(2):
        assert float(told[of == j].mean()) == pytest.approx(
            float(variance[of == j].mean()), rel=0.1
        )
    assert (noises[0] > noises[1]) == (noise[0] > noise[1])


def test_without_judges_stretch_and_noise_are_the_modes_of_their_priors():
    nothing = Observations(_points(0), torch.zeros(0).long(), _points(0)[:, 0], _points(0)[:, 0])
    stretch, noise = stretch_and_noise(_members(), nothing)
    assert stretch == pytest.approx(1.0)
    assert noise.log().tolist() == pytest.approx([-4.0, -4.0])


def test_it_learns_the_function(fitted):
    query = _points(300, seed=7)
    wanted = 2 * _wave(query) - 5
    mean, sd = fitted.predict(query, 1)
    assert float((mean - wanted).square().mean().sqrt()) < 0.1 * float(wanted.std())
    z = (mean - wanted).abs() / (sd.square() + fitted.noise_variance()[1]).sqrt()
    assert float((z < 2).double().mean()) > 0.85


def test_far_from_all_data_it_is_in_doubt(fitted):
    near = fitted.predict(_points(100, seed=8), 1)[1]
    far = fitted.predict(_points(100, seed=8) + 2.0, 1)[1]
    assert float(far.median()) > 10 * float(near.median())


def test_a_good_cheap_fidelity_is_believed_and_a_misleading_one_is_not(fitted):
    x, of, y = _data(200)
    other = torch.where(of == 0, torch.cos(9 * x[:, 1] + 2), y)
    misled = Ensemble(**SMALL)
    misled.fit(x, of, other, 2, 0)
    assert fitted.summary()["correlation_with_target"][0] > 0.9
    assert abs(misled.summary()["correlation_with_target"][0]) < 0.6


def test_noise_is_learned_fidelity_by_fidelity():
    x, of, y = _data(400)
    noise = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = Ensemble(**SMALL)
    model.fit(x, of, y + torch.where(of == 0, 0.5 * noise, 0.0), 2, 0)
    low, high = model.noise_variance().sqrt().tolist()
    assert low == pytest.approx(0.5, rel=0.5)
    assert high < low


def test_ten_thousand_points():
    model = Ensemble(**SMALL)
    model.fit(*_data(10_000), 2, 0)
    query = _points(300, seed=7)
    wanted = 2 * _wave(query) - 5
    error = float((model.predict(query, 1)[0] - wanted).square().mean().sqrt())
    assert error < 0.1 * float(wanted.std())
    assert model.summary()["n_observations"] == [5000, 5000]


@pytest.mark.parametrize("name", ["n_members", "n_steps", "batch_size", "width", "prior_scale"])
def test_impossible_options(name):
    with pytest.raises(ValueError, match=f"{name} .*got 0"):
        Ensemble(**{name: 0})


def test_misuse_is_named(fitted):
    with pytest.raises(RuntimeError, match="fit"):
        Ensemble().predict(_points(2), 0)
    with pytest.raises(ValueError, match=r"features \(q, 2\)"):
        fitted.predict(_points(3, d=1), 0)
    with pytest.raises(ValueError, match="outlier_mads"):
        Ensemble(outlier_mads=0.0)

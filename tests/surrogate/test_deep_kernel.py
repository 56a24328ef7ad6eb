import json

import pytest
import torch
from torch import Tensor

from surrogate.deep_kernel import DeepKernel
from surrogate.deep_training import _surprise, train
from surrogate.kernels import JointPrior
from surrogate.posterior import Observations
from surrogate.warp import Warp


def _points(n: int, d: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _ridge(x: Tensor) -> Tensor:
    """A wave along a diagonal: no lengthscale for each feature says which."""
    return torch.sin(3 * (x[:, ::2].sum(1) - x[:, 1::2].sum(1)))


def _data(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the observations at a cheap fidelity, which is the target halved and shifted."""
    x, of = _points(n, seed=seed), torch.arange(n) % 2
    return x, of, _ridge(x) * (1 + of) - 5.0 * of


def _fitted(n: int = 300, seed: int = 0, **options: int) -> DeepKernel:
    model = DeepKernel(**options)
    model.fit(*_data(n), 2, seed)
    return model


def _rmse(model: DeepKernel) -> float:
    query = _points(500, seed=7)
    wanted = 2 * _ridge(query) - 5
    return float((model.predict(query, 1)[0] - wanted).square().mean().sqrt() / wanted.std())


@pytest.fixture(scope="module")
def trained() -> DeepKernel:
    return _fitted(n_inducing=128, n_steps=100, batch_size=128)


def test_a_warp_beats_none_along_a_diagonal(trained):
    plain = _fitted(n_inducing=128, n_steps=0)
    assert plain.summary()["warp_bends"] == [0.0, 0.0]
    assert trained.summary()["warp_trained_steps"] > 0
    assert _rmse(trained) < 0.8 * _rmse(plain)


def test_it_learns_the_function_and_its_own_doubt(trained):
    query = _points(500, seed=7)
    mean, sd = trained.predict(query, 1)
    assert _rmse(trained) < 0.15
    deviation = (sd.square() + trained.noise_variance()[1]).sqrt()
    z = (mean - (2 * _ridge(query) - 5)).abs() / deviation
    assert 0.85 < float((z < 2).double().mean()) <= 1.0


def test_a_good_cheap_fidelity_is_believed_in_prior_and_posterior(trained):
    assert trained.summary()["correlation_with_target"][0] > 0.8
    covariance = trained.fidelity_covariance(_points(50, seed=8) + 2.0)
    sd = covariance.diagonal(dim1=1, dim2=2).sqrt()
    assert (covariance[:, 0, 1] / sd.prod(1) > 0.3).all()


def test_far_from_all_data_it_is_in_doubt(trained):
    near = trained.predict(_points(100, seed=8), 1)[1]
    far = trained.predict(_points(100, seed=8) + 3.0, 1)[1]
    assert float(far.min()) > 5 * float(near.median())


def test_noise_is_learned_fidelity_by_fidelity():
    # each point twice: otherwise noise could as well be a process with short lengthscales
    x, of, y = (torch.cat([part, part]) for part in _data(100))
    noise = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = DeepKernel(n_inducing=128, n_steps=30, batch_size=128)
    model.fit(x, of, y + torch.where(of == 0, 0.5 * noise, 0.0), 2, 0)
    low, high = model.noise_variance().sqrt().tolist()
    assert low == pytest.approx(0.5, rel=0.4)
    assert high < 0.25


def test_training_never_makes_the_judges_less_content():
    x, of, y = _data(200)
    noise = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen = Observations(x, of, noise, torch.zeros_like(y))  # nothing to learn: all is overfitting
    prior, warp = JointPrior(4, 2, is_correlated=True), Warp(4, 2, 16, 0.9, 0)
    judged: list[float] = []
    original = _surprise

    def listening(*arguments: object) -> float:
        judged.append(original(*arguments))  # type: ignore[arg-type]
        return judged[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("surrogate.deep_training._surprise", listening)
        kept = train(prior, warp, seen, 40, 64, torch.Generator().manual_seed(0))
    assert len(judged) == 11
    assert kept == 4 * judged.index(min(judged))


def test_few_observations_leave_the_features_as_they_are():
    model = _fitted(n=40)
    assert model.summary()["warp_trained_steps"] == 0
    assert model.summary()["n_inducing"] == 40


def test_ten_thousand_points():
    model = _fitted(n=10_000, n_inducing=64, n_steps=10, batch_size=64)
    assert _rmse(model) < 0.6
    assert model.summary()["n_observations"] == [5000, 5000]
    assert model.summary()["n_inducing"] == 64


def test_a_rare_target_is_learned():
    x, _, _ = _data(300)
    of = (torch.arange(300) >= 270).long()
    model = DeepKernel(n_inducing=128, n_steps=20, batch_size=128)
    model.fit(x, of, _ridge(x) * (1 + of) - 5.0 * of, 2, 0)
    assert _rmse(model) < 0.4


def test_the_seed_decides():
    one, same, other = (_fitted(100, seed, n_inducing=50, n_steps=10) for seed in (1, 1, 2))
    query = _points(20, seed=8)
    assert torch.equal(one.predict(query, 1)[0], same.predict(query, 1)[0])
    assert json.dumps(one.summary()) == json.dumps(same.summary())
    assert not torch.equal(one.predict(query, 1)[0], other.predict(query, 1)[0])


@pytest.mark.parametrize("name", ["n_inducing", "n_steps", "batch_size", "n_blocks", "width"])
def test_impossible_options(name):
    with pytest.raises(ValueError, match=f"{name} of . or more, got -1"):
        DeepKernel(**{name: -1})


def test_misuse_is_named(trained):
    with pytest.raises(RuntimeError, match="fit"):
        DeepKernel().predict(_points(2), 0)
    with pytest.raises(ValueError, match=r"features \(q, 4\)"):
        trained.predict(_points(3, d=1), 0)
    with pytest.raises(ValueError, match="outlier_mads"):
        DeepKernel(outlier_mads=-1.0)


def test_words_are_not_warped_and_far_more_of_them_than_inducing_points_are_learned():
    letters = torch.randint(4, (160, 8), generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.one_hot(letters, 4).flatten(1).double()
    y = (letters == 2).double().mean(1) + (letters[:, :-1] == 1).double().mean(1)
    model = DeepKernel(n_inducing=20)
    model.feature_blocks = (("letter", 4),) * 8
    model.fit(x[:120], torch.zeros(120, dtype=torch.int64), y[:120], 1, 0)
    summary = model.summary()
    assert summary["n_inducing"] == 120
    assert summary["warp_trained_steps"] == 0
    assert "gapped motifs" in summary["model"]
    error = (model.predict(x[120:], 0)[0] - y[120:]).square().mean()
    assert error < 0.5 * y[120:].var()

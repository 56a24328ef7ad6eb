import pytest
import torch
from torch import Tensor

from surrogate import sparse
from surrogate.kernels import JointPrior
from surrogate.posterior import Observations, Posterior, one_hot
from surrogate.sparse import SparsePosterior, choose_extreme, choose_inducing


def _seen(n: int = 60, d: int = 2, m: int = 2, seed: int = 0) -> Observations:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, d, generator=generator, dtype=torch.float64)
    of = torch.arange(n) % m
    y = torch.sin(4 * x).sum(1) - 0.3 * of
    return Observations(x, of, y, 0.01 * (torch.arange(n) % 5 == 0).double())


def _prior(d: int = 2, m: int = 2) -> JointPrior:
    return JointPrior(d, m, is_correlated=True)


def _query(q: int = 15, d: int = 2) -> Tensor:
    return torch.rand(q, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def _error(prior: JointPrior, seen: Observations, k: int) -> float:
    exact = Posterior(prior, seen).predict(_query(), 1)[0]
    few = SparsePosterior(prior, seen, choose_inducing(prior, seen, k)).predict(_query(), 1)[0]
    return float((few - exact).abs().max())


def test_with_every_observation_inducing_it_is_the_exact_posterior():
    prior, seen = _prior(), _seen()
    exact, through = Posterior(prior, seen), SparsePosterior(prior, seen, torch.arange(60))
    close = {"rtol": 1e-5, "atol": 1e-6}
    x, of = _query(), one_hot(torch.arange(15) % 2, 2)
    for fidelity in (0, 1):
        for a, b in zip(exact.predict(x, fidelity), through.predict(x, fidelity), strict=True):
            torch.testing.assert_close(a, b, **close)
    torch.testing.assert_close(
        exact.fidelity_covariance(x), through.fidelity_covariance(x), **close
    )
    torch.testing.assert_close(
        exact.covariance(x, of, x, of), through.covariance(x, of, x, of), **close
    )


def test_more_inducing_points_come_closer():
    prior, seen = _prior(), _seen(200)
    errors = [_error(prior, seen, k) for k in (5, 20, 100)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_chunks_change_nothing(monkeypatch):
    prior, seen = _prior(), _seen()
    inducing = choose_inducing(prior, seen, 20)
    whole = SparsePosterior(prior, seen, inducing).predict(_query(), 1)
    monkeypatch.setattr(sparse, "_CHUNK", 7)
    torch.testing.assert_close(SparsePosterior(prior, seen, inducing).predict(_query(), 1), whole)


def test_covariance_stays_positive_and_below_the_prior():
    prior, seen = _prior(), _seen(200)
    posterior = SparsePosterior(prior, seen, choose_inducing(prior, seen, 12))
    x, of = _query(40), one_hot(torch.arange(40) % 2, 2)
    with torch.no_grad():
        before = prior.covariance(x, of, x, of)
    after = posterior.covariance(x, of, x, of)
    assert torch.linalg.eigvalsh(after).min() > -1e-9
    assert torch.linalg.eigvalsh(before - after).min() > -1e-9


def test_inducing_points_are_different_and_leave_least_variance_greedily():
    prior, seen = _prior(), _seen(200)
    chosen = choose_inducing(prior, seen, 30)
    assert len(set(chosen.tolist())) == 30
    assert torch.equal(choose_inducing(prior, seen, 10), chosen[:10])
    of = one_hot(seen.fidelities, 2)
    with torch.no_grad():
        full = prior.covariance(seen.x, of, seen.x, of)
    some = chosen[:10]
    left = full - full[:, some] @ torch.linalg.solve(full[some][:, some], full[some])
    assert int(chosen[10]) == int(left.diagonal().argmax())


def test_duplicates_need_no_inducing_points_of_their_own():
    prior, seen = _prior(), _seen(12)
    assert len(choose_inducing(prior, seen.rows(torch.arange(12).repeat(5)), 50)) == 12


@pytest.mark.parametrize("k", [1, 5])
def test_a_handful_of_inducing_points_is_survived(k):
    prior, seen = _prior(), _seen()
    mean, variance = SparsePosterior(prior, seen, choose_inducing(prior, seen, k)).predict(
        _query(), 1
    )
    assert mean.isfinite().all()
    assert (variance > 0).all()


def test_extreme_outcomes_of_either_side_are_chosen_and_others_of_every_fidelity():
    seen = _seen(300)
    y = seen.y.clone()
    y[[3, 10, 41]] = torch.tensor([9.0, -9.0, 8.0], dtype=torch.float64)
    spiked = Observations(seen.x, seen.fidelities, y, seen.extra_noise)
    chosen = choose_extreme(spiked, 2, 96, torch.Generator().manual_seed(0))
    assert len(chosen.unique()) == 96
    assert {3, 10, 41} <= set(chosen.tolist())
    assert set(seen.fidelities[chosen].tolist()) == {0, 1}
    again = choose_extreme(spiked, 2, 96, torch.Generator().manual_seed(0))
    assert torch.equal(again, chosen)

import pytest
import torch
from torch import Tensor

from surrogate.gp import MultiFidelityGP
from surrogate.pending import WithPending
from surrogate.posterior import Observations, Posterior
from surrogate.standardised import Standardised
from tests.surrogate.canned import single


def _uniform(n: int, seed: int) -> Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _data() -> tuple[Tensor, Tensor, Tensor]:
    x, of = _uniform(21, seed=0), torch.arange(21) % 3
    return x, of, 40 * torch.sin(5 * x).sum(1) * (1 + of) - 7


@pytest.fixture(scope="module")
def fitted() -> MultiFidelityGP:
    surrogate = MultiFidelityGP(n_starts=1, max_iterations=30)
    surrogate.fit(*_data(), 3, 0)
    return surrogate


def _pending(n: int) -> tuple[Tensor, Tensor]:
    return _uniform(n, seed=8), (torch.arange(n) * 2) % 3


class _Believed(Standardised):
    """The fitted GP's prior, given the believed values as observations."""

    def __init__(self, model: MultiFidelityGP, x: Tensor, of: Tensor) -> None:
        self.__dict__.update(model.__dict__)
        seen_x, seen_of, seen_y = _data()
        believed = torch.stack(
            [model.predict(x[i : i + 1], int(of[i]))[0][0] for i in range(len(x))]
        )
        all_of, all_y = torch.cat([seen_of, of]), torch.cat([seen_y, believed])
        seen = Observations(
            self._in_cube(torch.cat([seen_x, x])),
            all_of,
            self._outcomes.standardise(all_y, all_of),
            torch.zeros_like(all_y),
        )
        self._posterior = Posterior(model._prior, seen)

    def _learn(self, seen, n_fidelities, seed):
        raise AssertionError("not fitted again")

    def summary(self):
        return {}


def test_equals_an_exact_gp_that_was_told_the_believed_values(fitted):
    pending, query, of = _pending(9), _uniform(30, seed=5), torch.arange(30) % 3
    ours, exact = WithPending(fitted, *pending), _Believed(fitted, *pending)
    for fidelity in range(3):
        found, expected = ours.predict(query, fidelity), exact.predict(query, fidelity)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        ours.covariance(query, of, query.flip(0), of),
        exact.covariance(query, of, query.flip(0), of),
        rtol=1e-6,
        atol=1e-6,
    )
    torch.testing.assert_close(
        ours.fidelity_covariance(query), exact.fidelity_covariance(query), rtol=1e-6, atol=1e-6
    )


def test_means_stay_and_no_variance_grows(fitted):
    query = _uniform(50, seed=5)
    few, many = (WithPending(fitted, *(t[:n] for t in _pending(30))) for n in (4, 30))
    for fidelity in range(3):
        mean, sd = fitted.predict(query, fidelity)
        assert torch.equal(few.predict(query, fidelity)[0], mean)
        sd_few, sd_many = (model.predict(query, fidelity)[1] for model in (few, many))
        assert (sd_few <= sd).all()
        assert (sd_many <= sd_few + 1e-12).all()
        assert (sd_many < sd).any()


def test_nothing_pending_is_the_model_itself(fitted):
    query, of = _uniform(8, seed=5), torch.arange(8) % 3
    ours = WithPending(fitted, query[:0], of[:0])
    torch.testing.assert_close(ours.predict(query, 1), fitted.predict(query, 1))
    torch.testing.assert_close(
        ours.covariance(query, of, query, of), fitted.covariance(query, of, query, of)
    )
    torch.testing.assert_close(ours.fidelity_covariance(query), fitted.fidelity_covariance(query))


def test_of_a_hand_computed_value():
    # variance 4 and noise 5: 4 - 16 / 9 is left; asked twice: 4 - 16 / (4 + 5 / 2)
    canned = single([1.0, 3.0], [2.0, 3.0], noise=5.0)
    for times, left in ((1, 4 - 16 / 9), (2, 4 - 16 / 6.5)):
        row, of = torch.zeros(times, 1).double(), torch.zeros(times, dtype=torch.int64)
        mean, sd = WithPending(canned, row, of).predict(canned.features, 0)
        torch.testing.assert_close(mean, torch.tensor([1.0, 3.0]).double())
        torch.testing.assert_close(sd.square(), torch.tensor([left, 9.0]).double())


def test_hundreds_of_pending_queries_and_duplicates_are_stable(fitted):
    x, of = _pending(150)
    ours = WithPending(fitted, torch.cat([x, x]), torch.cat([of, of]))
    query, fidelities = torch.cat([x[:40], _uniform(20, seed=5)]), torch.arange(60) % 3
    for fidelity in range(3):
        sd = ours.predict(query, fidelity)[1]
        assert sd.isfinite().all()
        assert (sd > 0).all()
    covariance = ours.covariance(query, fidelities, query, fidelities)
    torch.testing.assert_close(covariance, covariance.T)
    smallest = torch.linalg.eigvalsh(covariance).min()
    assert smallest > -1e-6 * fitted.covariance(query, fidelities, query, fidelities).max()
    between = ours.fidelity_covariance(query)
    assert (between.diagonal(dim1=1, dim2=2) > 0).all()
    sds = torch.stack([ours.predict(query, fidelity)[1] for fidelity in range(3)], 1)
    torch.testing.assert_close(between.diagonal(dim1=1, dim2=2), sds**2, rtol=1e-4, atol=1e-6)


def test_exact_duplicates_without_noise_leave_a_positive_variance():
    canned = single([1.0, 2.0], [2.0, 1.0])
    twice, of = torch.zeros(2, 1).double(), torch.zeros(2, dtype=torch.int64)
    sd = WithPending(canned, twice, of).predict(canned.features, 0)[1]
    assert 0 < sd[0] < 1e-3
    assert float(sd[1]) == 1.0


def test_more_queries_than_a_chunk_agree_with_few(fitted, monkeypatch):
    ours, query = WithPending(fitted, *_pending(5)), _uniform(20, seed=5)
    together = ours.predict(query, 2)[1], ours.fidelity_covariance(query)
    monkeypatch.setattr("surrogate.pending._CHUNK", 6)
    torch.testing.assert_close(
        (ours.predict(query, 2)[1], ours.fidelity_covariance(query)), together
    )


def test_fitting_again_keeps_the_pending_queries():
    model = MultiFidelityGP(n_starts=1, max_iterations=5)
    x, of, y = _data()
    model.fit(x[:9], of[:9], y[:9], 3, 0)
    ours = WithPending(model, *_pending(6))
    ours.fit(x, of, y, 3, 0)
    fresh = WithPending(model, *_pending(6))
    query = _uniform(8, seed=5)
    assert torch.equal(ours.predict(query, 2)[1], fresh.predict(query, 2)[1])
    assert ours.summary()["n_pending"] == 6
    assert ours.state() == model.state()
    assert torch.equal(ours.noise_variance(), model.noise_variance())


def test_misfits_are_named(fitted):
    x, of = _pending(4)
    with pytest.raises(ValueError, match="expected pending features"):
        WithPending(fitted, x, of[:3])
    with pytest.raises(ValueError, match=r"0\.\.2"):
        WithPending(fitted, x, of + 3)

import math

import pytest
import torch
from torch import Tensor

from surrogate.gp import MultiFidelityGP
from surrogate.thompson import SamplePath, ThompsonSampling
from tests.surrogate.canned import Canned, single


def _uniform(n: int, seed: int, d: int = 2) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def fitted() -> MultiFidelityGP:
    x, of = _uniform(16, seed=0), torch.arange(16) % 2
    surrogate = MultiFidelityGP(n_starts=1, max_iterations=30)
    surrogate.fit(x, of, torch.sin(5 * x).sum(1) + 0.1 * of, 2, 0)
    return surrogate


def _at_target(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.int64)


N_PATHS, N_NODES = 500, 12


class _Plain(Canned):
    """A process of variance 4 whose correlation falls with the distance; nothing observed."""

    def __init__(self) -> None:
        self.n_fidelities = 2

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(features)).double(), torch.full((len(features),), 2.0).double()

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        assert (fidelities_a == 1).all()
        assert (fidelities_b == 1).all()
        return 4 * torch.exp(-torch.cdist(features_a, features_b) / 0.5)


@pytest.fixture(scope="module")
def drawn() -> tuple[Tensor, Tensor]:
    """Nodes and other candidates, and deviations of many paths there over the sd."""
    plain, both = _Plain(), torch.cat([_uniform(N_NODES, seed=1), _uniform(10, seed=2)])
    _, sd = plain.predict(both, 1)
    paths = [SamplePath(plain, both[:N_NODES], seed).deviation(both, sd) for seed in range(N_PATHS)]
    return both, torch.stack(paths) / sd


def test_each_candidate_has_the_posteriors_mean_and_variance(drawn):
    # of 22 candidates none is beyond 4.5 standard errors
    assert drawn[1].mean(0).abs().max() < 4.5 / math.sqrt(N_PATHS)
    assert (drawn[1].var(0) - 1).abs().max() < 4.5 * math.sqrt(2 / N_PATHS)


def test_correlations_with_the_nodes_are_the_posteriors(drawn):
    both, paths = drawn
    nodes = both[:N_NODES]
    expected = _Plain().covariance(nodes, _at_target(nodes), both, _at_target(both)) / 4
    found = paths[:, :N_NODES].T @ paths / N_PATHS
    assert (expected[:, N_NODES:] > 0.5).any()
    torch.testing.assert_close(found, expected, rtol=0, atol=4.5 * math.sqrt(2 / N_PATHS))


def test_a_path_is_smooth_where_the_nodes_leave_doubt(fitted):
    _, sd = fitted.predict(near := _uniform(20, seed=3), 1)
    path = SamplePath(fitted, _uniform(12, seed=1), seed=0)
    step = path.deviation(near + 1e-6, sd) - path.deviation(near, sd)
    assert step.abs().max() < 1e-3 * sd.max()


def test_an_observed_value_is_not_doubted():
    x = _uniform(16, seed=0)
    surrogate = MultiFidelityGP(n_starts=1, max_iterations=30)
    surrogate.fit(x, _at_target(x) - 1, torch.sin(5 * x).sum(1), 1, 0)
    mean, sd = surrogate.predict(x, 0)
    deviation = SamplePath(surrogate, _uniform(40, seed=1), seed=5).deviation(x, sd)
    assert (deviation.abs() < 5 * sd).all()
    assert deviation.abs().max() < 0.1 * mean.std()


def _gain(surrogate, query: Tensor, reference: Tensor, seed: int) -> Tensor:
    acquisition = ThompsonSampling()
    acquisition.prepare(
        surrogate, sign=1.0, best=1.0, reference_features=reference, seed=seed, kth_best=0.5
    )
    return acquisition.target_log_gain(query)


def test_another_seed_is_another_path(fitted):
    query, reference = _uniform(50, seed=4), _uniform(300, seed=5)
    first, again, other = (_gain(fitted, query, reference, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first.argsort(), other.argsort())


def test_the_gain_ranks_as_the_path_does_whichever_way_is_better():
    canned = single([0.0, 0.3, -0.2, 5.0, -5.0], [1.0, 0.5, 2.0, 1e-9, 1e-9])
    for sign, best_known, worst_known in ((1.0, 3, 4), (-1.0, 4, 3)):
        acquisition = ThompsonSampling()
        acquisition.prepare(
            canned, sign=sign, best=sign * 9, reference_features=canned.features, seed=0
        )
        order = acquisition.target_log_gain(canned.features).argsort()
        assert (order[-1], order[0]) == (best_known, worst_known)


def test_any_reference_will_do(fitted):
    query = _uniform(5, seed=4)
    for reference in (query[:1], query[:1].expand(40, -1), _uniform(700, seed=6)):
        assert _gain(fitted, query, reference, seed=0).isfinite().all()

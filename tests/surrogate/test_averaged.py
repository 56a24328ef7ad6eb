"""The even mixture of two models: its moments are those of a mixture."""

import math

import pytest
import torch

from surrogate.averaged import Averaged
from surrogate.gp import GP
from surrogate.improvement import LogExpectedImprovement
from surrogate.log_normal import log_expected_improvement

WORDS = (("letter", 4),) * 6


def _data(n: int = 30, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(4, (n, 6), generator=generator)
    values = (words[:, :3] == 0).double().sum(1) + (words[:, 4] == 2).double()
    features = torch.nn.functional.one_hot(words, 4).flatten(1).double()
    return features, torch.zeros(n, dtype=torch.long), values


def _fitted() -> tuple[Averaged, GP, GP]:
    first = GP(n_starts=1, max_iterations=10)
    second = GP(n_starts=1, max_iterations=10, is_of_motifs=True)
    both = Averaged(first, second)
    both.feature_blocks, both.sign = WORDS, 1.0
    both.fit(*_data(), 1, 0)
    return both, first, second


def test_moments_are_those_of_draws_from_either():
    both, *models = _fitted()
    x = _data(4, seed=1)[0]
    zeros = torch.zeros(4, dtype=torch.long)
    generator = torch.Generator().manual_seed(2)
    draws = []
    for model in models:
        mean, _ = model.predict(x, 0)
        factor = torch.linalg.cholesky(model.covariance(x, zeros, x, zeros))
        noise = torch.randn(100_000, 4, generator=generator, dtype=torch.float64)
        draws.append(mean + noise @ factor.T)
    drawn = torch.cat(draws)
    mean, sd = both.predict(x, 0)
    torch.testing.assert_close(mean, drawn.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(sd, drawn.std(0), atol=0.02, rtol=0)
    torch.testing.assert_close(both.fidelity_covariance(x)[:, 0, 0], sd.square())
    within = (draws[0].T.cov() + draws[1].T.cov()) / 2
    torch.testing.assert_close(both.covariance(x, zeros, x, zeros), within, atol=0.02, rtol=0)


def test_disagreement_is_doubt():
    both, first, second = _fitted()
    x = _data(50, seed=1)[0]
    apart = (first.predict(x, 0)[0] - second.predict(x, 0)[0]).abs()
    assert float(apart.max()) > 0.05
    assert bool((both.predict(x, 0)[1] >= apart / 2).all())


class _Sure(GP):
    """Says the same of all candidates."""

    n_fidelities = 1

    def __init__(self, mean: float, sd: float) -> None:
        super().__init__()
        self.told = mean, sd

    def predict(self, features, fidelity):
        mean, sd = torch.tensor(self.told, dtype=torch.float64)[:, None].expand(2, len(features))
        return mean, sd

    def noise_variance(self):
        return torch.full((1,), 1e-4, dtype=torch.float64)


def test_where_both_are_sure_of_no_gain_their_disagreement_promises_none():
    both, x = Averaged(_Sure(0.75, 0.02), _Sure(0.3, 0.02)), torch.zeros(3, 1).double()
    both.n_fidelities = 1
    assert float(both.predict(x, 0)[1].min()) > 0.2
    acquisition = LogExpectedImprovement()
    acquisition.prepare(both, sign=1.0, best=0.85, reference_features=x, seed=0)
    of_first = math.log(0.02) + log_expected_improvement(torch.tensor([-5.0]).double())
    torch.testing.assert_close(
        acquisition.target_log_gain(x), (of_first - math.log(2)).expand(3), rtol=1e-6, atol=1e-6
    )


def test_a_motif_that_was_seen_in_one_place_alone_is_expected_in_every_other():
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(2, (60, 6), generator=generator)
    has_motif = torch.arange(60) % 2 == 0
    words[has_motif, :2] = torch.tensor([2, 3])
    features = torch.nn.functional.one_hot(words, 4).flatten(1).double()
    moved = torch.tensor([[0, 1, 0, 1, 2, 3]])
    model = GP(n_starts=1, is_of_motifs=True)
    model.feature_blocks = WORDS
    model.fit(features, torch.zeros(60, dtype=torch.long), has_motif.double(), 1, 0)
    mean, _ = model.predict(torch.nn.functional.one_hot(moved, 4).flatten(1).double(), 0)
    assert float(mean) > 0.7


def test_several_fidelities_are_refused():
    features, fidelities, values = _data()
    with pytest.raises(ValueError, match="one fidelity"):
        Averaged(GP(), GP()).fit(features, fidelities, values, 2, 0)

import math

import pytest
import torch
from botorch.acquisition.knowledge_gradient import qMultiFidelityKnowledgeGradient
from botorch.sampling.normal import SobolQMCNormalSampler
from torch import Tensor

from surrogate.knowledge_gradient import MultiFidelityKnowledgeGradient, log_knowledge_gradient
from tests.surrogate.canned import Canned, single
from tests.surrogate.from_botorch import three_fidelities


def _lines(b: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(b, n, generator=generator, dtype=torch.float64),
        torch.randn(b, n, generator=generator, dtype=torch.float64),
    )


def _by_quadrature(level: Tensor, slope: Tensor) -> Tensor:
    z = torch.linspace(-10, 10, 5_001, dtype=torch.float64)
    highest = (level[:, :, None] + slope[:, :, None] * z).max(1).values
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    rise = torch.trapezoid(highest * density, z) - level.max(1).values
    return rise.log()


def test_two_lines_of_hand_computed_values():
    # E[max(0, s z)] = s / sqrt(2 pi); and a lead of 2 against a slope of 1: pdf(2) - 2 cdf(-2)
    level = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    slope = torch.tensor([[0.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
    second = math.exp(-2) / math.sqrt(2 * math.pi) - math.erfc(2**0.5)
    expected = torch.tensor([3 / math.sqrt(2 * math.pi), second], dtype=torch.float64)
    torch.testing.assert_close(log_knowledge_gradient(level, slope).exp(), expected)


@pytest.mark.parametrize("n", [2, 5, 65])
def test_agrees_with_quadrature(n):
    level, slope = _lines(40, n)
    found, exact = log_knowledge_gradient(level, slope), _by_quadrature(level, slope)
    large = exact > -15  # of the rest quadrature sees little
    assert large.sum() >= 30
    torch.testing.assert_close(found[large], exact[large], rtol=0, atol=0.02)
    assert (found <= exact + 1e-3)[large].all()


def test_is_exact_far_into_the_tail():
    # A lead of u against a slope of 1 alone: log EI(-u), about -u^2 / 2 - 2 log u.
    for u in (30.0, 200.0, 1000.0):
        level = torch.tensor([[u, 0.0]], dtype=torch.float64)
        found = float(log_knowledge_gradient(level, torch.tensor([[0.0, 1.0]]).double()))
        about = -(u**2) / 2 - 2 * math.log(u) - math.log(2 * math.pi) / 2
        assert found == pytest.approx(about, abs=0.01)


def test_lines_that_keep_their_distance_are_worth_nothing():
    level, _ = _lines(3, 6)
    assert (log_knowledge_gradient(level, torch.full_like(level, 0.7)) == -torch.inf).all()


def test_rounding_between_equal_alternatives_is_worth_nothing():
    level, slope = torch.zeros(1, 2).double(), torch.tensor([[0.3, 0.3 + 1e-9]]).double()
    assert (log_knowledge_gradient(level, slope) == -torch.inf).all()


def test_neither_a_common_shift_nor_a_common_slope_matters():
    level, slope = _lines(20, 6)
    found = log_knowledge_gradient(level, slope)
    torch.testing.assert_close(log_knowledge_gradient(level + 5, slope), found)
    torch.testing.assert_close(log_knowledge_gradient(level, -slope), found)
    # the grid of outcomes sees other kinks first: equal to its accuracy
    torch.testing.assert_close(log_knowledge_gradient(level, slope + 2), found, rtol=0, atol=1e-2)


def test_a_common_unit_is_the_gains():
    level, slope = _lines(20, 6)
    found = log_knowledge_gradient(level, slope)
    for unit in (1e-80, 1e80):
        torch.testing.assert_close(
            log_knowledge_gradient(level * unit, slope * unit), found + math.log(unit)
        )


def test_another_alternative_of_fixed_mean_below_the_best_never_hurts():
    level, slope = _lines(50, 6)
    level[:, -1] = level[:, :-1].min(1).values - 0.1
    with_it = log_knowledge_gradient(level, slope)
    assert (with_it >= log_knowledge_gradient(level[:, :-1], slope[:, :-1]) - 5e-3).all()


def _prepared(surrogate, reference: Tensor, sign: float = 1.0, **options):
    acquisition = MultiFidelityKnowledgeGradient(**options)
    acquisition.prepare(surrogate, sign=sign, best=None, reference_features=reference, seed=0)
    return acquisition


def test_one_query_against_a_known_rival_is_its_expected_improvement_over_it():
    # x: mean 0, sd 2, noise variance 5: its mean will move by 4 / sqrt(4 + 5). Rival: 1.
    canned = single([0.0, 1.0], [2.0, 1e-9], noise=5.0)
    moves, lead = 4 / 3, 1.0
    u = lead / moves
    expected = moves * (
        math.exp(-(u**2) / 2) / math.sqrt(2 * math.pi) - u * math.erfc(u / 2**0.5) / 2
    )
    acquisition = _prepared(canned, canned.features)
    found = float(acquisition.target_log_gain(canned.features)[0].exp())
    assert found == pytest.approx(expected)


def test_a_cheap_fidelity_is_worth_what_it_tells_of_the_target():
    covariance = torch.tensor([[4.0, 1.2], [1.2, 1.0]], dtype=torch.float64)
    gains = []
    for factor in (0.0, 0.5, 1.0, 1.6):
        own = covariance.clone()
        own[0, 1] = own[1, 0] = 1.2 * factor
        both = torch.stack([own, torch.eye(2).double() * 1e-18])
        canned = Canned(torch.tensor([[7.0, 0.0], [7.0, 0.5]]).double(), both, torch.zeros(2))
        gains.append(float(_prepared(canned, canned.features).log_gain(canned.features)[0, 0]))
    assert gains == sorted(gains)
    assert len(set(gains)) == 4


def test_agrees_with_botorch_over_the_same_alternatives():
    surrogate, observed, query = three_fidelities()
    reference = torch.cat([observed, query])
    ours = _prepared(surrogate, reference, n_alternatives=len(reference)).log_gain(query).exp()
    at_target = surrogate.inputs(reference, torch.full((len(reference),), 2))
    n = 256
    sampler = SobolQMCNormalSampler(torch.Size([n]), seed=0)
    current = surrogate.predict(reference, 2)[0].max()
    their = qMultiFidelityKnowledgeGradient(
        surrogate.model, num_fantasies=n, sampler=sampler, current_value=current
    )
    for i in range(2):
        for j in range(3):
            x = surrogate.inputs(query[i : i + 1], torch.tensor([j]))
            with torch.no_grad():
                means = surrogate.model.fantasize(x, sampler).posterior(at_target).mean[..., 0]
                best = at_target[means.argmax(1)]
                expected = their(torch.cat([x, best])[None])
            assert float(ours[i, j]) == pytest.approx(float(expected), rel=0.03, abs=1e-3)


def test_minimising_mirrors_maximising():
    surrogate, _, query = three_fidelities()

    class Negative(type(surrogate)):
        def predict(self, features, fidelity):
            mean, sd = super().predict(features, fidelity)
            return -mean, sd

    mirrored = Negative(surrogate.model, surrogate.levels.tolist())
    up = _prepared(surrogate, query).log_gain(query)
    down = _prepared(mirrored, query, sign=-1.0).log_gain(query)
    torch.testing.assert_close(up, down)


def test_more_queries_than_a_chunk_agree_with_few(monkeypatch):
    surrogate, _, query = three_fidelities()
    acquisition = _prepared(surrogate, query)
    together = acquisition.log_gain(query)
    monkeypatch.setattr("surrogate.knowledge_gradient._CHUNK", 7)
    torch.testing.assert_close(acquisition.log_gain(query), together)


def test_impossible_number_of_alternatives():
    with pytest.raises(ValueError, match="n_alternatives"):
        MultiFidelityKnowledgeGradient(n_alternatives=0)

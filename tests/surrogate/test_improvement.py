import math
from math import inf

import pytest
import torch
from botorch.acquisition.analytic import LogExpectedImprovement as BotorchLogEI
from scipy.integrate import quad
from scipy.stats import t as student

from surrogate.improvement import (
    LogExpectedImprovement,
    UpperConfidenceBound,
    log_above,
    log_improvement,
)
from tests.surrogate.canned import Canned, single, two
from tests.surrogate.from_botorch import single_fidelity


def _gain(acquisition, surrogate, features, best, **more) -> torch.Tensor:
    acquisition.prepare(surrogate, sign=1.0, best=best, reference_features=features, seed=0, **more)
    return acquisition.log_gain(features)


def test_log_ei_of_hand_computed_values():
    # mean equal to best: EI = sd / sqrt(2 pi)
    canned = single([1.0, 1.0], [1.0, 3.0])
    expected = torch.tensor([1.0, 3.0], dtype=torch.float64).log() - 0.5 * math.log(2 * math.pi)
    found = _gain(LogExpectedImprovement(), canned, canned.features, 1.0)
    torch.testing.assert_close(found[:, 0], expected)


@pytest.mark.parametrize("best", [0.5, 30.0])
def test_log_ei_agrees_with_botorch(best):
    surrogate, _, query = single_fidelity()
    theirs = BotorchLogEI(surrogate.model, best_f=best)(query[:, None]).detach()
    ours = _gain(LogExpectedImprovement(), surrogate, query, best)[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_expected_rise_of_the_sum_of_the_best_three():
    # Observed 5, 4, 2: a candidate f raises the sum of the best three by max(f - 2, 0).
    canned = single([1.5], [1.2])
    found = _gain(LogExpectedImprovement(), canned, canned.features, 5.0, kth_best=2.0)
    generator = torch.Generator().manual_seed(0)
    drawn = 1.5 + 1.2 * torch.randn(400_000, generator=generator, dtype=torch.float64)
    known = torch.tensor([5.0, 4.0, 2.0], dtype=torch.float64).expand(len(drawn), -1)
    best_three = torch.cat([known, drawn[:, None]], 1).topk(3, dim=1).values.sum(1)
    assert float(found.exp()) == pytest.approx(float(best_three.mean()) - 11.0, rel=0.01)


@pytest.mark.parametrize("mean", [-1.0, 0.0, 1.5])
@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_log_ei_of_a_cheap_fidelity_is_what_its_answer_changes(mean, rho):
    # sd 2 at the target, no noise: the answer moves the mean by 2 rho z; bar 0.25.
    canned = two(mean, 2.0, rho)
    found = _gain(LogExpectedImprovement(), canned, canned.features, 0.25)[0, 0]
    z = torch.linspace(-9, 9, 100_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    after = float(torch.trapezoid((mean + 2 * rho * z - 0.25).clamp_min(0) * density, z))
    assert float(found.exp()) == pytest.approx(after - max(mean - 0.25, 0.0), rel=1e-6)


def test_an_exact_copy_of_the_target_is_worth_its_improvement_below_the_bar_alone():
    for mean, is_equal in ((-1.0, True), (1.0, False)):
        canned = two(mean, 2.0, 1.0)
        cheap, target = _gain(LogExpectedImprovement(), canned, canned.features, 0.0)[0]
        assert (float(cheap) == pytest.approx(float(target))) == is_equal
        assert cheap <= target + 1e-9


def _random(n: int) -> Canned:
    generator = torch.Generator().manual_seed(n)
    mean = torch.randn(n, generator=generator, dtype=torch.float64)
    return single(mean.tolist(), torch.rand(n, generator=generator).double().tolist())


def test_ucb_ranks_as_the_bound_does():
    canned = _random(50)
    mean, sd = canned.predict(canned.features, 0)
    for beta in (0.0, 1.0, 9.0):
        found = _gain(UpperConfidenceBound(beta=beta), canned, canned.features, 0.0)[:, -1]
        assert torch.equal(found.argsort(), (mean + beta**0.5 * sd).argsort())


def test_ucb_far_above_the_best_is_the_bound_itself():
    canned = single([100.0, 0.0], [1.0, 1.0])
    found = _gain(UpperConfidenceBound(beta=4.0), canned, canned.features, 2.0)
    assert float(found[0, 0].exp()) == pytest.approx(100.0)


def test_log_above_of_hand_computed_values():
    value = torch.tensor([3.0, 1e4, -1e4], dtype=torch.float64)
    found = log_above(value, 3.0, 2.0)
    expected = [math.log(2 * math.log(2)), math.log(1e4 - 3), math.log(2) - (1e4 + 3) / 2]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf])
def test_impossible_beta(beta):
    with pytest.raises(ValueError, match="beta"):
        UpperConfidenceBound(beta=beta)


@pytest.mark.parametrize("step", [0.25, 2.0])
def test_where_values_come_in_steps_less_than_half_a_step_is_no_improvement(step):
    """The rise is 0.5 + 1.2 t, t of Student's distribution with 2 degrees of freedom."""
    canned = single([1.5], [1.2])
    found = _gain(LogExpectedImprovement(), canned, canned.features, 1.0, step=step)
    counted, _ = quad(lambda t: (0.5 + 1.2 * t) * student(2).pdf(t), (step / 2 - 0.5) / 1.2, inf)
    assert float(found.exp()) == pytest.approx(counted, rel=1e-6)


def test_a_certain_tie_is_worth_nothing_where_values_come_in_steps():
    canned = single([1.0, 0.6], [0.01, 0.5])
    continuous = _gain(LogExpectedImprovement(), canned, canned.features, 1.0)[:, 0]
    in_steps = _gain(LogExpectedImprovement(), canned, canned.features, 1.0, step=0.2)[:, 0]
    assert float(in_steps[0]) < float(in_steps[1]) - 2
    assert float(in_steps[1]) > float(continuous[1]) - 0.5


def test_steps_far_above_and_below_are_finite():
    above = torch.tensor([-1e5, 1e5, 0.0, -1.0], dtype=torch.float64)
    sd = torch.tensor([1e-150, 1e-150, 1e-150, 1e-9], dtype=torch.float64)
    told = log_improvement(above, sd, 0.2)
    assert bool(told.isfinite().all())
    assert float(told[1]) == pytest.approx(math.log(1e5))


def test_on_a_plateau_what_is_less_known_stays_in_sight():
    """Ten sd or thirty below the next step: tails of a Gaussian would be 400 nats apart."""
    canned = single([1.0, 0.9], [0.05, 0.02])
    gain = _gain(LogExpectedImprovement(), canned, canned.features, 1.0, step=1.0)[:, 0]
    assert 1 < float(gain[0] - gain[1]) < 3
    assert bool((gain > -10).all())

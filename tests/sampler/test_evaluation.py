"""Estimates against the exact values of small spaces, and bounds on the side they promise."""

import math

import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, environment
from sampler.environments.hyper_grid import HyperGrid
from sampler.environments.hypercube import Hypercube
from sampler.evaluation import (
    count_modes,
    coverage,
    estimated_log_prob,
    estimated_log_z,
    evidence_lower_bound,
    evidence_upper_bound,
    reward_correlation,
    top_k,
)
from sampler.exact import exact_log_z, target_distribution, terminal_distribution

GRID = HyperGrid(2, 5)


def log_reward(states: Tensor) -> Tensor:
    """One mode at (1, 3) above a flat floor."""
    x, y = states[:, 0].double(), states[:, 1].double()
    return (0.2 + 4 * torch.exp(-((x - 1).square() + (y - 3).square()))).log() + 1.5


def small_net(space: HyperGrid = GRID, n_steps: int = 30, **options) -> GFlowNet:
    net = GFlowNet(space, hidden=(32,), learning_rate=1e-2, device="cpu", **options)
    net.train(log_reward, n_steps=n_steps, batch_size=16)
    return net


def from_target(n: int, seed: int = 0, beta: float = 1.0) -> Tensor:
    states, probabilities = target_distribution(GRID, lambda states: beta * log_reward(states))
    generator = torch.Generator().manual_seed(seed)
    return states[torch.multinomial(probabilities, n, replacement=True, generator=generator)]


@pytest.mark.parametrize("is_backward_learned", [False, True])
def test_estimates_of_log_prob_err_as_they_say(is_backward_learned: bool) -> None:
    net = small_net(is_backward_learned=is_backward_learned)
    states, probabilities = terminal_distribution(net)
    log_prob, standard_error = estimated_log_prob(net, states, n_samples=500, seed=1)
    assert log_prob.dtype == standard_error.dtype == torch.float64
    only_path = torch.tensor(
        [key.startswith("0,") or key.endswith(",0") for key in GRID.keys(states)]
    )
    assert float(standard_error[only_path].max()) < 1e-6
    assert torch.allclose(log_prob[only_path], probabilities[only_path].log(), atol=1e-5)
    z = ((log_prob - probabilities.log()) / standard_error)[~only_path]
    assert float(z.abs().max()) < 4
    assert 0.6 < float(z.square().mean().sqrt()) < 1.5


def test_estimates_repeat_with_the_seed_and_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net()
    states = GRID.from_keys(["4,4", "2,1", "0,0"])
    first, again = (estimated_log_prob(net, states, 200, seed=3)[0] for _ in range(2))
    assert torch.equal(first, again)
    monkeypatch.setattr("sampler.evaluation._BATCH", 7)
    log_prob, standard_error = estimated_log_prob(net, states, 200, seed=3)
    assert bool(((log_prob - first).abs() <= 5 * standard_error + 1e-6).all())
    empty = estimated_log_prob(net, states[:0], 2)
    assert [part.shape for part in empty] == [(0,), (0,)]


def test_one_sample_has_no_standard_error() -> None:
    with pytest.raises(ValueError, match="at least 2 samples"):
        estimated_log_prob(small_net(n_steps=0), GRID.from_keys(["1,1"]), n_samples=1)
    with pytest.raises(ValueError, match="states_from_target: expected at least 2"):
        evidence_upper_bound(small_net(n_steps=0), from_target(1), log_reward)
    with pytest.raises(ValueError, match="n_samples: expected at least 1"):
        evidence_upper_bound(small_net(n_steps=0), from_target(2), log_reward, n_samples=0)
    for estimate in (evidence_lower_bound, estimated_log_z):
        for n in (0, 1):
            with pytest.raises(ValueError, match="at least 2"):
                estimate(small_net(n_steps=0), log_reward, n)


@pytest.mark.parametrize("n_steps", [0, 60])
def test_bounds_enclose_the_evidence(n_steps: int) -> None:
    net = small_net(n_steps=n_steps)
    log_z = exact_log_z(GRID, log_reward)
    lower = evidence_lower_bound(net, log_reward, 3000, seed=1)
    upper = evidence_upper_bound(net, from_target(3000), log_reward, seed=1)
    middle = estimated_log_z(net, log_reward, 3000, seed=1)
    assert lower.value + 3 * lower.standard_error < log_z < upper.value - 3 * upper.standard_error
    assert abs(middle.value - log_z) < 4 * middle.standard_error
    assert lower.value < middle.value < upper.value


def test_bounds_meet_where_the_sampler_is_perfect() -> None:
    line = HyperGrid(1, 6)
    net = GFlowNet(line, hidden=(8,), seed=4, device="cpu")

    def own(states: Tensor) -> Tensor:
        return net.log_prob(states) + 7.25

    estimates = (
        evidence_lower_bound(net, own, 50),
        evidence_upper_bound(net, net.sample(50, seed=0), own, n_samples=3),
        estimated_log_z(net, own, 50),
    )
    for value, standard_error in estimates:
        assert value == pytest.approx(7.25, abs=1e-5)
        assert standard_error == pytest.approx(0.0, abs=1e-5)


def test_more_trajectories_a_state_sharpen_the_upper_bound() -> None:
    net, states = small_net(n_steps=0), from_target(200)
    rough = evidence_upper_bound(net, states, log_reward)
    fine = evidence_upper_bound(net, states, log_reward, n_samples=20)
    assert fine.standard_error < rough.standard_error
    assert abs(fine.value - rough.value) < 4 * rough.standard_error


def test_rewards_of_zero_count_as_the_floor() -> None:
    net = GFlowNet(GRID, hidden=(8,), log_reward_floor=-3.0, device="cpu")
    estimate = estimated_log_z(net, lambda states: torch.full((len(states),), -torch.inf), 2000)
    assert estimate.value == pytest.approx(-3.0 + math.log(25), abs=4 * estimate.standard_error)


def test_a_sampler_of_many_temperatures_is_judged_at_each() -> None:
    net = small_net(n_steps=100, beta_range=(0.5, 2.0))
    for beta in (0.5, 2.0):
        log_z = exact_log_z(GRID, lambda states, beta=beta: beta * log_reward(states))
        lower = evidence_lower_bound(net, log_reward, 2000, beta=beta)
        upper = evidence_upper_bound(net, from_target(2000, beta=beta), log_reward, beta=beta)
        middle = estimated_log_z(net, log_reward, 2000, beta=beta)
        assert lower.value < log_z < upper.value
        assert abs(middle.value - log_z) < 4 * middle.standard_error
    states, _ = target_distribution(GRID, log_reward)
    total = estimated_log_prob(net, states, 200, beta=2.0)[0].exp().sum()
    assert float(total) == pytest.approx(1.0, abs=0.05)
    assert reward_correlation(net, states, log_reward, 100, beta=2.0).pearson > 0.5


def test_a_continuous_space_has_densities_and_bounds() -> None:
    square = Hypercube(2, [[0.0, 1.0]] * 2, n_increments=2)

    def tilted(states: Tensor) -> Tensor:  # ∫ = (1 + 1/2) (1 + 1/2)
        return torch.log1p(states[:, :2]).sum(dim=1)

    net = GFlowNet(square, hidden=(16,), device="cpu")
    log_z = 2 * math.log(1.5)
    lower = evidence_lower_bound(net, tilted, 4000)
    middle = estimated_log_z(net, tilted, 4000)
    assert lower.value < log_z
    assert abs(middle.value - log_z) < 4 * middle.standard_error
    uniform = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Draws of 1 + x on [0, 1]: the inverse of its distribution function.
    states = square.encode(list((torch.sqrt(1 + 3 * uniform) - 1).numpy()))
    upper = evidence_upper_bound(net, states, tilted)
    assert upper.value > log_z
    flat = square.encode(list(uniform[:1000].numpy()))
    density = estimated_log_prob(net, flat, 50)[0].exp()
    error = float(density.std()) / math.sqrt(len(density))
    assert float(density.mean()) == pytest.approx(1.0, abs=4 * error)


def test_correlation_with_the_reward() -> None:
    net = small_net(n_steps=5)
    states = terminal_distribution(net)[0]
    linear = reward_correlation(net, states, lambda s: 3 * net.log_prob(s) - 2)
    assert linear == pytest.approx((1.0, 1.0))
    assert reward_correlation(net, states, lambda s: -net.log_prob(s)) == pytest.approx(
        (-1.0, -1.0)
    )
    curved = reward_correlation(net, states, lambda s: (2 * net.log_prob(s)).exp())
    assert curved.spearman == pytest.approx(1.0)
    assert curved.pearson < 0.99
    trained = reward_correlation(small_net(n_steps=150), states, log_reward)
    assert trained.pearson > reward_correlation(net, states, log_reward).pearson
    assert trained.pearson > 0.95


def test_an_undefined_correlation_is_refused() -> None:
    net = small_net(n_steps=0)
    states = GRID.from_keys(["0,0", "1,1", "2,3"])
    with pytest.raises(ValueError, match="log reward that differ"):
        reward_correlation(net, states, lambda s: torch.zeros(len(s)))
    with pytest.raises(ValueError, match="at least 3 states"):
        reward_correlation(net, states[:2], log_reward)


def test_modes_that_were_drawn() -> None:
    modes = GRID.from_keys(["1,3", "4,4", "0,2"])
    samples = GRID.from_keys(["1,3", "1,3", "0,0", "0,2", "3,4"])
    assert count_modes(samples, modes) == 2
    assert coverage(samples, modes) == pytest.approx(2 / 3)
    assert count_modes(samples[:0], modes) == 0
    # One step on this grid is 1/4 of an axis.
    assert count_modes(samples, modes, GRID.features) == 2
    assert count_modes(samples, modes, GRID.features, 0.25) == 3
    assert count_modes(samples[2:3], modes, GRID.features, 0.49) == 0
    assert count_modes(samples[2:3], modes, GRID.features, 0.5) == 1
    with pytest.raises(ValueError, match="at least one mode"):
        coverage(samples, modes[:0])
    with pytest.raises(ValueError, match="needs features"):
        count_modes(samples, modes, distance=0.1)
    with pytest.raises(ValueError, match="a distance of 0 or more"):
        count_modes(samples, modes, GRID.features, -1.0)


def test_modes_of_a_continuous_space() -> None:
    square = environment("hypercube", n_dims=2, bounds=[[0, 10], [0, 10]])
    modes = square.encode([[2.0, 2.0], [8.0, 8.0]])
    samples = square.encode([[2.3, 2.4], [5.0, 5.0], [8.0, 7.0]])
    assert count_modes(samples, modes, square.features, 0.051) == 1
    assert coverage(samples, modes, square.features, 0.101) == 1.0
    assert count_modes(samples, modes) == 0


def test_the_best_distinct_candidates() -> None:
    samples = GRID.from_keys(["0,0", "1,3", "1,3", "1,2", "4,4", "2,3"])
    states, values = top_k(GRID, samples, log_reward, 3)
    assert GRID.keys(states) == ["1,3", "1,2", "2,3"]
    assert torch.equal(values, log_reward(states))
    assert len(top_k(GRID, samples, log_reward, 99)[0]) == 5
    assert len(top_k(GRID, samples[:0], log_reward, 2)[0]) == 0
    with pytest.raises(ValueError, match="k of 1 or more"):
        top_k(GRID, samples, log_reward, 0)


class Unordered(HyperGrid):
    """A grid whose points mean the same in any order of their coordinates."""

    def keys(self, states: Tensor) -> list[str]:
        return super().keys(torch.cat([states[:, :-1].sort(dim=1).values, states[:, -1:]], dim=1))


def test_candidates_of_one_key_count_once() -> None:
    space = Unordered(2, 4)
    samples = space.from_keys(["1,3", "3,1", "2,2", "2,3", "3,2", "0,0"])
    states, values = top_k(space, samples, lambda s: s[:, :-1].sum(dim=1).double(), 3)
    assert space.keys(states) == ["2,3", "1,3", "2,2"]
    assert values.tolist() == [5.0, 4.0, 4.0]

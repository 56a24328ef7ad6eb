"""Probabilities as sums over every trajectory to a state, where only a few lead there."""

import pytest
import torch

from sampler import GFlowNet, Random, environment
from sampler.backward_rollout import every_way_back
from sampler.environments.crystal import Crystal
from sampler.evaluation import estimated_log_prob

ORDERS = [("space_group", "composition", "lattice"), ("composition", "space_group", "lattice")]


def crystals(order: tuple[str, ...], positions: str) -> Crystal:
    return Crystal(
        ["Mg", "O", "F"], [2, 14, 62, 136, 225], n_elements=(2, 2), n_atoms=(2, 12),
        lengths=(4.0, 12.0), angles=(60.0, 120.0), positions=positions, order=order,
    )  # fmt: skip


@pytest.mark.parametrize("is_backward_learned", [False, True], ids=["uniform", "learned"])
def test_the_sum_over_all_ways_is_what_the_whole_graph_says(is_backward_learned: bool) -> None:
    grid = environment("hyper_grid", n_dims=2, length=4)
    net = GFlowNet(grid, hidden=(16,), is_backward_learned=is_backward_learned)
    states = Random(grid).sample(50, seed=0)
    by_graph = net.log_prob(states)
    grid.n_ways = 20  # 6 choose 3 trajectories to the far corner
    trajectories, origins = every_way_back(net.environment, states)
    assert torch.equal(trajectories.terminal_states, states[origins])
    far = (states[:, :2] == 3).all(dim=1).nonzero()[0]
    assert int((origins == far).sum()) == 20
    assert torch.allclose(net.log_prob(states), by_graph, atol=1e-5)


@pytest.mark.parametrize("positions", ["none", "wyckoff"])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_two_trajectories_lead_to_a_crystal(order: tuple[str, ...], positions: str) -> None:
    crystal = crystals(order, positions)
    net = GFlowNet(crystal, hidden=(16,), seed=1)
    states = Random(crystal).sample(8, seed=0)
    trajectories, origins = every_way_back(crystal, states)
    assert origins.bincount().tolist() == [crystal.n_ways] * len(states)
    forward = trajectories.ordered
    again = crystal.initial_states(len(origins))
    for way in range(len(origins)):
        for t in forward[trajectories.rows[forward] == way].tolist():
            action = trajectories.actions[t : t + 1]
            amount = trajectories.amounts[t : t + 1]
            again[way] = crystal.step(again[way : way + 1], action, amount)[0]
    assert torch.equal(again, states[origins])
    estimate, error = estimated_log_prob(net, states, n_samples=500)
    exact = net.log_prob(states)
    assert ((exact - estimate).abs() < 4.5 * error + 1e-6).all()
    assert torch.equal(exact, net.log_prob(states, seed=7))


def test_no_states_have_no_probabilities() -> None:
    crystal = crystals(ORDERS[0], "none")
    assert GFlowNet(crystal, hidden=(8,)).log_prob(crystal.initial_states(0)).shape == (0,)


def test_beta_is_told_to_every_way() -> None:
    crystal = crystals(ORDERS[0], "none")
    net = GFlowNet(crystal, hidden=(16,), beta_range=(0.5, 4.0))
    states = Random(crystal).sample(5, seed=0)
    low, high = (net.log_prob(states, beta=beta) for beta in (0.5, 4.0))
    assert not torch.allclose(low, high)
    together = net.log_prob(states.flip(0), beta=0.5).flip(0)
    assert torch.allclose(low, together, atol=1e-5)

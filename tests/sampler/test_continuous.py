"""Continuous spaces: the sampler learns a known density, with its normalising constant."""

import math

import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, environment
from sampler.asking import LogReward
from sampler.environment import Environment

BOX = environment("hypercube", n_dims=2, bounds=[(0.0, 1.0), (0.0, 1.0)])
RING = environment("torus", n_dims=2)
N_CELLS = 60


def bimodal(states: Tensor) -> Tensor:
    """Log of two normal bumps of unequal height on a floor; coordinates scaled to [0, 1]."""
    x = states[:, :2]

    def bump(centre: tuple[float, float], width: float) -> Tensor:
        return -(x - torch.tensor(centre)).square().sum(dim=1) / (2 * width**2)

    heights = torch.stack(
        [
            bump((0.25, 0.3), 0.12) + math.log(3.0),
            bump((0.75, 0.7), 0.12) + math.log(6.0),
            torch.full((len(x),), math.log(0.2)),
        ]
    )
    return heights.logsumexp(dim=0).double()


def von_mises(states: Tensor) -> Tensor:
    """Log of a density on the torus that is highest across the seam, angles correlated."""
    angle = 2 * math.pi * states[:, :2]
    return 1.5 * angle[:, 0].cos() + (angle[:, 1] - angle[:, 0]).cos()


def middle_of_cells(space: Environment) -> Tensor:
    """Terminal states in the middle of `N_CELLS`² equal cells of [0, 1]²."""
    place = (torch.arange(N_CELLS, dtype=torch.float64) + 0.5) / N_CELLS
    points = torch.cartesian_prod(place, place)
    return space.encode(list((points * (2 * math.pi if space is RING else 1.0)).numpy()))


def trained(space: Environment, log_reward: LogReward, loss: str) -> GFlowNet:
    net = GFlowNet(
        space,
        loss,
        hidden=(48, 48),
        learning_rate=1e-2,
        schedule="cosine",
        schedule_steps=500,
        exploration=0.1,
    )
    net.train(log_reward, 500, 96)
    return net


@pytest.mark.parametrize(
    ("space", "log_reward", "loss"),
    [
        (BOX, bimodal, "trajectory_balance"),
        (BOX, bimodal, "sub_trajectory_balance"),
        (RING, von_mises, "trajectory_balance"),
        (RING, von_mises, "detailed_balance"),
    ],
    ids=["box-tb", "box-subtb", "torus-tb", "torus-db"],
)
def test_a_known_density_is_learned(space: Environment, log_reward: LogReward, loss: str) -> None:
    net = trained(space, log_reward, loss)
    states = middle_of_cells(space)
    values = log_reward(states)
    log_z = float(values.logsumexp(dim=0)) - 2 * math.log(N_CELLS)
    assert net.log_z == pytest.approx(log_z, abs=0.05)
    log_p = net.log_prob(states)
    assert float(torch.corrcoef(torch.stack([log_p, values]))[0, 1]) > 0.98
    density = log_p.exp()
    assert float(density.mean()) == pytest.approx(1, abs=0.03)
    assert float((density - (values - log_z).exp()).abs().mean()) < 0.15
    share = _shares(net.sample(4000, seed=1))
    expected = _shares(states, (values - log_z).exp() / N_CELLS**2)
    assert float((share - expected).abs().sum()) < 0.12


def _shares(states: Tensor, mass: Tensor | None = None) -> Tensor:
    """Mass of `states` in a 5 x 5 table of the first two coordinates."""
    mass = torch.full((len(states),), 1 / len(states)).double() if mass is None else mass
    cell = (states[:, :2] * 5).long().clamp(0, 4)
    return torch.zeros(25, dtype=torch.float64).index_add(0, cell[:, 0] * 5 + cell[:, 1], mass)


def test_several_increments_in_any_order() -> None:
    """Paths differ, so log_prob is an estimate; log Z is the volume's."""
    space = environment(
        "hypercube", n_dims=2, bounds=[(0.0, 1.0)] * 2, n_increments=2, any_order=True
    )
    net = GFlowNet(
        space,
        hidden=(48, 48),
        learning_rate=1e-2,
        is_backward_learned=True,
        schedule="cosine",
        schedule_steps=400,
        exploration=0.1,
    )
    net.train(bimodal, 400, 64)
    states = middle_of_cells(BOX)
    log_z = float(bimodal(states).logsumexp(dim=0)) - 2 * math.log(N_CELLS)
    assert net.log_z == pytest.approx(log_z, abs=0.15)
    share = _shares(net.sample(4000, seed=1))
    expected = _shares(states, (bimodal(states) - log_z).exp() / N_CELLS**2)
    assert float((share - expected).abs().sum()) < 0.35
    drawn = net.sample(300, seed=2)
    log_p = net.log_prob(drawn, n_samples=64)
    assert float(torch.corrcoef(torch.stack([log_p, bimodal(drawn)]))[0, 1]) > 0.8


def test_densities_are_those_of_what_is_drawn() -> None:
    """An untrained sampler: its log_prob integrates to one and bins fill accordingly."""
    for space in (BOX, RING):
        net = GFlowNet(space, hidden=(16,), seed=3)
        with torch.no_grad():
            net.policy.layers[-1].weight.mul_(150.0)
            net.policy.layers[-1].bias.mul_(150.0)
        states = middle_of_cells(space)
        density = net.log_prob(states).exp()
        assert float(density.mean()) == pytest.approx(1, abs=0.02)
        share = _shares(net.sample(8000, seed=1))
        expected = _shares(states, density / N_CELLS**2)
        assert float((share - expected).abs().sum()) < 0.08
        assert float((expected - 1 / 25).abs().sum()) > 0.12

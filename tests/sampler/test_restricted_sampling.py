"""Restricted samples follow the trained distribution, conditioned on the restriction."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, environment
from sampler.collection import forward_outputs
from sampler.environment import Environment
from sampler.exact import empirical_distribution, terminal_distribution, total_variation
from sampler.restricted_sampling import log_weights
from sampler.rollout import Behaviour, Trajectories, roll_out

GRID = environment("hyper_grid", n_dims=2, length=6)
CORRELATION = 0.8


def ridge(states: Tensor) -> Tensor:
    """High along a falling diagonal, so that one coordinate says much about the other."""
    x, y = states[:, 0].double(), states[:, 1].double()
    return -0.5 * (x + y - 5).square() + 0.4 * x


def correlated(states: Tensor) -> Tensor:
    """A Gaussian in the unit square, centred in it, of deviation 1/5."""
    x, y = ((states[:, :2] - 0.5) / 0.2).unbind(dim=1)
    return -0.5 * (x * x - 2 * CORRELATION * x * y + y * y) / (1 - CORRELATION**2)


@pytest.fixture(scope="module")
def grid_net() -> GFlowNet:
    net = GFlowNet(GRID, hidden=(32, 32), learning_rate=5e-3, device="cpu")
    net.train(ridge, n_steps=150, batch_size=16)
    return net


@pytest.fixture(scope="module", params=[1, 2], ids="{} increments".format)
def square_net(request: pytest.FixtureRequest) -> GFlowNet:
    square = environment(
        "hypercube", n_dims=2, bounds=[[-1.0, 1.0]] * 2, n_increments=request.param
    )
    net = GFlowNet(square, hidden=(64, 64), learning_rate=3e-3, device="cpu")
    net.train(correlated, n_steps=200, batch_size=64)
    return net


def conditional(net: GFlowNet, wanted: Environment) -> tuple[Tensor, Tensor, float]:
    """Terminal states of a restriction, their probabilities given it, and its probability."""
    states, probabilities = terminal_distribution(net)
    keys = set(wanted.keys(terminal_distribution(GFlowNet(wanted, hidden=(8,)))[0]))
    inside = torch.tensor([key in keys for key in wanted.keys(states)])
    mass = probabilities[inside]
    return states[inside], mass / mass.sum(), float(mass.sum())


def drawn_inside(net: GFlowNet, where: dict, n: int) -> tuple[Trajectories, Tensor]:
    """Trajectories of the trained policy under the masks of a restriction, and their weights."""
    restricted = net.environment.restricted(where)
    behaviour = Behaviour(net.policy.forward_logits, net.policy.amount_outputs)
    outputs = forward_outputs(net.environment, net.policy, None)
    with torch.no_grad():
        drawn = roll_out(restricted, outputs, n, torch.Generator().manual_seed(5), behaviour)
        known = outputs(drawn.states, drawn.rows)
        return drawn, log_weights(net.environment, restricted, drawn, known, behaviour)


WHERE = [{"x0": [0, 2]}, {"x0": [1, 3], "x1": [2, 5]}, {"x1": 4}, {"x0": [3, 5], "x1": [0, 1]}]


@pytest.mark.parametrize("where", WHERE, ids=str)
def test_samples_follow_the_exact_conditional(grid_net: GFlowNet, where: dict) -> None:
    known, expected, _ = conditional(grid_net, GRID.restricted(where))
    assert miss(grid_net, where, known, expected, n_tries=100) < 0.045


def miss(net: GFlowNet, where: dict, known: Tensor, expected: Tensor, n_tries: int) -> float:
    """How far 3000 restricted samples are from what is expected, in total variation."""
    n = 12_000 // n_tries
    drawn = [net.sample(n, seed=seed, where=where, n_tries=n_tries) for seed in range(3000 // n)]
    return total_variation(empirical_distribution(torch.cat(drawn), known), expected)


@pytest.mark.parametrize("where", WHERE, ids=str)
def test_weights_are_unbiased(grid_net: GFlowNet, where: dict) -> None:
    known, expected, mass = conditional(grid_net, GRID.restricted(where))
    drawn, weights = drawn_inside(grid_net, where, 5000)
    error = float(weights.exp().std()) / math.sqrt(5000)
    assert float(weights.exp().mean()) == pytest.approx(mass, abs=4 * error + 1e-9)
    shares = [weights.exp()[(drawn.terminal_states == state).all(1)].sum() for state in known]
    weighted = torch.stack(shares) / weights.exp().sum()
    assert total_variation(weighted, expected) < 0.06


def test_masks_alone_would_not_do(grid_net: GFlowNet) -> None:
    where = {"x0": [3, 5], "x1": [0, 1]}
    known, expected, _ = conditional(grid_net, GRID.restricted(where))
    drawn, _ = drawn_inside(grid_net, where, 5000)
    assert total_variation(empirical_distribution(drawn.terminal_states, known), expected) > 0.15


@pytest.mark.parametrize(
    ("kind", "options", "where"),
    [
        ("hyper_grid", {"n_dims": 3, "length": 5}, {"x0": 4, "x1": [1, 1], "x2": [0, 2]}),
        ("subset", {"n_items": 8, "size": (2, 4)}, {"include": [7, 1, 2], "exclude": [0, 3, 4]}),
        ("subset", {"n_items": 6, "size": 3}, {"exclude": [0, 1, 2]}),
        ("hypercube", {"n_dims": 2, "bounds": [[0, 1]] * 2, "n_levels": 5}, {"x1": [0.9, 1.0]}),
    ],
    ids=str,
)
def test_no_dead_ends_and_only_what_is_wanted(kind: str, options: dict, where: dict) -> None:
    space = environment(kind, **options)
    net = GFlowNet(space, hidden=(16,), device="cpu")
    samples = net.sample(300, seed=0, where=where, n_tries=2)
    wanted = space.restricted(where)
    reached = terminal_distribution(GFlowNet(wanted, hidden=(8,), device="cpu"))[0]
    assert samples.shape[0] == 300
    assert float(empirical_distribution(samples, reached).sum()) == pytest.approx(1.0)


def test_samples_repeat_with_the_seed(grid_net: GFlowNet) -> None:
    first, again, other = (grid_net.sample(20, seed=s, where={"x0": 3}) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="n_tries: expected at least 1"):
        grid_net.sample(2, where={"x0": 3}, n_tries=0)


def on_a_grid(net: GFlowNet, axis: int, low: float, high: float) -> tuple[np.ndarray, float]:
    """Mean of the net's density over points of which one coordinate lies inside, and mass there."""
    n = 60
    middles = (np.arange(n) + 0.5) / n
    axes = [middles * 2 - 1, middles * 2 - 1]
    axes[axis] = low + middles * (high - low)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    density = net.log_prob(net.environment.encode(list(points)), n_samples=16).exp().numpy()
    # The density is one of coordinates scaled to [0, 1].
    return density @ points / density.sum(), float(density.mean()) * (high - low) / 2


@pytest.mark.parametrize(("axis", "low", "high"), [(0, 0.3, 0.6), (1, -0.7, -0.2)])
def test_real_coordinates_inside_an_interval(
    square_net: GFlowNet, axis: int, low: float, high: float
) -> None:
    where = {f"x{axis}": [low, high]}
    mean, mass = on_a_grid(square_net, axis, low, high)
    # It has learned the correlation: the other coordinate leans the same way.
    assert mean[1 - axis] * np.sign(low) > 0.15

    drawn, log_weight = drawn_inside(square_net, where, 1000)
    weights = log_weight.exp().numpy()
    error = weights.std() / math.sqrt(len(weights))
    assert weights.mean() == pytest.approx(mass, abs=4 * error + 0.02 * mass)
    points = np.stack(square_net.environment.decode(drawn.terminal_states))
    share = weights / weights.sum()
    errors = np.sqrt((share[:, None] ** 2 * (points - mean) ** 2).sum(axis=0))
    assert np.all(np.abs(share @ points - mean) < 4 * errors + 0.005)

    samples = square_net.sample(80, seed=0, where=where, n_tries=16)
    points = np.stack(square_net.environment.decode(samples))
    assert points[:, axis].min() >= low
    assert points[:, axis].max() <= high
    errors = points.std(axis=0) / math.sqrt(len(points))
    assert np.all(np.abs(points.mean(axis=0) - mean) < 4 * errors + 0.02)

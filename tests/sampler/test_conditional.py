"""One model for all powers of the reward: `beta_range`."""

import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, environment

GRID = environment("hyper_grid", n_dims=2, length=6)
STATES = GRID.from_keys([f"{i},{j}" for i in range(6) for j in range(6)])
RANGE = (0.5, 4.0)


def log_reward(states: Tensor) -> Tensor:
    """Towards the far corner: R^β is flat for small β and peaked for large."""
    return 1.5 * GRID.features(states).sum(dim=1)


@pytest.mark.parametrize("loss", ["trajectory_balance", "log_partition_variance"])
def test_one_model_samples_every_power_of_the_reward(loss: str) -> None:
    net = GFlowNet(
        GRID,
        loss,
        hidden=(64, 64),
        learning_rate=5e-3,
        beta_range=RANGE,
        schedule="cosine",
        schedule_steps=500,
    )
    net.train(log_reward, 500, 64)
    assert net.log_z == net.log_z_at(1.0)
    for beta in (0.6, 1.0, 2.0, 3.5):
        exact = beta * log_reward(STATES)
        assert net.log_z_at(beta) == pytest.approx(float(exact.logsumexp(dim=0)), abs=0.08)
        target = exact.softmax(dim=0)
        probabilities = net.log_prob(STATES, n_samples=100, beta=beta).exp()
        assert float((probabilities - target).abs().sum()) < 0.12
        place = net.sample(4000, seed=1, beta=beta) @ torch.tensor([6, 1, 0])
        share = torch.bincount(place, minlength=36) / 4000
        assert float((share - target).abs().sum()) < 0.2
    low, high = (0.6 * log_reward(STATES)).softmax(0), (3.5 * log_reward(STATES)).softmax(0)
    assert float((low - high).abs().sum()) > 0.5  # or the above would say little


def test_an_average_of_the_weights_is_conditional_too() -> None:
    net = GFlowNet(GRID, hidden=(8,), beta_range=RANGE, ema=0.9, is_backward_learned=True)
    net.train(log_reward, 3, 16)
    assert net.sample(5, seed=1, beta=2.0).shape == (5, 3)
    assert net.log_prob(STATES, n_samples=3, beta=4.0).shape == (36,)


def test_replay_and_local_search_work_with_a_range() -> None:
    net = GFlowNet(
        GRID,
        "log_partition_variance",
        hidden=(8,),
        beta_range=RANGE,
        replay={"fraction": 0.5},
        local_search={"n_rounds": 1},
    )
    losses = net.train(log_reward, 4, 16, examples=STATES, example_fraction=0.25)
    assert len(losses) == 4
    assert net.replay is not None
    # What is remembered is the reward itself, not its power.
    assert torch.equal(net.replay.log_reward, log_reward(net.replay.states))


@pytest.mark.parametrize(
    ("beta_range", "default"), [(RANGE, 1.0), ((2.0, 4.0), 2.0), ((0.25, 0.5), 0.5)]
)
def test_beta_is_one_or_the_nearest_to_it_unless_told(
    beta_range: tuple[float, float], default: float
) -> None:
    net = GFlowNet(GRID, hidden=(8,), beta_range=beta_range)
    assert torch.equal(net.sample(9, seed=1), net.sample(9, seed=1, beta=default))
    assert net.log_z == net.log_z_at(default)


@pytest.mark.parametrize("beta", [0.4, 4.1, -1.0, float("nan")])
def test_a_beta_outside_the_range_is_refused(beta: float) -> None:
    net = GFlowNet(GRID, hidden=(8,), beta_range=RANGE)
    for ask in (
        lambda: net.sample(3, beta=beta),
        lambda: net.log_prob(STATES, beta=beta),
        lambda: net.log_z_at(beta),
    ):
        with pytest.raises(ValueError, match=r"beta: expected one in \(0.5, 4.0\), got"):
            ask()


def test_a_beta_without_a_range_is_refused() -> None:
    net = GFlowNet(GRID, hidden=(8,))
    for ask in (
        lambda: net.sample(3, beta=2.0),
        lambda: net.log_prob(STATES, beta=2.0),
        lambda: net.log_z_at(2.0),
    ):
        with pytest.raises(ValueError, match="beta: this sampler was made without beta_range"):
            ask()


@pytest.mark.parametrize(
    "beta_range", [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (1.0, float("inf")), (-1.0, 2.0)]
)
def test_an_impossible_range_is_refused(beta_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="beta_range: expected 0 < low < high"):
        GFlowNet(GRID, beta_range=beta_range)

"""Local search goes back and forth between the policies, and only ever improves."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, environment
from sampler.collection import Collector, LocalSearch, Sources, make_local_search
from sampler.environment import Environment
from sampler.exact import terminal_distribution
from sampler.rollout import Behaviour

GRID = environment("hyper_grid", n_dims=2, length=6)
BOX = environment("hypercube", n_dims=2, bounds=[(0.0, 1.0)] * 2)
N = 32


def towards_the_end(space: Environment) -> Callable[[Tensor], Tensor]:
    return lambda states: 3.0 * space.features(states).sum(dim=1)


def collect(
    space: Environment, log_reward: Callable[[Tensor], Tensor], **options
) -> tuple[Tensor, Tensor, Tensor]:
    """Ends and rewards of a collected batch, and what the policy alone would have found."""
    net = GFlowNet(space, hidden=(16,))
    collected = []
    for local_search in (None, LocalSearch(**options)):
        generator = torch.Generator().manual_seed(0)
        collector = Collector(space, net.policy, generator, None, local_search, None)
        behaviour = Behaviour(net.policy.forward_logits, net.policy.amount_outputs)
        batch, rewards = collector.collect(Sources(N), behaviour, log_reward)
        collected.append((batch.trajectories, rewards))
    trajectories, rewards = collected[1]
    assert torch.equal(trajectories.terminal_states[:N], collected[0][0].terminal_states)
    n_of_row = torch.bincount(trajectories.rows, minlength=2 * N)
    assert len(n_of_row) == 2 * N
    assert int(n_of_row.min()) >= 1
    is_last = trajectories.following >= len(trajectories.rows)
    rows = trajectories.rows[is_last]
    assert torch.equal(trajectories.children[is_last], trajectories.terminal_states[rows])
    return trajectories.terminal_states, rewards, collected[0][1]


@pytest.mark.parametrize("space", [GRID, BOX], ids=["grid", "box"])
@pytest.mark.parametrize("back", [0.01, 0.5, 1.0])
def test_greedy_never_worsens_and_sometimes_improves(space: Environment, back: float) -> None:
    log_reward = towards_the_end(space)
    states, rewards, before = collect(space, log_reward, n_rounds=4, back=back)
    assert torch.equal(rewards, log_reward(states))
    assert torch.equal(rewards[:N], before)
    assert bool((rewards[N:] >= before).all())
    assert float(rewards[N:].mean()) > float(before.mean())


def test_more_rounds_go_further() -> None:
    log_reward = towards_the_end(GRID)
    means = [float(collect(GRID, log_reward, n_rounds=n)[1][N:].mean()) for n in (1, 4, 16)]
    assert means == sorted(means)
    assert means[2] > means[0] + 0.1


def test_stochastic_takes_worse_ones_too() -> None:
    log_reward = towards_the_end(GRID)
    _, rewards, before = collect(GRID, log_reward, n_rounds=3, acceptance="stochastic")
    assert bool((rewards[N:] < before).any())
    assert bool((rewards[N:] > before).any())
    steep = lambda states: 1e4 * log_reward(states)  # noqa: E731
    _, rewards, before = collect(GRID, steep, n_rounds=3, acceptance="stochastic")
    assert bool((rewards[N:] >= before).all())


@pytest.mark.parametrize(("beta_range", "worsens"), [((1e-6, 2e-6), True), ((1e4, 2e4), False)])
def test_stochastic_acceptance_is_of_the_power_that_is_trained(
    beta_range: tuple[float, float], worsens: bool
) -> None:
    net = GFlowNet(GRID, hidden=(8,), beta_range=beta_range)
    generator = torch.Generator().manual_seed(0)
    search = LocalSearch(n_rounds=3, acceptance="stochastic")
    collector = Collector(GRID, net.policy, generator, None, search, beta_range)
    behaviour = Behaviour(net.policy.forward_logits)
    _, rewards = collector.collect(Sources(N), behaviour, towards_the_end(GRID))
    assert bool((rewards[N:] < rewards[:N]).any()) == worsens


@pytest.mark.parametrize("acceptance", ["greedy", "stochastic"])
@pytest.mark.parametrize("is_backward_learned", [False, True])
def test_it_trains_to_the_reward(acceptance: str, is_backward_learned: bool) -> None:
    net = GFlowNet(
        GRID,
        hidden=(32, 32),
        learning_rate=5e-3,
        is_backward_learned=is_backward_learned,
        local_search={"n_rounds": 2, "acceptance": acceptance},
    )
    log_reward = towards_the_end(GRID)
    losses = net.train(log_reward, 150, 16)
    states, probabilities = terminal_distribution(net)
    target = log_reward(states).softmax(dim=0)
    assert len(losses) == 150
    assert float((probabilities - target).abs().sum()) < 0.15


def test_what_it_finds_is_replayed() -> None:
    net = GFlowNet(GRID, hidden=(8,), local_search={}, replay={"capacity": 5, "fraction": 0.5})
    seen: list[Tensor] = []

    def recording(states: Tensor) -> Tensor:
        seen.append(states)
        return towards_the_end(GRID)(states)

    net.train(recording, 1, 16)
    assert len(seen) == 5  # the batch, and four rounds
    assert net.replay is not None
    best = float(towards_the_end(GRID)(torch.cat(seen)).max())
    assert float(net.replay.log_reward[0]) == best
    assert len(net.train(recording, 3, 16)) == 3


def test_examples_alone_are_not_searched_around() -> None:
    net = GFlowNet(GRID, hidden=(8,), local_search={})
    target = GRID.from_keys(["1,2"])
    sizes: list[int] = []

    def recording(states: Tensor) -> Tensor:
        sizes.append(len(states))
        return towards_the_end(GRID)(states)

    net.train(recording, 1, 8, examples=target, example_fraction=1.0)
    assert sizes == [8]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"n_rounds": 0}, "expected n_rounds of 1 or more"),
        ({"back": 0.0}, "back above 0 up to 1, got 4 and 0.0"),
        ({"back": 1.1}, "back above 0 up to 1"),
        ({"acceptance": "metropolis"}, "acceptance: expected .*'stochastic'.* got 'metropolis'"),
        ({"rounds": 3}, "unknown option 'rounds'; expected n_rounds, back, acceptance"),
    ],
)
def test_impossible_options_are_refused(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=f"local_search.*{word}"):
        GFlowNet(GRID, local_search=options)


def test_no_options_no_search() -> None:
    assert make_local_search(None) is None
    assert make_local_search({}) == LocalSearch()

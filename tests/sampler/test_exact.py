"""Enumeration against brute force over every path, and distances against values by hand."""

import gc
import math
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sampler import GFlowNet, exact
from sampler.environment import Environment
from sampler.environments.hyper_grid import HyperGrid
from sampler.environments.hypercube import Hypercube
from sampler.environments.subset import Subset
from sampler.exact import (
    TooManyStatesError,
    empirical_distribution,
    exact_log_z,
    jensen_shannon,
    l1,
    lookup,
    target_distribution,
    terminal_distribution,
    total_variation,
)
from sampler.policy import masked_log_softmax


class Stairs(HyperGrid):
    """A line where one may climb one step or two, so that a place has paths of many lengths."""

    def __init__(self, length: int) -> None:
        super().__init__(1, length)
        self.n_actions = 3
        self.is_tree = False

    def forward_mask(self, states: Tensor) -> Tensor:
        place, is_running = states[:, 0], states[:, 1] == 0
        below = [is_running & (place < self.length - rise) for rise in (1, 2)]
        return torch.stack([below[0], is_running, below[1]], dim=1)

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        return states + torch.tensor([[1, 0], [0, 1], [2, 0]])[actions]


class LinearPolicy:
    """Logits are a random linear function of the policy inputs, in float64."""

    def __init__(self, environment: Environment, seed: int) -> None:
        self.environment = environment
        generator = torch.Generator().manual_seed(seed)
        shape = (environment.n_policy_inputs, environment.n_actions)
        self.weights = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
        self.seen: list[list[int]] = []

    def log_forward(self, states: Tensor) -> Tensor:
        self.seen += states.tolist()
        logits = self.environment.policy_inputs(states).double() @ self.weights
        return masked_log_softmax(logits, self.environment.forward_mask(states))


def by_every_path(policy: LinearPolicy) -> dict[tuple[int, ...], float]:
    """Sum of the probabilities of all paths to each terminal state, one path after the other."""
    space, total = policy.environment, defaultdict(float)
    stack = [(space.initial_states(1), 1.0)]
    while stack:
        state, probability = stack.pop()
        if bool(space.is_terminal(state)):
            total[tuple(state[0].tolist())] += probability
            continue
        log_forward = policy.log_forward(state)[0]
        for action in space.forward_mask(state)[0].nonzero()[:, 0]:
            child = space.step(state, action[None])
            stack.append((child, probability * math.exp(float(log_forward[action]))))
    return dict(total)


SPACES = st.one_of(
    st.builds(HyperGrid, st.integers(1, 3), st.integers(2, 3)),
    st.builds(Subset, st.just(4), st.sampled_from([2, (0, 2), (1, 4)])),
    st.builds(Stairs, st.integers(2, 7)),
    st.just(HyperGrid(2, 3).restricted({"x0": [1, 2], "x1": 1})),
)


@given(SPACES, st.integers(0, 1000))
@settings(max_examples=40)
def test_the_distribution_is_the_sum_over_all_paths(space: Environment, seed: int) -> None:
    policy = LinearPolicy(space, seed)
    states, probabilities = terminal_distribution(policy)
    expected = by_every_path(policy)
    rows = [tuple(row) for row in states.tolist()]
    assert rows == sorted(expected)
    assert probabilities.dtype == torch.float64
    assert probabilities.tolist() == pytest.approx([expected[row] for row in rows], abs=1e-12)
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "space", [HyperGrid(3, 4), Stairs(9), Subset(5, (1, 3))], ids=["grid", "stairs", "subset"]
)
def test_the_network_sees_each_state_once(
    space: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_CHUNK", 7)
    policy = LinearPolicy(space, 0)
    _, in_chunks = terminal_distribution(policy)
    seen = [tuple(row) for row in policy.seen]
    assert len(set(seen)) == len(seen)
    assert not bool(space.is_terminal(torch.tensor(seen)).any())
    monkeypatch.setattr(exact, "_CHUNK", 10_000)
    assert torch.allclose(terminal_distribution(policy)[1], in_chunks, atol=1e-14)


def test_a_remembered_space_shows_new_weights() -> None:
    space = HyperGrid(2, 4)
    for seed in (1, 2):
        policy = LinearPolicy(space, seed)
        states, probabilities = terminal_distribution(policy)
        expected = by_every_path(policy)
        assert probabilities.tolist() == pytest.approx(
            [expected[tuple(s)] for s in states.tolist()]
        )


def test_a_space_is_forgotten_with_its_last_reference() -> None:
    space = HyperGrid(2, 4)
    gc.collect()  # spaces of other tests may still be waiting for it
    n_before = len(exact._walks)
    exact_log_z(space, lambda states: states[:, 0].double())
    assert len(exact._walks) == n_before + 1
    del space
    gc.collect()
    assert len(exact._walks) == n_before


def test_the_limit_holds_for_known_and_unknown_spaces() -> None:
    policy = LinearPolicy(HyperGrid(2, 6), 0)  # 36 running states and 36 terminal ones
    for _ in range(2):
        with pytest.raises(TooManyStatesError, match="at most 71 states"):
            terminal_distribution(policy, max_states=71)
    assert len(terminal_distribution(policy, max_states=72)[0]) == 36
    with pytest.raises(TooManyStatesError, match="at most 20 states"):
        terminal_distribution(policy, max_states=20)


def test_a_continuous_space_cannot_be_enumerated() -> None:
    space = Hypercube(2, [[0.0, 1.0]] * 2)
    with pytest.raises(ValueError, match=r"expected a discrete space, .* sampler\.evaluation"):
        terminal_distribution(GFlowNet(space, hidden=(8,), device="cpu"))
    with pytest.raises(ValueError, match="expected a discrete space"):
        exact_log_z(space, lambda states: states[:, 0])


def test_the_total_reward_is_the_sum_over_the_space() -> None:
    space = HyperGrid(2, 3)

    def log_reward(states: Tensor) -> Tensor:
        return (1.0 + states[:, 0] + 10 * states[:, 1]).double().log() + 200.0

    rewards = [1.0 + x + 10 * y for x in range(3) for y in range(3)]
    assert exact_log_z(space, log_reward) == pytest.approx(math.log(sum(rewards)) + 200.0)
    states, probabilities = target_distribution(space, log_reward)
    assert space.keys(states) == [f"{x},{y}" for x in range(3) for y in range(3)]
    assert probabilities.tolist() == pytest.approx([r / sum(rewards) for r in rewards])


def test_the_target_of_a_restricted_space_and_rewards_of_zero() -> None:
    space = HyperGrid(2, 3).restricted({"x0": [1, 2], "x1": 2})
    states, probabilities = target_distribution(
        space, lambda states: torch.where(states[:, 0] == 1, -torch.inf, 3.0)
    )
    assert space.keys(states) == ["1,2", "2,2"]
    assert probabilities.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("value", "words"), [(-torch.inf, "a reward above 0 somewhere"), (torch.nan, "candidate '0,0'")]
)
def test_a_target_without_a_distribution_is_refused(value: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        target_distribution(HyperGrid(2, 3), lambda states: torch.full((len(states),), value))


def test_values_and_frequencies_of_known_states() -> None:
    space = HyperGrid(2, 3)
    known = space.from_keys(["0,0", "2,1", "1,1"])
    asked = space.from_keys(["1,1", "0,0", "1,1", "1,1"])
    assert lookup(asked, known, torch.tensor([0.1, 0.2, 0.7])).tolist() == pytest.approx(
        [0.7, 0.1, 0.7, 0.7]
    )
    assert empirical_distribution(asked, known).tolist() == [0.25, 0.0, 0.75]
    with pytest.raises(ValueError, match=r"state \[2, 2, 1\] is not a terminal state"):
        empirical_distribution(space.from_keys(["0,0", "2,2"]), known)
    with pytest.raises(ValueError, match="at least one sample"):
        empirical_distribution(known[:0], known)


def test_distances_by_hand() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5])
    assert l1(p, q) == pytest.approx(1.0)
    assert total_variation(p, q) == pytest.approx(0.5)
    assert jensen_shannon(p, q) == pytest.approx(0.5 * math.log(2))
    apart = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert (l1(*apart), total_variation(*apart)) == (2.0, 1.0)
    assert jensen_shannon(*apart) == pytest.approx(math.log(2))


@given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4), st.integers(0, 99))
@settings(max_examples=50)
def test_distances_are_symmetric_bounded_and_zero_at_equality(raw: list[float], seed: int) -> None:
    p = torch.tensor([*raw, 1.0], dtype=torch.float64)
    p = p / p.sum()
    q = torch.rand(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q = q / q.sum()
    for distance, largest in ((l1, 2.0), (total_variation, 1.0), (jensen_shannon, math.log(2))):
        assert distance(p, p) == pytest.approx(0.0, abs=1e-15)
        assert distance(p, q) == pytest.approx(distance(q, p), abs=1e-15)
        assert 0.0 <= distance(p, q) <= largest
    assert jensen_shannon(p, q) >= total_variation(p, q) ** 2 / 2  # Pinsker's inequality


@pytest.mark.parametrize(
    ("p", "q", "words"),
    [
        ([0.5, 0.5], [1.0], "one length"),
        ([[1.0]], [[1.0]], "one length"),
        ([0.5, 0.5], [5.0, 5.0], "the second vector: .* a sum of 10"),
        ([-0.5, 1.5], [0.5, 0.5], "the first vector: .* smallest value of -0.5"),
        ([math.nan, 1.0], [0.5, 0.5], "the first vector"),
    ],
)
def test_vectors_that_are_no_probabilities_are_refused(p: list, q: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        jensen_shannon(torch.tensor(p), torch.tensor(q))

"""A space that is spelled is walked just as one that is asked."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, environment
from sampler.activations import Activations
from sampler.environment import Environment
from sampler.environments.sequence import Sequence
from sampler.policy import Policy
from sampler.rollout import Behaviour, Trajectories, roll_out
from sampler.spelled import roll_out_spelled
from sampler.spelling import Spelled, Spelling, spelling_of

CPU = torch.device("cpu")
SPACES = {
    "one length": {"alphabet": "ACGT", "min_length": 5, "max_length": 5},
    "many lengths": {"alphabet": "ACG", "min_length": 2, "max_length": 6},
    "one letter": {"alphabet": "01", "min_length": 1, "max_length": 1},
    "one letter or two": {"alphabet": "01", "min_length": 1, "max_length": 2},
}


def make(name: str) -> Environment:
    return environment("sequence", **SPACES[name])


def spelling(name: str) -> Spelling:
    tables = spelling_of(make(name), CPU)
    assert tables is not None
    return tables


def log_reward(states: Tensor) -> Tensor:
    """Towards many of the second letter."""
    return 0.7 * (states == 2).sum(dim=1).double()


def trained(space: Environment, batch_size: int, *, walk: bool, **options: object) -> GFlowNet:
    """A few steps by the spelling, or (`walk` False) by asking the environment."""
    settings = {"hidden": (12, 10), "exploration": 0.2, "temperature": 1.5, **options}
    net = GFlowNet(space, max_states_tabulated=0, **settings)
    assert net._collector.spelling is not None
    if not walk:
        net._collector.spelling = None
    net.train(log_reward, 12, batch_size)
    return net


@pytest.mark.parametrize("name", SPACES)
def test_the_tables_say_what_the_space_says(name: str) -> None:
    """Along every path: masks, ends, states, and that one policy input is switched on."""
    space, tables = make(name), spelling(name)
    states, step = space.initial_states(1), 0
    while len(states) > 0:
        assert torch.equal(
            space.forward_mask(states),
            torch.from_numpy(tables.allowed[step]).expand(len(states), -1),
        )
        rows, actions = space.forward_mask(states).nonzero(as_tuple=True)
        children = space.step(states[rows], actions)
        is_final = torch.from_numpy(tables.is_final[step])[actions]
        assert torch.equal(space.is_terminal(children), is_final)
        written = states[rows].clone()
        columns = torch.from_numpy(tables.columns[step])[actions]
        numbers = torch.from_numpy(tables.numbers[step])[actions]
        written[torch.arange(len(rows)), columns] = numbers
        assert torch.equal(written, children)
        switched = torch.from_numpy(tables.inputs[step])[actions]
        change = space.policy_inputs(children) - space.policy_inputs(states[rows])
        assert torch.equal(change, torch.eye(space.n_policy_inputs)[switched])
        states, step = children[~is_final], step + 1
    assert step == len(tables.allowed)


@pytest.mark.parametrize("merges", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_trajectories_are_those_of_the_environment(name: str, merges: bool) -> None:
    space = make(name)
    policy = Policy(space.n_policy_inputs, space.n_actions, (12, 10), seed=1)
    with torch.no_grad():
        policy.layers[-1].weight.mul_(200)  # far from uniform
    behaviour = Behaviour(policy.forward_logits, exploration=0.1)
    activations, start = Activations(policy.widths, CPU), space.initial_states(60)
    walked = roll_out_spelled(
        spelling(name),
        policy,
        activations,
        start,
        space.policy_inputs(start[:1] if merges else start),
        torch.Generator().manual_seed(3),
        behaviour,
    )

    def outputs(states: Tensor, _: Tensor) -> Tensor:
        return policy(space.policy_inputs(states))

    asked = roll_out(space, outputs, 60, torch.Generator().manual_seed(3), behaviour)
    for field in dataclasses.fields(Trajectories):
        if field.name not in ("asked", "amounts"):
            got, want = getattr(walked, field.name), getattr(asked, field.name)
            assert got is want or torch.equal(got, want), field.name
    recalled = policy.recalled(activations)[walked.asked]
    assert torch.allclose(recalled, policy(space.policy_inputs(asked.states)), atol=1e-5)
    n_states = len(asked.states.unique(dim=0)) if merges else len(asked.states)
    assert activations.n <= len(asked.states)
    assert activations.n >= n_states


@pytest.mark.parametrize("merges", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_gradients_are_those_of_autograd(name: str, merges: bool) -> None:
    space = make(name)
    policy = Policy(space.n_policy_inputs, space.n_actions, (12, 10), seed=1)
    activations, start = Activations(policy.widths, CPU), space.initial_states(900)
    walked = roll_out_spelled(
        spelling(name),
        policy,
        activations,
        start,
        space.policy_inputs(start[:1] if merges else start),
        torch.Generator().manual_seed(3),
        Behaviour(policy.forward_logits),
    )
    more = torch.randn(5, space.n_policy_inputs, generator=torch.Generator().manual_seed(1))
    policy.run(more, activations)  # as for replayed trajectories, behind those drawn
    factor = torch.randn(len(walked.rows) + 5, policy.n_outputs)
    asked = torch.cat([walked.asked, torch.arange(5) + activations.n - 5])

    def gradients(outputs: Tensor) -> list[Tensor]:
        policy.zero_grad()
        (outputs.sin() * factor).sum().backward()
        return [parameter.grad.clone() for parameter in policy.layers.parameters()]

    inputs = torch.cat([space.policy_inputs(walked.states), more])
    wanted = gradients(policy(inputs))
    got = gradients(policy.recalled(activations)[asked])
    for left, right in zip(got, wanted, strict=True):
        scale = float(right.abs().max())
        assert scale > 0
        assert torch.allclose(left, right, atol=2e-5 * scale, rtol=1e-3)


@pytest.mark.parametrize("batch_size", [3, 100])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"merges_states": False},
        {"loss": "detailed_balance"},
        {"loss": "sub_trajectory_balance"},
        {"loss": "flow_matching"},
        {"loss": "log_partition_variance", "beta_range": (0.5, 2.0)},
        {"replay": {"fraction": 0.5}, "local_search": {"n_rounds": 1}},
    ],
)
def test_training_is_the_same_to_rounding(options: dict, batch_size: int) -> None:
    space = make("many lengths")
    walked, asked = (
        trained(space, batch_size, walk=walk, **options).policy.layers for walk in (True, False)
    )
    for left, right in zip(walked.parameters(), asked.parameters(), strict=True):
        assert torch.allclose(left, right, atol=1e-4)


def test_a_sequence_that_grows_at_both_ends_is_not_spelled() -> None:
    space = environment("sequence", alphabet="ACGT", min_length=3, max_length=3, both_ends=True)
    assert isinstance(space, Spelled)
    assert spelling_of(space, CPU) is None
    assert spelling_of(make("one length").restricted({"letters": "AC"}), CPU) is None
    assert spelling_of(environment("hyper_grid", n_dims=2, length=4), CPU) is None
    assert spelling_of(make("one length"), torch.device("meta")) is None


class NeverTwice(Sequence):
    """Words in which no letter follows itself: the inherited tables would not know."""

    def forward_mask(self, states: Tensor) -> Tensor:
        mask = super().forward_mask(states)
        last = states.gather(1, (states.sign().sum(1, keepdim=True) - 1).clamp_min(0))
        return mask & (torch.arange(self.n_actions) + 1 != last)


def test_a_subclass_with_other_masks_does_not_inherit_the_tables() -> None:
    space = NeverTwice("ACG", 8, 8)
    assert spelling_of(space, CPU) is None
    assert spelling_of(Sequence("ACG", 8, 8), CPU) is not None
    net = GFlowNet(space, hidden=(8,), max_states_tabulated=0)
    seen: list[Tensor] = []
    net.train(lambda states: (seen.append(states), log_reward(states))[1], 2, 20)
    words = torch.cat(seen)
    assert not (words[:, 1:] == words[:, :-1]).any()


def test_tables_that_cannot_be_walked_are_refused() -> None:
    good = spelling("many lengths")
    columns = np.zeros_like(good.columns)
    with pytest.raises(ValueError, match="one step writes column 0, got steps 0 and 1"):
        dataclasses.replace(good, columns=columns)
    with pytest.raises(ValueError, match="expected that step 5, the last, is final"):
        dataclasses.replace(
            good, allowed=good.allowed[:-1], is_final=good.is_final[:-1], columns=good.columns[:-1]
        )


def test_logits_that_are_not_finite_are_said_to_be() -> None:
    space = make("many lengths")
    net = GFlowNet(space, hidden=(8,), max_states_tabulated=0)
    with torch.no_grad():
        net.policy.layers[-1].bias.fill_(torch.nan)
    with pytest.raises(RuntimeError, match=r"not finite in the state|the loss is nan"):
        net.train(log_reward, 1, 8)

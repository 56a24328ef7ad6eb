"""Small engines of the tests' own: every state of a tiny space, and uniformly random walks."""

import torch
from torch import Tensor

from sampler.environment import Environment


def all_states(space: Environment) -> Tensor:
    """Every state of a discrete space that allowed actions lead to, `(n, w)` in sorted order."""
    level, found = space.initial_states(1), []
    while len(level):
        found.append(level)
        rows, actions = space.forward_mask(level).nonzero(as_tuple=True)
        level = torch.unique(space.step(level[rows], actions), dim=0)
    return torch.unique(torch.cat(found), dim=0)


def random_walks(
    space: Environment, n: int, seed: int = 0
) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor, Tensor]]]:
    """Terminal states of n walks and, per step, parents, actions, amounts, children."""
    generator = torch.Generator().manual_seed(seed)
    states, steps, finished = space.initial_states(n), [], []
    for _ in range(space.max_steps + 1):
        is_done = space.is_terminal(states)
        finished.append(states[is_done])
        states = states[~is_done]
        if len(states) == 0:
            return torch.cat(finished), steps
        mask = space.forward_mask(states)
        assert bool(mask.any(1).all()), "dead end"
        actions = torch.multinomial(mask.double(), 1, generator=generator).squeeze(1)
        low, high = space.amount_range(states, actions)
        share = 0.01 + 0.98 * torch.rand(len(states), generator=generator, dtype=torch.float64)
        amounts = low + share * (high - low)
        children = space.step(states, actions, amounts)
        steps.append((states, actions, amounts, children))
        states = children
    raise AssertionError(f"a walk is longer than max_steps = {space.max_steps}")


def check_discrete_laws(space: Environment) -> None:
    """Assert the laws of a discrete space at every state of it."""
    states = all_states(space)
    rows, actions = space.forward_mask(states).nonzero(as_tuple=True)
    before = states.clone()
    children = space.step(states[rows], actions)
    assert torch.equal(states, before)
    assert bool(space.backward_mask(children).gather(1, actions[:, None]).all())
    assert torch.equal(space.step_back(children, actions), states[rows])
    rows, actions = space.backward_mask(states).nonzero(as_tuple=True)
    parents = space.step_back(states[rows], actions)
    assert bool(space.forward_mask(parents).gather(1, actions[:, None]).all())
    assert torch.equal(space.step(parents, actions), states[rows])
    is_terminal = space.is_terminal(states)
    assert torch.equal(space.forward_mask(states).any(1), ~is_terminal)
    is_initial = (states == space.initial_states(1)).all(1)
    assert torch.equal(space.backward_mask(states).any(1), ~is_initial)
    inputs = space.policy_inputs(states[~is_terminal])
    assert inputs.shape == (int((~is_terminal).sum()), space.n_policy_inputs)
    assert inputs.dtype == torch.float32
    assert float(inputs.abs().max()) <= 1
    assert len(torch.unique(inputs, dim=0)) == len(inputs)
    finished = states[is_terminal]
    keys = space.keys(finished)
    assert len(set(keys)) == len(finished)
    assert torch.equal(space.from_keys(keys), finished)
    assert torch.equal(space.encode(space.decode(finished)), finished)
    features = space.features(finished)
    assert features.shape == (len(finished), space.n_features)
    assert features.dtype == torch.float64
    assert float(features.min()) >= -0.5
    assert float(features.max()) <= 1.5

"""A small engine of the tests' own for spaces with amounts, and the laws that hold there."""

import torch
from torch import Tensor

from sampler.environment import Environment

Step = tuple[Tensor, Tensor, Tensor, Tensor]
"""Parents, actions, amounts, children."""


def walk(space: Environment, n: int, seed: int = 0) -> tuple[Tensor, list[Step]]:
    """Terminal states of n random walks in the order of their rows, and their steps."""
    generator = torch.Generator().manual_seed(seed)
    states, steps = space.initial_states(n), []
    rows, terminal_states = torch.arange(n), space.initial_states(n)
    while len(rows) > 0:
        assert len(steps) < space.max_steps
        mask = space.forward_mask(states)
        assert bool(mask.any(dim=1).all()), "dead end"
        actions = torch.multinomial(mask.double(), 1, generator=generator)[:, 0]
        low, high = space.amount_range(states, actions)
        assert bool((low != high).all())
        width = torch.where(low < high, high - low, high - low + 1)
        share = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        amounts = (low + share * width) % 1.0
        before = states.clone()
        children = space.step(states, actions, amounts)
        assert torch.equal(states, before), "step changed its argument"
        steps.append((states, actions, amounts, children))
        is_done = space.is_terminal(children)
        assert torch.equal(is_done, ~space.forward_mask(children).any(dim=1))
        terminal_states[rows[is_done]] = children[is_done]
        states, rows = children[~is_done], rows[~is_done]
    return terminal_states, steps


def check_continuous_laws(space: Environment, n: int = 300) -> None:
    """Assert the laws of a space with amounts on random walks through it."""
    terminal, steps = walk(space, n)
    assert not bool(space.backward_mask(space.initial_states(2)).any())
    generator = torch.Generator().manual_seed(1)
    for parents, actions, amounts, children in steps:
        assert children.dtype == torch.float64
        assert bool(space.backward_mask(children).gather(1, actions[:, None]).all())
        between = space.amounts_between(parents, actions, children)
        assert space.action_heads is not None
        has_amount = space.action_heads[actions] >= 0
        miss = (between - amounts).abs() * space.log_width(parents, actions).exp()
        assert not bool(((miss > 1e-9) & has_amount).any())  # rounded to the grid, no more
        assert torch.equal(space.step(parents, actions, between), children)
        assert bool(space.log_width(parents, actions).isfinite().all())
        assert bool(space.log_width_back(children, actions).isfinite().all())
        inputs = space.policy_inputs(parents)
        assert inputs.shape == (len(parents), space.n_policy_inputs)
        assert inputs.dtype == torch.float32
        assert float(inputs.abs().max()) <= 1
        assert len(torch.unique(inputs, dim=0)) == len(torch.unique(parents, dim=0))
        rows, undone = space.backward_mask(children).nonzero(as_tuple=True)
        ends = torch.tensor([0.0, 1e-12, 1 - 1e-12, 1.0], dtype=torch.float64)
        drawn = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        drawn[: min(4, len(rows))] = ends[: len(rows)]
        grandparents = space.step_back(children[rows], undone, drawn)
        assert bool(space.forward_mask(grandparents).gather(1, undone[:, None]).all())
        between = space.amounts_between(grandparents, undone, children[rows])
        has_amount = space.action_heads[undone] >= 0
        assert bool(((between > 0) & (between < 1))[has_amount].all())
        assert torch.equal(space.step(grandparents, undone, between), children[rows])
    check_candidates(space, terminal)


def check_candidates(space: Environment, terminal: Tensor) -> None:
    """Assert that keys and candidates lead back to terminal states, and what features are."""
    keys = space.keys(terminal)
    assert torch.equal(space.from_keys(keys), terminal)
    assert len(set(keys)) == len(torch.unique(terminal, dim=0))
    assert torch.equal(space.encode(space.decode(terminal)), terminal)
    assert space.encode([]).shape == space.from_keys([]).shape == terminal[:0].shape
    assert space.encode([]).dtype == terminal.dtype
    assert space.keys(terminal[:0]) == space.decode(terminal[:0]) == []
    features = space.features(terminal)
    assert features.shape == (len(terminal), space.n_features)
    assert features.dtype == torch.float64
    assert float(features.min()) >= 0
    assert float(features.max()) <= 1
    assert len(space.describe(terminal)) == len(space.families(terminal)) == len(terminal)

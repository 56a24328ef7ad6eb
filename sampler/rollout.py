"""Batched trajectories, forward from the initial state and backward from finished candidates.

Rollouts need no gradient: they record flat transitions, and the losses run the network once more
over all of them together. Finished rows leave the batch, so the work is the sum of the lengths.
Named axes: n trajectories, t transitions of all of them, w state columns, a actions, p inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sampler.environment import Environment
from sampler.policy import masked_log_softmax

Logits = Callable[[Tensor], Tensor]
"""From policy inputs `(n, p)` to unmasked logits `(n, a)`."""


@dataclass(frozen=True)
class Trajectories:
    """The transitions of n complete trajectories, in any order; `rows` says whose each one is."""

    terminal_states: Tensor  # (n, w)
    rows: Tensor  # (t,)
    actions: Tensor  # (t,)
    children: Tensor  # (t, w)
    inputs: Tensor  # (t, p): policy inputs of the parents
    masks: Tensor  # (t, a): forward masks of the parents

    def __len__(self) -> int:
        return len(self.terminal_states)


def roll_out(
    environment: Environment,
    logits: Logits,
    n: int,
    generator: torch.Generator,
    exploration: float = 0.0,
) -> Trajectories:
    """Sample n trajectories of the forward policy, mixed with `exploration` of uniform actions."""
    states, rows = environment.initial_states(n), torch.arange(n)
    terminal_states = states.clone()
    steps: list[tuple[Tensor, ...]] = []
    while len(rows) > 0 or not steps:  # once without rows too: the answer keeps its shape
        _check_length(environment, len(steps))
        inputs, mask = environment.policy_inputs(states), environment.forward_mask(states)
        actions = choose(logits(inputs), mask, generator, exploration)
        children = environment.step(states, actions)
        steps.append((rows, actions, children, inputs, mask))
        is_done = environment.is_terminal(children)
        terminal_states[rows[is_done]] = children[is_done]
        states, rows = children[~is_done], rows[~is_done]
    return Trajectories(terminal_states, *_concatenated(steps))


def roll_back(
    environment: Environment,
    terminal_states: Tensor,
    backward_logits: Logits | None,
    generator: torch.Generator,
) -> Trajectories:
    """One trajectory that ends in each of `terminal_states`, drawn from the backward policy.

    Without `backward_logits` that policy is uniform over parents.
    """
    states, rows = terminal_states, torch.arange(len(terminal_states))
    steps: list[tuple[Tensor, ...]] = []
    while len(rows) > 0 or not steps:  # once without rows too: the answer keeps its shape
        _check_length(environment, len(steps))
        mask = environment.backward_mask(states)
        logits = torch.zeros(mask.shape)
        if backward_logits is not None:
            logits = backward_logits(environment.policy_inputs(states))
        actions = choose(logits, mask, generator)
        parents = environment.step_back(states, actions)
        steps.append((rows, actions, states, *_seen_by_policy(environment, parents)))
        has_parent = environment.backward_mask(parents).any(dim=1)
        states, rows = parents[has_parent], rows[has_parent]
    return Trajectories(terminal_states, *_concatenated(steps))


def joined(first: Trajectories, second: Trajectories) -> Trajectories:
    """Both sets of trajectories as one, those of `first` in front."""
    return Trajectories(
        torch.cat([first.terminal_states, second.terminal_states]),
        torch.cat([first.rows, second.rows + len(first)]),
        torch.cat([first.actions, second.actions]),
        torch.cat([first.children, second.children]),
        torch.cat([first.inputs, second.inputs]),
        torch.cat([first.masks, second.masks]),
    )


def choose(
    logits: Tensor, mask: Tensor, generator: torch.Generator, exploration: float = 0.0
) -> Tensor:
    """One allowed action a row, `(n,)`, by the Gumbel-max trick: argmax of logits + Gumbel noise.

    With probability `exploration` a row's logits count as equal. RuntimeError at a dead end.
    """
    if not bool(mask.any(dim=1).all()):
        raise RuntimeError("dead end: a state that is not terminal allows no action")
    if exploration > 0:
        is_uniform = torch.rand(len(logits), 1, generator=generator) < exploration
        logits = logits.masked_fill(is_uniform, 0.0)
    # -log(-log u) is a Gumbel variate; u = 0, which float32 draws now and then, would be -inf.
    uniform = torch.rand(logits.shape, generator=generator).clamp_min_(1e-10)
    noise = uniform.log_().neg_().log_()
    return (logits - noise).masked_fill_(~mask, -math.inf).argmax(dim=1)


def log_backward(
    environment: Environment, children: Tensor, actions: Tensor, backward_logits: Logits | None
) -> Tensor:
    """Return log P_B of undoing `actions` at `children`, `(t,)`; uniform without logits."""
    mask = environment.backward_mask(children)
    if backward_logits is None:
        return -mask.sum(dim=1).float().log()
    logits = backward_logits(environment.policy_inputs(children))
    return masked_log_softmax(logits, mask).gather(1, actions[:, None])[:, 0]


def _seen_by_policy(environment: Environment, states: Tensor) -> tuple[Tensor, Tensor]:
    return environment.policy_inputs(states), environment.forward_mask(states)


def _concatenated(steps: list[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.cat(column) for column in zip(*steps, strict=True)]


def _check_length(environment: Environment, n_steps: int) -> None:
    if n_steps >= environment.max_steps:
        raise RuntimeError(f"a trajectory is longer than max_steps = {environment.max_steps}")

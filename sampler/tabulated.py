"""Rollouts in a space that is small enough to be written down: every question is a look-up.

What a state allows, where each action leads and what the policy sees are asked of the environment
once for all states; then a step of a batch is a few numpy calls on whole numbers, which for small
batches take a third of the time of the same calls on tensors. The trajectories are those that
`sampler.rollout` draws from the same random numbers.

Named axes: m states, n trajectories, a actions, p policy inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampler.environment import Environment
from sampler.exact import TooManyStatesError, reachable
from sampler.rollout import (
    Behaviour,
    Merger,
    Noise,
    Trajectories,
    check_choices,
    check_length,
)

_MAX_NUMBERS = 8_000_000
_NEVER = np.float32(-np.inf)
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """A space written down; the initial state is number 0."""

    states: Tensor  # (m, w)
    masks: Tensor  # (m, a)
    inputs: Tensor  # (m, p)
    children: Whole  # (m · a,): the state that each allowed action leads to
    allowed: NDArray[np.bool_]  # (m, a): the masks again
    is_terminal: NDArray[np.bool_]  # (m,)
    max_steps: int


def tabulate(environment: Environment, max_states: int) -> Table | None:
    """The table of a discrete space on the CPU; None if it is larger than `max_states`."""
    is_elsewhere = environment.initial_states(0).device.type != "cpu"
    if environment.action_heads is not None or is_elsewhere or max_states < 1:
        return None
    try:
        states, parents, actions, children = reachable(environment, max_states)
    except TooManyStatesError:
        return None
    n_actions = environment.n_actions
    if len(states) * (n_actions + environment.n_policy_inputs) > _MAX_NUMBERS:
        return None
    masks = environment.forward_mask(states)
    next_state = torch.zeros(len(states) * n_actions, dtype=torch.int64)
    next_state[parents * n_actions + actions] = children
    return Table(
        states,
        masks,
        environment.policy_inputs(states),
        next_state.numpy(),
        masks.numpy(),
        environment.is_terminal(states).numpy(),
        environment.max_steps,
    )


def roll_out_tabulated(
    table: Table,
    outputs: Callable[[Tensor], Tensor],
    n: int,
    generator: torch.Generator,
    behaviour: Behaviour,
    *,
    can_merge: bool,
) -> Trajectories:
    """Sample n trajectories; `outputs` maps policy inputs `(k, p)` to the policy's outputs.

    RuntimeError at a dead end, naming the state.
    """
    n_actions = table.masks.shape[1]
    noise = Noise(n_actions, generator, behaviour.exploration)
    ids, rows = np.zeros(n, dtype=np.int64), np.arange(n)
    steps: list[tuple[Any, ...]] = []
    asked: list[Whole] = []
    n_asked, is_merging = 0, can_merge
    with torch.inference_mode():
        while len(ids) > 0 or not steps:
            groups = _groups(ids) if is_merging and len(ids) >= Merger.SMALLEST else None
            is_merging = is_merging and (groups is not None or len(ids) < Merger.SMALLEST)
            distinct, which = (ids, None) if groups is None else groups
            answer = outputs(table.inputs.index_select(0, torch.from_numpy(distinct)))
            scores = _scores(answer, which, noise, len(ids), behaviour)
            allowed = table.allowed.take(ids, axis=0)
            actions = np.where(allowed, scores, _NEVER).argmax(axis=1)
            children = table.children.take(ids * n_actions + actions)
            is_done = table.is_terminal.take(children)
            steps.append((rows, ids, actions, children))
            if len(steps) > table.max_steps:  # something was not allowed, or the bound is wrong
                every = [
                    torch.from_numpy(np.concatenate(column)) for column in zip(*steps, strict=True)
                ]
                check_choices(table.states[every[1]], table.masks[every[1]], every[2])
                check_length(table.max_steps, len(steps), table.states[ids])
            asked.append((np.arange(len(ids)) if which is None else which) + n_asked)
            n_asked += len(distinct)
            if is_done.any():
                going = ~is_done
                ids, rows = children[going], rows[going]
            else:
                ids = children
    return _trajectories(table, steps, asked, n)


def _groups(ids: Whole) -> tuple[Whole, Whole] | None:
    """Each state once, and which of them every row is in; None if that saves little."""
    distinct, which = np.unique(ids, return_inverse=True)
    return None if len(distinct) > Merger.WORTHWHILE * len(ids) else (distinct, which)


def _scores(
    answer: Tensor, which: Whole | None, noise: Noise, m: int, behaviour: Behaviour
) -> NDArray[np.float32]:
    """Logits plus Gumbel noise, `(m, a)`; see `sampler.rollout.choose`."""
    gumbel, keeps = noise.draw(m)
    assert behaviour.logits is not None  # noqa: S101
    logits: NDArray[np.float32] = behaviour.logits(answer).numpy()
    if which is not None:
        logits = logits.take(which, axis=0)
    if behaviour.temperature != 1.0:
        logits = logits / np.float32(behaviour.temperature)
    if keeps is not None:
        logits = logits * keeps.numpy()
    scores: NDArray[np.float32] = logits - gumbel.numpy()
    return scores


def _trajectories(
    table: Table, steps: list[tuple[Any, ...]], asked: list[Whole], n: int
) -> Trajectories:
    rows, ids, actions, children = (
        torch.from_numpy(np.concatenate(column)) for column in zip(*steps, strict=True)
    )
    states, masks, arrived = table.states[ids], table.masks[ids], table.states[children]
    check_choices(states, masks, actions)
    ends = torch.zeros(n, dtype=torch.int64)
    is_done = torch.from_numpy(table.is_terminal)[children]
    ends[rows[is_done]] = children[is_done]
    places = torch.from_numpy(np.concatenate(asked))
    return Trajectories(table.states[ends], rows, states, actions, None, arrived, masks, places)

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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampler.activations import Floats, Whole
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
_FEWEST = 4
"""Rows among which equal states are looked for: it takes as long as asking about a row more."""


@dataclass(frozen=True)
class Table:
    """A space written down; the initial state is number 0."""

    states: Tensor  # (m, w)
    masks: Tensor  # (m, a)
    children: Whole  # (m · a,): the state that each allowed action leads to
    inputs_here: Floats  # (m, p)
    allowed: NDArray[np.bool_]  # (m, a): the masks again
    is_open: NDArray[np.bool_]  # (m,): not terminal
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
        next_state.numpy(),
        environment.policy_inputs(states).numpy(),
        masks.numpy(),
        (~environment.is_terminal(states)).numpy(),
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
    merger = _Merger(len(table.states), n, can_merge=can_merge)
    ids, rows, every = np.zeros(n, dtype=np.int64), np.arange(n), np.arange(n)
    steps: list[tuple[Whole, ...]] = []
    n_asked = 0
    with torch.inference_mode():
        while len(ids) > 0 or not steps:
            distinct, which = merger.groups(ids)
            answer = outputs(torch.from_numpy(table.inputs_here.take(distinct, axis=0)))
            scores = scores_of(answer, which, noise, len(ids), behaviour)
            allowed = table.allowed.take(ids, axis=0)
            actions = np.where(allowed, scores, _NEVER).argmax(axis=1)
            children = table.children.take(ids * n_actions + actions)
            asked = (every[: len(ids)] if which is None else which) + n_asked
            steps.append((rows, ids, actions, children, asked))
            n_asked += len(distinct)
            if len(steps) > table.max_steps:  # something was not allowed, or the bound is wrong
                every_step = [
                    torch.from_numpy(np.concatenate(column)) for column in zip(*steps, strict=True)
                ]
                check_choices(
                    table.states[every_step[1]], table.masks[every_step[1]], every_step[2]
                )
                check_length(table.max_steps, len(steps), table.states[ids])
            going = table.is_open.take(children).nonzero()[0]
            if len(going) == len(ids):
                ids = children
            else:
                ids, rows = children.take(going), rows.take(going)
    return _trajectories(table, steps, n)


class _Merger:
    """Finds rows that are in the same state, as long as there are many; see `rollout.Merger`."""

    def __init__(self, n_states: int, n: int, *, can_merge: bool) -> None:
        self._latest = np.empty(n_states, dtype=np.int64)
        self._every = np.arange(n)
        self._is_looking = can_merge

    def groups(self, ids: Whole) -> tuple[Whole, Whole | None]:
        """The states to ask about, and which of them every row is in; None: each in its own."""
        if not self._is_looking or len(ids) < _FEWEST:
            return ids, None
        every = self._every[: len(ids)]
        self._latest[ids] = every  # of equal ids the last row remains
        leader = self._latest.take(ids)
        is_leader = leader == every
        distinct = ids[is_leader]
        if len(distinct) > Merger.WORTHWHILE * len(ids):
            self._is_looking = False
            return ids, None
        return distinct, (is_leader.cumsum() - 1).take(leader)


def scores_of(
    answer: Tensor, which: Whole | None, noise: Noise, m: int, behaviour: Behaviour
) -> Floats:
    """Logits plus Gumbel noise, `(m, a)`; see `sampler.rollout.choose`."""
    gumbel, keeps = noise.draw_here(m)
    assert behaviour.logits is not None  # noqa: S101
    logits: Floats = behaviour.logits(answer).numpy()
    if which is not None:
        logits = logits.take(which, axis=0)
    if behaviour.temperature != 1.0:
        logits = logits / np.float32(behaviour.temperature)
    if keeps is not None:
        logits = logits * keeps
    return logits - gumbel


def _trajectories(table: Table, steps: list[tuple[Whole, ...]], n: int) -> Trajectories:
    rows, ids, actions, children, places = (
        torch.from_numpy(np.concatenate(column)) for column in zip(*steps, strict=True)
    )
    states, masks, arrived = table.states[ids], table.masks[ids], table.states[children]
    check_choices(states, masks, actions)
    ends = torch.zeros(n, dtype=torch.int64)
    is_done = ~torch.from_numpy(table.is_open)[children]
    ends[rows[is_done]] = children[is_done]
    return Trajectories(table.states[ends], rows, states, actions, None, arrived, masks, places)

"""Rollouts in spaces that are spelled: a step of a batch is a dozen numpy calls.

What a step does is looked up in a `Spelling`, and the first layer of the policy gains one row of
weights instead of being computed anew. States are put together when all trajectories have ended.
The trajectories are those that `sampler.rollout` draws from the same random numbers, up to the
rounding of sums that are taken in another order.

Named axes: n trajectories, m rows that go on, t transitions, p policy inputs, a actions, w columns.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sampler.activations import Activations, Floats, Growth, Whole
from sampler.policy import Policy
from sampler.rollout import Behaviour, Merger, Noise, Trajectories, check_choices
from sampler.spelling import Spelling
from sampler.tabulated import scores_of

_NEVER = np.float32(-np.inf)


def roll_out_spelled(
    spelling: Spelling,
    policy: Policy,
    activations: Activations,
    start: Tensor,
    inputs: Tensor,
    generator: torch.Generator,
    behaviour: Behaviour,
) -> Trajectories:
    """Sample a trajectory from each of the initial states `start` `(n, w)`.

    `inputs`: what the policy sees of these, `(n, p)`; or `(1, p)` if of each the same, and then
    trajectories in the same state ask the network once. RuntimeError where the logits are not
    finite.
    """
    noise = Noise(spelling.allowed.shape[1], generator, behaviour.exploration)
    is_open, can_end = (~spelling.allowed).sum(axis=1) == 0, spelling.is_final.sum(axis=1) > 0
    asker = _Asker(policy, activations, inputs, len(start))
    rows = np.arange(len(start))
    taken: list[tuple[Whole, Whole, Whole]] = []
    with torch.inference_mode():
        for step in range(len(spelling.allowed)):
            answer = asker.answer()
            scores = scores_of(answer, asker.which, noise, len(rows), behaviour)
            if not is_open[step]:
                scores = np.where(spelling.allowed[step], scores, _NEVER)
            actions = scores.argmax(axis=1)
            taken.append((rows, actions, asker.places(len(rows))))
            switched, going = spelling.inputs[step].take(actions), None
            if can_end[step]:
                going = np.flatnonzero(~spelling.is_final[step].take(actions))
                if len(going) == 0:
                    break
                rows = rows.take(going)
            asker.go_on(going, actions, switched)
    return _trajectories(spelling, taken, start)


class _Asker:
    """Asks the policy about the states of one step after the other, each distinct one once."""

    def __init__(self, policy: Policy, activations: Activations, roots: Tensor, n: int) -> None:
        self.which: Whole | None = None if len(roots) == n else np.zeros(n, dtype=np.int64)
        """Of each row, which of the states last asked it is in; None: each in its own."""
        self._policy, self._activations = policy, activations
        self._first_weights, self._n_actions = policy.first_weights, policy.n_actions
        self._sums: Floats = policy.first_sums(roots)
        self._how: Growth | Tensor = roots
        self._every, self._first = np.arange(n), 0

    def answer(self) -> Tensor:
        """Outputs for the states of this step."""
        return self._policy.run_grown(self._sums, self._activations, self._how)

    def places(self, m: int) -> Whole:
        """Which answer of the whole rollout each of m rows uses at this step."""
        return (self._every[:m] if self.which is None else self.which) + self._first

    def go_on(self, going: Whole | None, actions: Whole, switched: Whole) -> None:
        """On to the next step, with the rows `going` (None: all).

        `actions` and the inputs that they `switched` on are those of all rows.
        """
        self._first += len(self._sums)
        parents = going
        if going is not None:
            switched = switched.take(going)
        if self.which is not None:
            parents = self.which
            if going is not None:
                parents, actions = parents.take(going), actions.take(going)
            parents, switched = self._merged(parents, actions, switched)
        if parents is not None:
            self._sums = self._sums.take(parents, axis=0)
        self._sums += self._first_weights.take(switched, axis=0)
        self._how = Growth(parents, switched)

    def _merged(self, parents: Whole, actions: Whole, switched: Whole) -> tuple[Whole, Whole]:
        """Parent and input of each distinct state; of each row once merging is not worth it."""
        codes = parents * self._n_actions + actions
        is_there = np.zeros(len(self._sums) * self._n_actions, dtype=np.bool_)
        is_there[codes] = True
        distinct = np.flatnonzero(is_there)
        if len(distinct) > Merger.WORTHWHILE * len(codes):
            self.which = None
            return parents, switched
        self.which = is_there.cumsum().take(codes) - 1
        inputs = np.empty_like(distinct)
        inputs[self.which] = switched
        return distinct // self._n_actions, inputs


class _SpelledTrajectories(Trajectories):
    """States are told from the terminal ones, once someone asks: most losses do not."""

    _spelling: Spelling
    _initial: Whole  # (1, w)
    _steps: Whole  # (t,)

    def __init__(
        self,
        spelling: Spelling,
        ends: Whole,
        initial: Whole,
        rows: Whole,
        steps: Whole,
        actions: Whole,
        asked: Whole,
    ) -> None:
        parts = {"terminal_states": ends, "rows": rows, "actions": actions, "asked": asked}
        masks = torch.from_numpy(spelling.allowed[steps])
        told = {name: torch.from_numpy(part) for name, part in parts.items()}
        vars(self).update(told, masks=masks, amounts=None, is_reversed=False)
        vars(self).update(_spelling=spelling, _initial=initial, _steps=steps)

    @cached_property
    def states(self) -> Tensor:
        """`(t, w)`: parents."""
        return torch.from_numpy(self._told(0))

    @cached_property
    def children(self) -> Tensor:
        """`(t, w)`."""
        children, rows = self._told(1), self.rows.numpy()
        is_final = self._spelling.is_final[self._steps, self.actions.numpy()]
        children[is_final] = self.terminal_states.numpy()[rows[is_final]]
        return torch.from_numpy(children)

    def _told(self, n_after: int) -> Whole:
        """What is written before the step `n_after` behind each transition, `(t, w)`."""
        written = self._spelling.written(self._initial.shape[1])[self._steps + n_after]
        return np.where(written, self.terminal_states.numpy()[self.rows.numpy()], self._initial)


def _trajectories(
    spelling: Spelling, taken: list[tuple[Whole, Whole, Whole]], start: Tensor
) -> Trajectories:
    """From rows, actions and places of each step."""
    rows, actions, asked = (np.concatenate(part) for part in zip(*taken, strict=True))
    steps = np.repeat(np.arange(len(taken)), [len(part[0]) for part in taken])
    codes = steps * spelling.allowed.shape[1] + actions
    ends = start.numpy().copy()
    ends[rows, spelling.columns.take(codes)] = spelling.numbers.take(codes)
    initial = start.numpy()[:1]
    found = _SpelledTrajectories(spelling, ends, initial, rows, steps, actions, asked)
    if not spelling.allowed.take(codes).all():
        check_choices(found.states, found.masks, found.actions)
    return found

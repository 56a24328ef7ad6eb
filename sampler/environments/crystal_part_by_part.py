"""The steps of a space whose candidates are made part by part, whatever the parts are.

The part under way acts on the rows that are in it; once it is finished, the next one begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from sampler.environment import Environment
from sampler.environments.crystal_part import STAGE, Part


class PartByPart(Environment):
    """A space of several parts, one after another; what its candidates are is left to subclasses.

    Actions: those of the parts, one part's after the other's, and so are heads and policy inputs.
    """

    _parts: dict[str, Part]

    def _set_parts(self, parts: Mapping[str, Part], width: int) -> None:
        """Take `parts` in their order, for states of `width` columns."""
        self._parts, self._width = dict(parts), width
        sizes = [part.n_actions for part in parts.values()]
        self._first = [sum(sizes[:k]) for k in range(len(sizes))]
        self.n_actions = sum(sizes)
        self._part_of = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)])
        self._stage_inputs = torch.eye(len(sizes) + 1)
        self.n_policy_inputs = len(sizes) + 1 + sum(part.n_inputs for part in parts.values())
        self.max_steps = sum(part.max_steps for part in parts.values())
        self.action_heads, self.circular_heads = self._heads()
        self._has_no_amount = self.action_heads < 0

    def _heads(self) -> tuple[Tensor, tuple[bool, ...]]:
        """The last actions of each part have its heads."""
        heads = torch.full((self.n_actions,), -1)
        n_heads = 0
        for first, part in zip(self._first, self._parts.values(), strict=True):
            heads[first + part.n_actions - part.n_heads : first + part.n_actions] = torch.arange(
                n_heads, n_heads + part.n_heads
            )
            n_heads += part.n_heads
        return heads, (False,) * n_heads

    def initial_states(self, n: int) -> Tensor:
        """Nothing chosen: zeros."""
        return self._stage_inputs.new_zeros(n, self._width, dtype=torch.float64)

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once every part is finished."""
        return states[:, STAGE] == len(self._parts)

    def forward_mask(self, states: Tensor) -> Tensor:
        """What some valid crystal needs next."""
        mask = torch.zeros(len(states), self.n_actions, dtype=torch.bool, device=states.device)
        for first, part, rows in self._split(states[:, STAGE]):
            mask[rows, first : first + part.n_actions] = part.forward_mask(states[rows])
        return mask

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Step in the part under way; the next follows once it is finished."""
        children = states.clone()
        amounts = states.new_zeros(len(states)) if amounts is None else amounts.double()
        for first, part, rows in self._split(states[:, STAGE]):
            moved = children[rows]
            is_finished = part.step(moved, actions[rows] - first, amounts[rows])
            moved[:, STAGE] += is_finished
            children[rows] = moved
        return children

    def backward_mask(self, states: Tensor) -> Tensor:
        """What undoes the last step of the part under way, or of the one before if it is new."""
        mask = torch.zeros(len(states), self.n_actions, dtype=torch.bool, device=states.device)
        last = states[:, STAGE] - 1
        for _, part, rows in self._split(states[:, STAGE]):
            last[rows] += part.has_begun(states[rows])
        for first, part, rows in self._split(last):
            mask[rows, first : first + part.n_actions] = part.backward_mask(states[rows])
        return mask

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Step back in the part that the action belongs to, which is then under way again."""
        parents = states.clone()
        stage = self._part_of[actions]
        parents[:, STAGE] = stage.double()
        for first, part, rows in self._split(stage):
            moved = parents[rows]
            part.step_back(moved, actions[rows] - first)
            parents[rows] = moved
        return parents

    def policy_inputs(self, states: Tensor) -> Tensor:
        """The part under way one-hot, then the inputs of all parts."""
        stage = self._stage_inputs[states[:, STAGE].long()]
        return torch.cat([stage, *(part.inputs(states) for part in self._parts.values())], dim=1)

    def amount_range(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """All of (0, 1), or what a restriction leaves."""
        low, high = super().amount_range(states, actions)
        for first, part, rows in self._continuous(actions):
            low[rows], high[rows] = part.amount_range(states[rows], actions[rows] - first)
        return low, high

    def amounts_between(self, parents: Tensor, actions: Tensor, children: Tensor) -> Tensor:
        """Where in its range each new parameter or coordinate lies."""
        amounts = super().amounts_between(parents, actions, children)
        for first, part, rows in self._continuous(actions):
            amounts[rows] = part.amounts_between(
                parents[rows], actions[rows] - first, children[rows]
            )
        return amounts

    def log_width(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log of the share of a parameter's whole range that is open."""
        widths = super().log_width(states, actions)
        for first, part, rows in self._continuous(actions):
            widths[rows] = part.log_width(states[rows], actions[rows] - first)
        return widths

    def _split(self, stages: Tensor) -> Iterator[tuple[int, Part, Tensor | slice]]:
        """For each part whose number is in `stages` `(n,)`: first action, part, its rows."""
        if len(stages) == 0:
            return
        parts = list(self._parts.values())
        low, high = (int(end) for end in torch.aminmax(stages))
        if low == high:  # no look-up, no copies
            if 0 <= low < len(parts):
                yield self._first[low], parts[low], slice(None)
            return
        for k in range(max(low, 0), min(high + 1, len(parts))):
            rows = (stages == k).nonzero()[:, 0]
            if len(rows) > 0:
                yield self._first[k], parts[k], rows

    def _continuous(self, actions: Tensor) -> Iterator[tuple[int, Part, Tensor | slice]]:
        """As `_split`, by the part of each action, actions with amounts only."""
        stages = self._part_of[actions].masked_fill(self._has_no_amount[actions], -1)
        return self._split(stages)

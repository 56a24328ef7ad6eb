"""Any space, with the fidelity at which a candidate is to be evaluated as one more choice."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sampler.environment import Candidate, Environment

Step = Literal["first", "last", "any"]
_SEPARATOR = " @ "


class MultiFidelity(Environment):
    """Candidates of `base`, each with one of `fidelities`, cheapest first.

    `base` is an environment or a mapping `{kind: …, option: …}` that makes one. The fidelity is
    chosen at the first `step`, the last, or at any: then before, between or after the actions of
    the base. State: that of the base and a column more, 0 until the fidelity is chosen, then
    1 … k. Actions: those of the base, then one for each fidelity, which has no amount.

    A candidate is a pair (candidate of the base, name of the fidelity). `where` keys: `fidelity`
    (a name or several), and those of the base. Source: Hernandez-Garcia et al. 2024, multi-fidelity
    active learning with GFlowNets (arXiv 2306.11715).
    """

    def __init__(
        self,
        base: Environment | Mapping[str, Any],
        fidelities: Sequence[str],
        step: Step = "last",
    ) -> None:
        self.base = _made(base)
        self.fidelities = _checked_fidelities(fidelities)
        if step not in get_args(Step):
            raise ValueError(f"step: expected one of {', '.join(get_args(Step))}, got {step!r}")
        self.fidelity_step = step
        n = len(self.fidelities)
        self.n_actions = self.base.n_actions + n
        # A base need not show its policy that it is finished; here that is no end, so it is shown.
        self._shows_end = step != "first"
        self.n_policy_inputs = self.base.n_policy_inputs + n + self._shows_end
        self.n_features = self.base.n_features + 1
        self.max_steps = self.base.max_steps + 1
        self.is_tree = self.base.is_tree and step != "any"
        heads = self.base.action_heads
        self.action_heads = None if heads is None else torch.cat([heads, heads.new_full((n,), -1)])
        self.circular_heads = self.base.circular_heads
        self._one_hot = torch.cat([torch.zeros(1, n), torch.eye(n)])
        self._is_wanted = torch.ones(n, dtype=torch.bool)  # False where a restriction forbids it
        # Rows: no fidelity, each fidelity. Which one can be undone.
        self._undo = self._one_hot.bool()

    def initial_states(self, n: int) -> Tensor:
        """The base's, without a fidelity."""
        states = self.base.initial_states(n)
        return torch.cat([states, states.new_zeros(n, 1)], dim=1)

    def forward_mask(self, states: Tensor) -> Tensor:
        """The base's actions, and the fidelities as long as none is chosen and the step is due."""
        base_states, is_unset = states[:, :-1], states[:, -1:] == 0
        mask = self.base.forward_mask(base_states)
        is_due = is_unset
        if self.fidelity_step == "first":
            mask = mask & ~is_unset
        elif self.fidelity_step == "last":
            is_due = is_unset & self.base.is_terminal(base_states).unsqueeze(1)
        return torch.cat([mask, is_due & self._is_wanted], dim=1)

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """An action of the base, or choose a fidelity."""
        children = self._moved(self.base.step, states, actions, amounts)
        children[:, -1] += (actions - (self.base.n_actions - 1)).clamp_min(0)
        return children

    def is_terminal(self, states: Tensor) -> Tensor:
        """A finished candidate of the base whose fidelity is chosen."""
        return self.base.is_terminal(states[:, :-1]) & (states[:, -1] > 0)

    def backward_mask(self, states: Tensor) -> Tensor:
        """Undo what could be the latest choice, given the step at which the fidelity is due."""
        mask = self.base.backward_mask(states[:, :-1])
        undo = self._undo.index_select(0, states[:, -1].long())
        if self.fidelity_step == "first":  # the initial state, and it alone, has no parent
            undo &= ~mask.any(dim=1, keepdim=True)
        elif self.fidelity_step == "last":
            mask = mask & (states[:, -1:] == 0)
        return torch.cat([mask, undo], dim=1)

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Undo an action of the base, or the choice of the fidelity."""
        parents = self._moved(self.base.step_back, states, actions, amounts)
        parents[:, -1] -= (actions - (self.base.n_actions - 1)).clamp_min(0)
        return parents

    def policy_inputs(self, states: Tensor) -> Tensor:
        """The base's, the one-hot fidelity (zeros until chosen), whether the base is finished.

        `(n, p)`; the last one is left out where the fidelity comes first: it would say nothing.
        """
        base_states = states[:, :-1]
        fidelity = self._one_hot.index_select(0, states[:, -1].long())
        parts = [self.base.policy_inputs(base_states), fidelity]
        if self._shows_end:
            parts.append(self.base.is_terminal(base_states).unsqueeze(1).float())
        return torch.cat(parts, dim=1)

    @property
    def feature_blocks(self) -> tuple[tuple[str, int], ...] | None:
        """The base's, then the fidelity."""
        blocks = self.base.feature_blocks
        return None if blocks is None else (*blocks, ("continuous", 1))

    def features(self, states: Tensor) -> Tensor:
        """The base's, then the fidelity from 0 (cheapest) to 1 (the last); `(n, d)` float64."""
        n = len(self.fidelities)
        scaled = (states[:, -1:].double() - 1) / (n - 1) if n > 1 else states[:, -1:].double()
        return torch.cat([self.base.features(states[:, :-1]), scaled], dim=1)

    def keys(self, states: Tensor) -> list[str]:
        """The base's key and the fidelity, such as `3,17 @ high`."""
        keys = self.base.keys(states[:, :-1])
        names = self._names(states)
        return [f"{key}{_SEPARATOR}{name}" for key, name in zip(keys, names, strict=True)]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote."""
        parts = [key.rpartition(_SEPARATOR) for key in keys]
        numbers = [
            self._number(name, f"key {key!r}")
            for (_, _, name), key in zip(parts, keys, strict=True)
        ]
        return self._with_fidelity(self.base.from_keys([part[0] for part in parts]), numbers)

    def decode(self, states: Tensor) -> list[Candidate]:
        """Pairs (candidate of the base, fidelity); the base's Exception where it has none."""
        candidates = self.base.decode(states[:, :-1])
        return [
            made if isinstance(made, Exception) else (made, name)
            for made, name in zip(candidates, self._names(states), strict=True)
        ]

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of pairs (candidate of the base, fidelity)."""
        for candidate in candidates:
            if not isinstance(candidate, tuple | list) or len(candidate) != 2:
                raise ValueError(f"expected a pair (candidate, fidelity), got {candidate!r}")
        numbers = [self._number(name, repr((made, name))) for made, name in candidates]
        return self._with_fidelity(self.base.encode([made for made, _ in candidates]), numbers)

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Only the named fidelities, and only what the base restricted by the other keys allows.

        The two choices do not depend on each other, so there are no dead ends if the base has
        none.
        """
        narrow = copy.copy(self)
        rest = {key: value for key, value in where.items() if key != "fidelity"}
        if rest:
            narrow.base = self.base.restricted(rest)
        if "fidelity" in where:
            names = where["fidelity"]
            names = [names] if isinstance(names, str) else names
            if not isinstance(names, list | tuple) or not names:
                raise ValueError(f"where: fidelity: expected a name or several, got {names!r}")
            numbers = [self._number(name, "where: fidelity") - 1 for name in names]
            narrow._is_wanted = torch.zeros_like(self._is_wanted)
            narrow._is_wanted[numbers] = True
            narrow._is_wanted &= self._is_wanted
            if not bool(narrow._is_wanted.any()):
                raise ValueError(f"where: nothing in this space satisfies fidelity: {names}")
        return narrow

    def amount_range(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """As the base; 0 and 1 for a fidelity."""
        low = states.new_zeros(len(states), dtype=torch.float64)
        high = low + 1
        rows = self._base_rows(actions)
        low[rows], high[rows] = self.base.amount_range(states[rows, :-1], actions[rows])
        return low, high

    def amounts_between(self, parents: Tensor, actions: Tensor, children: Tensor) -> Tensor:
        """As the base; 0 for a fidelity."""
        amounts = parents.new_zeros(len(parents), dtype=torch.float64)
        rows = self._base_rows(actions)
        amounts[rows] = self.base.amounts_between(
            parents[rows, :-1], actions[rows], children[rows, :-1]
        )
        return amounts

    def log_width(self, states: Tensor, actions: Tensor) -> Tensor:
        """As the base; 0 for a fidelity."""
        widths = states.new_zeros(len(states), dtype=torch.float64)
        rows = self._base_rows(actions)
        widths[rows] = self.base.log_width(states[rows, :-1], actions[rows])
        return widths

    def log_width_back(self, states: Tensor, actions: Tensor) -> Tensor:
        """As the base; 0 for a fidelity."""
        widths = states.new_zeros(len(states), dtype=torch.float64)
        rows = self._base_rows(actions)
        widths[rows] = self.base.log_width_back(states[rows, :-1], actions[rows])
        return widths

    def families(self, states: Tensor) -> list[str]:
        """As the base: one candidate at two fidelities is one thing."""
        return self.base.families(states[:, :-1])

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """As the base: one candidate at two fidelities is one thing."""
        return self.base.distances(a[:, :-1], b[:, :-1])

    def log_measure(self, states: Tensor) -> Tensor:
        """As the base."""
        return self.base.log_measure(states[:, :-1])

    def random_states(self, n: int, generator: torch.Generator) -> Tensor | None:
        """As the base, each at a random fidelity."""
        states = self.base.random_states(n, generator)
        if states is None:
            return None
        wanted = self._is_wanted.nonzero()[:, 0] + 1
        drawn = torch.randint(len(wanted), (n,), generator=generator, device=states.device)
        numbers = wanted.to(states.device)[drawn]
        return self._with_fidelity(states, numbers.tolist())

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """The base's columns, and `fidelity`."""
        rows = self.base.describe(states[:, :-1])
        names = self._names(states)
        return [{**row, "fidelity": name} for row, name in zip(rows, names, strict=True)]

    def _base_rows(self, actions: Tensor) -> Tensor:
        return (actions < self.base.n_actions).nonzero().squeeze(1)

    def _moved(self, move: Any, states: Tensor, actions: Tensor, amounts: Tensor | None) -> Tensor:
        """Copy `states`, with `move` of the base applied where the action is one of the base."""
        rows = self._base_rows(actions)
        if len(rows) == len(states):
            return torch.cat([move(states[:, :-1], actions, amounts), states[:, -1:]], dim=1)
        moved = states.clone()
        if len(rows) > 0:
            amounts = None if amounts is None else amounts.index_select(0, rows)
            before = states.index_select(0, rows)[:, :-1]
            moved[rows, :-1] = move(before, actions.index_select(0, rows), amounts)
        return moved

    def _names(self, states: Tensor) -> list[str]:
        return [self.fidelities[number - 1] for number in states[:, -1].long().tolist()]

    def _number(self, name: Any, source: str) -> int:
        if name not in self.fidelities:
            raise ValueError(
                f"{source}: expected a fidelity of {', '.join(self.fidelities)}, got {name!r}"
            )
        return self.fidelities.index(name) + 1

    def _with_fidelity(self, states: Tensor, numbers: list[int]) -> Tensor:
        column = torch.tensor(numbers, dtype=states.dtype, device=states.device)
        return torch.cat([states, column.reshape(-1, 1)], dim=1)


def _made(base: Environment | Mapping[str, Any]) -> Environment:
    from sampler import environment

    if isinstance(base, Environment):
        return base
    if not isinstance(base, Mapping) or "kind" not in base:
        raise ValueError(f"base: expected an environment or {{kind: …, options}}, got {base!r}")
    return environment(**base)


def _checked_fidelities(fidelities: Sequence[str]) -> list[str]:
    if isinstance(fidelities, str):
        raise ValueError(f"fidelities: expected a list of names, got the text {fidelities!r}")
    names = list(fidelities)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"fidelities: expected one or more distinct names, got {names}")
    for name in names:
        if not isinstance(name, str) or not name or _SEPARATOR in name:
            raise ValueError(
                f"fidelities: expected text without {_SEPARATOR!r} for each, got {name!r}"
            )
    return names

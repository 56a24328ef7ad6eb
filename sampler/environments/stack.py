"""A sequence of spaces, sampled one after another, with constraints between them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

import sampler
from sampler.environment import Candidate, Environment
from sampler.environments.stack_constraint import Constraint, made_constraint
from sampler.environments.stack_layout import as_lists, heads_of, key_parts, slices
from sampler.restriction import check_keys

T = TypeVar("T")


class Stack(Environment):
    """Candidates made of parts: the first space is walked to its end, then the second, …

    State `(1 + Σ w)`: the part that is under way (their number once all are finished), then the
    states of all parts; float64 if any part is continuous, else int64. Actions are those of all
    parts, one after another, and so are heads. A candidate is a dict of a candidate for each part.

    `parts`: for each name an environment or its options `{"kind": …, …}`. `constraints`: objects,
    `"module:Class"`, or `{"kind": "module:Class", …options}`. Restriction keys are the parts'
    names: `{part: {key: wish}}`.

    Source: Mila AI4Science et al. 2023 (arXiv 2310.04925), where space group, composition and
    lattice parameters of a crystal follow one another, each constraining the next.
    """

    def __init__(
        self,
        parts: Mapping[str, Environment | Mapping[str, Any]],
        constraints: Sequence[str | Mapping[str, Any] | Constraint] = (),
    ) -> None:
        if len(parts) == 0:
            raise ValueError("parts: expected at least one, got none")
        self.parts = {name: _made(name, part) for name, part in parts.items()}
        self.constraints = [made_constraint(constraint) for constraint in constraints]
        for constraint in self.constraints:
            for part in constraint.parts:
                if part not in self.parts:
                    raise ValueError(
                        f"constraints: {type(constraint).__name__} narrows {part!r}; expected one "
                        f"of the parts {', '.join(self.parts)}"
                    )
        spaces = list(self.parts.values())
        initial = [space.initial_states(1) for space in spaces]
        self._is_discrete = [not states.is_floating_point() for states in initial]
        self._columns = slices([states.shape[1] for states in initial], start=1)
        self._actions = slices([space.n_actions for space in spaces])
        self.n_actions = self._actions[-1].stop
        self._part_of = torch.cat(
            [torch.full((space.n_actions,), k) for k, space in enumerate(spaces)]
        )
        dtype = torch.int64 if all(self._is_discrete) else torch.float64
        stage = torch.zeros(1, 1, dtype=dtype)
        self._initial = torch.cat([stage, *(states.to(dtype) for states in initial)], dim=1)
        self._stage_inputs = torch.eye(len(spaces) + 1)
        self.n_policy_inputs = len(spaces) + 1 + sum(space.n_policy_inputs for space in spaces)
        self.n_features = sum(space.n_features for space in spaces)
        self.max_steps = sum(space.max_steps for space in spaces)
        self.is_tree = all(space.is_tree for space in spaces)
        self.action_heads, self.circular_heads = heads_of(spaces)

    def initial_states(self, n: int) -> Tensor:
        """Every part at its initial state, the first under way."""
        return self._initial.repeat(n, 1)

    def forward_mask(self, states: Tensor) -> Tensor:
        """What the part under way allows, less what the constraints forbid."""
        mask = self._part_of.new_zeros(len(states), self.n_actions, dtype=torch.bool)
        for k, name, part, rows in self._split(states[:, 0]):
            allowed = part.forward_mask(self._part_states(states, k, rows))
            for constraint in self._constraints_on(name):
                allowed = constraint.allowed(name, self._states_until(states, k, rows), allowed)
            mask[rows, self._actions[k]] = allowed
        return mask

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Step in the part under way; the next one follows once it is finished."""
        children = states.clone()
        for k, _, part, rows in self._split(states[:, 0]):
            own = self._part_states(states, k, rows)
            moved = part.step(own, actions[rows] - self._actions[k].start, _at(amounts, rows))
            children[rows, self._columns[k]] = moved.to(states.dtype)
            children[rows, 0] += part.is_terminal(moved)
        return children

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once all parts are finished."""
        return states[:, 0] == len(self.parts)

    def backward_mask(self, states: Tensor) -> Tensor:
        """What undoes the last step of the part under way, or of the one before if it is new."""
        mask = self._part_of.new_zeros(len(states), self.n_actions, dtype=torch.bool)
        last = states[:, 0] - 1
        is_moved = states != self._initial
        for k, _, _, rows in self._split(states[:, 0]):
            last[rows] += is_moved[rows, self._columns[k]].any(dim=1)
        for k, _, part, rows in self._split(last):
            mask[rows, self._actions[k]] = part.backward_mask(self._part_states(states, k, rows))
        return mask

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Step back in the part that the action belongs to, which is then under way again."""
        parents = states.clone()
        parents[:, 0] = self._part_of[actions]
        for k, _, part, rows in self._split(self._part_of[actions]):
            own = self._part_states(states, k, rows)
            moved = part.step_back(own, actions[rows] - self._actions[k].start, _at(amounts, rows))
            parents[rows, self._columns[k]] = moved.to(states.dtype)
        return parents

    def policy_inputs(self, states: Tensor) -> Tensor:
        """The part under way one-hot, then the inputs of all parts."""
        stage = self._stage_inputs[states[:, 0].long()]
        return torch.cat([stage, *self._of_all(states, lambda p, own: p.policy_inputs(own))], dim=1)

    @property
    def feature_blocks(self) -> tuple[tuple[str, int], ...] | None:
        """Those of all parts; None if all are continuous."""
        spaces = self.parts.values()
        if all(space.feature_blocks is None for space in spaces):
            return None
        return tuple(
            block
            for space in spaces
            for block in space.feature_blocks or (("continuous", space.n_features),)
        )

    def features(self, states: Tensor) -> Tensor:
        """The features of all parts."""
        return torch.cat(self._of_all(states, lambda part, own: part.features(own)), dim=1)

    def amount_range(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """That of the action's part, less what the constraints forbid. RuntimeError if empty."""
        low, high = super().amount_range(states, actions)
        for k, name, part, rows, own_actions in self._continuous(actions):
            own = self._part_states(states, k, rows)
            ends = part.amount_range(own, own_actions)
            for constraint in self._constraints_on(name):
                until = self._states_until(states, k, rows)
                ends = constraint.amount_range(name, until, own_actions, *ends)
                if not any(part.circular_heads) and bool((ends[0] > ends[1]).any()):
                    raise RuntimeError(
                        f"dead end: {type(constraint).__name__} leaves an action of part {name!r} "
                        "no amount"
                    )
            low[rows], high[rows] = ends
        return low, high

    def amounts_between(self, parents: Tensor, actions: Tensor, children: Tensor) -> Tensor:
        """Those of the actions' parts; 0 in discrete ones."""
        amounts = super().amounts_between(parents, actions, children)
        for k, _, part, rows, own_actions in self._continuous(actions):
            before, after = (self._part_states(states, k, rows) for states in (parents, children))
            amounts[rows] = part.amounts_between(before, own_actions, after)
        return amounts

    def log_width(self, states: Tensor, actions: Tensor) -> Tensor:
        """That of the action's part."""
        widths = super().log_width(states, actions)
        for k, _, part, rows, own_actions in self._continuous(actions):
            widths[rows] = part.log_width(self._part_states(states, k, rows), own_actions)
        return widths

    def log_width_back(self, states: Tensor, actions: Tensor) -> Tensor:
        """That of the action's part."""
        widths = super().log_width_back(states, actions)
        for k, _, part, rows, own_actions in self._continuous(actions):
            widths[rows] = part.log_width_back(self._part_states(states, k, rows), own_actions)
        return widths

    def keys(self, states: Tensor) -> list[str]:
        """The keys of the parts as a JSON list such as `["AB", "0.5,0.25"]`."""
        return as_lists(self._of_all(states, lambda part, own: part.keys(own)))

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote."""
        rows = [key_parts(key, len(self.parts)) for key in keys]
        states = []
        for k, (name, part) in enumerate(self.parts.items()):
            with _named(f"part {name!r}"):
                states.append(part.from_keys([row[k] for row in rows]))
        return self._finished(states, keys)

    def decode(self, states: Tensor) -> list[Candidate]:
        """Dicts from the parts' names to their candidates; an Exception where a part has one."""
        columns = self._of_all(states, lambda part, own: part.decode(own))
        candidates: list[Candidate] = []
        for row in zip(*columns, strict=True):
            failed = [candidate for candidate in row if isinstance(candidate, Exception)]
            candidates.append(failed[0] if failed else dict(zip(self.parts, row, strict=True)))
        return candidates

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of dicts with exactly the parts' names."""
        for candidate in candidates:
            if not isinstance(candidate, Mapping) or set(candidate) != set(self.parts):
                raise ValueError(f"expected a dict of {', '.join(self.parts)}, got {candidate!r}")
        states = []
        for name, part in self.parts.items():
            with _named(f"part {name!r}"):
                states.append(part.encode([row[name] for row in candidates]))
        return self._finished(states, candidates)

    def families(self, states: Tensor) -> list[str]:
        """The families of the parts as a JSON list."""
        return as_lists(self._of_all(states, lambda part, own: part.families(own)))

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean over the parts."""
        own_a = self._of_all(a, lambda part, own: (part, own))
        own_b = self._of_all(b, lambda part, own: own)
        pairs = zip(own_a, own_b, strict=True)
        return torch.stack([part.distances(x, y) for (part, x), y in pairs]).mean(dim=0)

    def log_measure(self, states: Tensor) -> Tensor:
        """Sum over the parts."""
        measures = self._of_all(states, lambda part, own: part.log_measure(own))
        return torch.stack(measures).sum(dim=0)

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """The columns of all parts, as `part.column`."""
        columns = self._of_all(states, lambda part, own: part.describe(own))
        rows: list[dict[str, str | float | int]] = [{} for _ in range(len(states))]
        for name, column in zip(self.parts, columns, strict=True):
            for row, own in zip(rows, column, strict=True):
                row.update({f"{name}.{key}": value for key, value in own.items()})
        return rows

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Keys are the parts' names, values what those parts take: `{part: {key: wish}}`."""
        check_keys(where, list(self.parts))
        for name, wish in where.items():
            if not isinstance(wish, Mapping):
                raise ValueError(f"where: {name}: expected a mapping of its keys, got {wish!r}")
        space = copy.copy(self)
        space.constraints = [constraint.restricted(where) for constraint in self.constraints]
        space.parts = dict(self.parts)
        for name, wish in where.items():
            with _named(f"part {name!r}"):
                space.parts[name] = self.parts[name].restricted(wish)
        return space

    def _split(self, stages: Tensor) -> Iterator[tuple[int, str, Environment, Tensor]]:
        """For each part k whose number is in `stages` `(n,)`: k, name, part, its rows."""
        for k, (name, part) in enumerate(self.parts.items()):
            rows = (stages == k).nonzero()[:, 0]
            if len(rows) > 0:
                yield k, name, part, rows

    def _continuous(
        self, actions: Tensor
    ) -> Iterator[tuple[int, str, Environment, Tensor, Tensor]]:
        """As `_split` by the part of each action, only continuous parts; also its own actions."""
        if self.action_heads is None:
            return
        for k, name, part, rows in self._split(self._part_of[actions]):
            if part.action_heads is not None:
                yield k, name, part, rows, actions[rows] - self._actions[k].start

    def _part_states(self, states: Tensor, k: int, rows: Tensor | slice = slice(None)) -> Tensor:
        own = states[rows, self._columns[k]]
        return own.long() if self._is_discrete[k] else own

    def _states_until(self, states: Tensor, k: int, rows: Tensor) -> dict[str, Tensor]:
        return {
            name: self._part_states(states, i, rows) for i, name in enumerate(self.parts) if i <= k
        }

    def _of_all(self, states: Tensor, of: Callable[[Environment, Tensor], T]) -> list[T]:
        parts = enumerate(self.parts.values())
        return [of(part, self._part_states(states, k)) for k, part in parts]

    def _constraints_on(self, part: str) -> list[Constraint]:
        return [constraint for constraint in self.constraints if part in constraint.parts]

    def _finished(self, states: list[Tensor], names: Sequence[Any]) -> Tensor:
        """Terminal states of finished parts; ValueError where a constraint is not met."""
        for constraint in self.constraints:
            is_met = constraint.is_met(dict(zip(self.parts, states, strict=True)))
            if not bool(is_met.all()):
                worst = int((~is_met).nonzero()[0])
                raise ValueError(f"{names[worst]!r} does not meet {type(constraint).__name__}")
        stage = self._initial.new_full((len(names), 1), len(self.parts))
        return torch.cat([stage, *(own.to(stage.dtype) for own in states)], dim=1)


def _made(name: str, part: Environment | Mapping[str, Any]) -> Environment:
    if isinstance(part, Environment):
        return part
    if not isinstance(part, Mapping) or "kind" not in part:
        raise ValueError(
            f"parts: {name}: expected an environment or options with a kind, got {part!r}"
        )
    with _named(f"parts: {name}"):
        return sampler.environment(**part)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """A ValueError inside says which part it comes from."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _at(amounts: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if amounts is None else amounts[rows]

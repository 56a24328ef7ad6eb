"""Choosing some of n items, in no order: the plainest space where many paths meet."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sampler.distances import tanimoto
from sampler.environment import Candidate, Environment
from sampler.restriction import Restricted, check_keys


class Subset(Environment):
    """Subsets of `size` of the items 0 … n_items - 1, taken one at a time in any order.

    A `size` (low, high) leaves the number open: there is then a last action that stops. State
    `(n_items)`: 1 for a member, else 0; with an open size `(n_items + 1)`: a 1 at the end once
    stopped. Action i < n_items takes item i. A subset of k items is reached in k! ways. A
    candidate is the sorted tuple of its items. `where` keys: `include` and `exclude`, lists of
    items.
    """

    def __init__(self, n_items: int, size: int | tuple[int, int]) -> None:
        if n_items < 1:
            raise ValueError(f"n_items: expected at least 1, got {n_items}")
        self.n_items = n_items
        self.low, self.high = _checked_size(size, n_items)
        self.has_stop = self.low < self.high
        self.n_actions = n_items + self.has_stop
        self.n_policy_inputs = self.n_actions + 1
        self.n_features = n_items
        self.max_steps = self.high + self.has_stop

    def initial_states(self, n: int) -> Tensor:
        """The empty set."""
        return torch.zeros(n, self.n_actions, dtype=torch.int64)

    def forward_mask(self, states: Tensor) -> Tensor:
        """Items that are not members while there is room, and stopping from `low` members on."""
        if not self.has_stop:
            return (states == 0) & (states.sum(1, keepdim=True) < self.high)
        count = states[:, :-1].sum(1, keepdim=True)
        is_running = states[:, -1:] == 0
        mask = (states == 0) & (is_running & (count < self.high))
        mask[:, -1:] = is_running & (count >= self.low)
        return mask

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Take an item, or stop."""
        return states.scatter(1, actions[:, None], 1)

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once stopped; with a fixed size, once it is reached."""
        return states[:, -1] == 1 if self.has_stop else states.sum(1) == self.high

    def backward_mask(self, states: Tensor) -> Tensor:
        """Members; after stopping, only to go on."""
        mask = states == 1
        if self.has_stop:
            mask[:, :-1] &= states[:, -1:] == 0
        return mask

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Drop a member, or go on."""
        return states.scatter(1, actions[:, None], 0)

    def policy_inputs(self, states: Tensor) -> Tensor:
        """Membership (and whether stopped), then the share of `high` that is taken."""
        members = states.float()
        share = members[:, : self.n_items].sum(1, keepdim=True) / self.high
        return torch.cat([members, share], dim=1)

    @property
    def feature_blocks(self) -> tuple[tuple[str, int], ...]:
        """Membership."""
        return (("set", self.n_items),)

    def features(self, states: Tensor) -> Tensor:
        """Membership, `(n, n_items)` float64."""
        return states[:, : self.n_items].double()

    def keys(self, states: Tensor) -> list[str]:
        """The items in order, such as `0,3,7`; `none` for the empty set."""
        return [",".join(map(str, items)) or "none" for items in self.decode(states)]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote."""
        return self._states([(f"key {key!r}", _items_of_key(key)) for key in keys])

    def decode(self, states: Tensor) -> list[Candidate]:
        """The sorted tuple of items of each state."""
        return [
            tuple(i for i, member in enumerate(row) if member)
            for row in states[:, : self.n_items].tolist()
        ]

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of collections of distinct items, in any order."""
        return self._states([(f"subset {candidate!r}", candidate) for candidate in candidates])

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Tanimoto's: 1 less what two subsets share over what they have in all."""
        return tanimoto(a[:, : self.n_items], b[:, : self.n_items])

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns `items` and `size`."""
        members = self.decode(states)
        return [
            {"items": key, "size": len(items)}
            for key, items in zip(self.keys(states), members, strict=True)
        ]

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Keys `include` (items that must be members) and `exclude` (that must not be)."""
        check_keys(where, ("include", "exclude"))
        include = self._checked_items(where.get("include", ()), "where: include")
        exclude = self._checked_items(where.get("exclude", ()), "where: exclude")
        self._check_conflicts(include, exclude)
        is_wanted, is_banned = self.initial_states(2).bool()
        is_wanted[include] = True
        is_banned[exclude] = True
        return Restricted(self, _CanSatisfy(self, is_wanted, is_banned), f"{dict(where)}")

    def _states(self, named: list[tuple[str, Any]]) -> Tensor:
        """Terminal states of collections of items, each with the name that errors call it by."""
        states = self.initial_states(len(named))
        for row, (name, collection) in enumerate(named):
            items = self._checked_items(collection, name)
            if not self.low <= len(items) <= self.high:
                raise ValueError(f"{name}: expected {self._size()} items")
            states[row, items] = 1
        if self.has_stop:
            states[:, -1] = 1
        return states

    def _check_conflicts(self, include: list[int], exclude: list[int]) -> None:
        if both := sorted(set(include) & set(exclude)):
            raise ValueError(f"where: include and exclude conflict: both name {both}")
        if len(include) > self.high:
            raise ValueError(
                f"where: include: {len(include)} items, but a subset has {self._size()}"
            )
        if self.n_items - len(exclude) < self.low:
            raise ValueError(
                f"where: exclude: leaves {self.n_items - len(exclude)} items, but a subset has "
                f"{self._size()}"
            )

    def _checked_items(self, items: Any, name: str) -> list[int]:
        if isinstance(items, str) or not isinstance(items, Iterable):
            raise ValueError(f"{name}: expected a list of items, got {items!r}")
        try:
            numbers = sorted(operator.index(item) for item in items)
        except TypeError as error:
            raise ValueError(f"{name}: expected whole numbers ({error})") from error
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"{name}: an item is named twice")
        if numbers and not 0 <= numbers[0] <= numbers[-1] < self.n_items:
            raise ValueError(f"{name}: expected items from 0 to {self.n_items - 1}")
        return numbers

    def _size(self) -> str:
        return f"{self.low} to {self.high}" if self.has_stop else f"exactly {self.high}"


class _CanSatisfy:
    """Whether a subset can still take in all that is wanted, and holds nothing that is banned."""

    def __init__(self, space: Subset, is_wanted: Tensor, is_banned: Tensor) -> None:
        self.space, self.is_wanted, self.is_banned = space, is_wanted, is_banned

    def __call__(self, states: Tensor) -> Tensor:
        members = states == 1
        missing = (self.is_wanted & ~members).sum(1)
        count = states[:, : self.space.n_items].sum(1)
        room = (self.space.high - count).masked_fill_(self.space.is_terminal(states), 0)
        return (missing <= room) & ~(members & self.is_banned).any(1)


def _items_of_key(key: str) -> list[int]:
    parts = [] if key == "none" else key.split(",")
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise ValueError(f"key {key!r}: expected whole numbers such as '0,3,7', or 'none'")
    return [int(part) for part in parts]


def _checked_size(size: int | tuple[int, int], n_items: int) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(bound, int) for bound in pair):
        raise ValueError(f"size: expected a whole number or (low, high), got {size!r}")
    low, high = pair
    if not 0 <= low <= high <= n_items or high < 1:
        raise ValueError(
            f"size: expected 0 <= low <= high <= n_items = {n_items} and high >= 1, got {size!r}"
        )
    return low, high

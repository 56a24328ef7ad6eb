"""Restricting a space at sampling time: only actions after which the wish can still be met."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from sampler.environment import Environment

if TYPE_CHECKING:
    from torch import Tensor


class Restricted(Environment):
    """A discrete space of which only some candidates are wanted.

    `can_satisfy(states) → (n,)` bool says of any state whether some completion of it satisfies the
    wish, exactly: a terminal state for which it is True satisfies the wish, and every other state
    for which it is True has a child for which it is True. So there are no dead ends.
    """

    def __init__(
        self, base: Environment, can_satisfy: Callable[[Tensor], Tensor], wish: str
    ) -> None:
        self.base = base
        self.can_satisfy = can_satisfy
        self.wish = wish
        for name in ("n_actions", "n_policy_inputs", "n_features", "max_steps", "is_tree"):
            setattr(self, name, getattr(base, name))
        if not bool(can_satisfy(base.initial_states(1)).all()):
            raise ValueError(f"where: nothing in this space satisfies {wish}")

    def forward_mask(self, states: Tensor) -> Tensor:
        """Allowed actions whose child can still satisfy the wish."""
        mask = self.base.forward_mask(states)
        rows, actions = mask.nonzero(as_tuple=True)
        children = self.base.step(states[rows], actions)
        mask[rows, actions] = self.can_satisfy(children)
        return mask

    def initial_states(self, n: int) -> Tensor:
        """As the base."""
        return self.base.initial_states(n)

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """As the base."""
        return self.base.step(states, actions, amounts)

    def is_terminal(self, states: Tensor) -> Tensor:
        """As the base."""
        return self.base.is_terminal(states)

    def backward_mask(self, states: Tensor) -> Tensor:
        """As the base: parents of a state that can satisfy the wish can satisfy it too."""
        return self.base.backward_mask(states)

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """As the base."""
        return self.base.step_back(states, actions, amounts)

    def policy_inputs(self, states: Tensor) -> Tensor:
        """As the base."""
        return self.base.policy_inputs(states)

    @property
    def feature_blocks(self) -> tuple[tuple[str, int], ...] | None:
        """As the base."""
        return self.base.feature_blocks

    def features(self, states: Tensor) -> Tensor:
        """As the base."""
        return self.base.features(states)

    def keys(self, states: Tensor) -> list[str]:
        """As the base."""
        return self.base.keys(states)

    def from_keys(self, keys: Any) -> Tensor:
        """As the base. ValueError names a key that does not satisfy the wish."""
        return self._checked(self.base.from_keys(keys))

    def decode(self, states: Tensor) -> list[Any]:
        """As the base."""
        return self.base.decode(states)

    def encode(self, candidates: Any) -> Tensor:
        """As the base. ValueError names a candidate that does not satisfy the wish."""
        return self._checked(self.base.encode(candidates))

    def _checked(self, states: Tensor) -> Tensor:
        is_outside = ~self.can_satisfy(states)
        if bool(is_outside.any()):
            key = self.base.keys(states[is_outside][:1])[0]
            raise ValueError(f"{key!r} does not satisfy {self.wish}")
        return states

    def families(self, states: Tensor) -> list[str]:
        """As the base."""
        return self.base.families(states)

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """As the base."""
        return self.base.distances(a, b)

    def log_measure(self, states: Tensor) -> Tensor:
        """As the base."""
        return self.base.log_measure(states)

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """As the base."""
        return self.base.describe(states)


def check_keys(where: Mapping[str, Any], known: Collection[str]) -> None:
    """ValueError for a key of `where` that is not `known`, with the nearest one."""
    import difflib

    for key in where:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(known)}"
            raise ValueError(f"where: unknown key {key!r}; {hint}")


def interval(value: Any, key: str) -> tuple[float, float]:
    """Read a number (exactly it) or a pair [low, high], both inclusive; ValueError names `key`."""
    pair = value if isinstance(value, list | tuple) else (value, value)
    are_numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in pair)
    if len(pair) != 2 or not are_numbers:
        raise ValueError(f"where: {key}: expected a number or [low, high], got {value!r}")
    low, high = float(pair[0]), float(pair[1])
    if not low <= high:
        raise ValueError(f"where: {key}: expected low <= high, got [{low:g}, {high:g}]")
    return low, high

"""The contract of an environment: everything the engine needs to know about a space.

A space is a directed acyclic graph. Sampling starts at the one initial state, takes actions until
a terminal state is reached, and a terminal state is one candidate. States are rows of one tensor
`(n, width)`, int64 in a discrete space and float64 where some columns are real numbers; every
function is pure and works on the whole batch; nothing here knows a reward. Backward actions share
the index of the forward action that they undo.

An action of a continuous space carries one real number besides: its *amount*, 0 < u < 1, where in
the range that the state leaves it the new value lies. The policy has one density of u for each
*head*, and `action_heads` says which head an action draws from (-1: none, its amount is ignored).
The backward policy draws its amounts uniformly. Densities are those of the states: `log_width`
and `log_width_back` are the logarithms of the ranges that an amount is stretched to.

Named axes: n rows of a batch, w state columns, a actions, h heads, p policy inputs, d features.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # `import sampler` stays cheap: torch comes with the first concrete environment
    from torch import Generator, Tensor

Candidate = Any
"""A thing that could be made: a pymatgen `Structure`, a `str`, a numpy vector."""


class Environment(ABC):
    """A space of candidates as a batched directed acyclic graph."""

    n_actions: int
    """Number of forward actions, a. A terminal state has none that is allowed."""
    n_policy_inputs: int
    """Width p of `policy_inputs`."""
    n_features: int
    """Width d of `features`."""
    max_steps: int
    """An upper bound on the length of a trajectory."""
    is_tree: bool = False
    """Whether exactly one trajectory leads to each state: the backward policy has no choice."""
    n_ways: int | None = None
    """At most so many trajectories lead to a state, few enough that `log_prob` sums over them all.

    None: too many, or undoing an action leads to a range of parents.
    """
    action_heads: Tensor | None = None
    """The head that each action draws its amount from, `(a,)` int64, -1 for none; None: discrete.
    """
    circular_heads: tuple[bool, ...] = ()
    """For each head, whether its amount is an angle (u = 0 and u = 1 are the same)."""

    @property
    def feature_blocks(self) -> tuple[tuple[str, int], ...] | None:
        """What the columns of `features` are, from the left: (kind, number of columns) each.

        Kinds: `continuous`; `categorical`, one one-hot choice; `letter`, one place of a word,
        one-hot and all zeros where nothing is written (neighbouring ones spell one word); `set`,
        membership of each item, 0 or 1. None, the default: all continuous.
        """
        return None

    @abstractmethod
    def initial_states(self, n: int) -> Tensor:
        """Return n copies of the initial state, `(n, w)` int64 (float64 with real columns)."""

    @abstractmethod
    def forward_mask(self, states: Tensor) -> Tensor:
        """Allowed actions, `(n, a)` bool. Never all False unless the state is terminal."""

    @abstractmethod
    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """States after allowed `actions` `(n,)` with `amounts` `(n,)`; new memory, `(n, w)`."""

    @abstractmethod
    def is_terminal(self, states: Tensor) -> Tensor:
        """Rows that are finished candidates, `(n,)` bool."""

    @abstractmethod
    def backward_mask(self, states: Tensor) -> Tensor:
        """Actions whose undoing leads to a parent, `(n, a)` bool; none at the initial state."""

    @abstractmethod
    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Parents: states from which `actions` `(n,)` lead to `states`; new memory, `(n, w)`.

        `amounts` `(n,)` say which parent where there is a range of them.
        """

    @abstractmethod
    def policy_inputs(self, states: Tensor) -> Tensor:
        """What the policy network sees of any state, `(n, p)` float32, roughly in [-1, 1]."""

    @abstractmethod
    def features(self, states: Tensor) -> Tensor:
        """What the surrogate sees of terminal states, `(n, d)` float64, finite."""

    @abstractmethod
    def keys(self, states: Tensor) -> list[str]:
        """Canonical, readable text of each terminal state; equal across processes and versions."""

    @abstractmethod
    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """The terminal states whose `keys` these are. ValueError names a key outside the space."""

    @abstractmethod
    def decode(self, states: Tensor) -> list[Candidate]:
        """The candidate of each terminal state; an Exception for one that cannot be made."""

    @abstractmethod
    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """The terminal states of candidates. ValueError says why one lies outside the space."""

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Return this space with the restriction `where`: same states and actions, fewer allowed.

        Every trajectory that it allows ends in a candidate that satisfies `where`. ValueError for
        a key that this space does not know, and for a restriction that no candidate satisfies:
        the message names the part that conflicts.
        """
        raise ValueError(f"where: {type(self).__name__} has no restrictions, got {sorted(where)}")

    def amount_range(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest amount of `actions`, float64 `(n,)` each; 0 and 1 by default.

        A restricted space narrows it. For a circular head the smallest may exceed the largest:
        the range then runs over u = 1 = 0.
        """
        zeros = states.new_zeros(len(states)).double()
        return zeros, zeros + 1

    def amounts_between(self, parents: Tensor, actions: Tensor, children: Tensor) -> Tensor:
        """Amounts with which `actions` lead from `parents` to `children`, float64 `(n,)`."""
        return parents.new_zeros(len(parents)).double()

    def log_width(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log of the range of values that the amounts 0 … 1 of `actions` span, float64 `(n,)`."""
        return states.new_zeros(len(states)).double()

    def log_width_back(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log of the range of parents that undoing `actions` may lead to, float64 `(n,)`."""
        return states.new_zeros(len(states)).double()

    def to(self, device: Any) -> Self:
        """Return a copy whose tables lie on `device`."""
        import torch

        return copy.copy(self) if device is None else _moved(self, torch.device(device), {})

    def families(self, states: Tensor) -> list[str]:
        """Which candidates a person would call variants of one thing: equal text, same family."""
        return self.keys(states)

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """How far apart the candidates of terminal states are, `(n_a, n_b)` float64 in [0, 1].

        A metric: symmetric, 0 for one candidate and above 0 for two, never longer than a detour.
        By default the root mean square difference of `features`, for which they must be numbers
        of [0, 1] that tell candidates apart.
        """
        from sampler.distances import euclidean

        return euclidean(self.features(a), self.features(b))

    def compact(self) -> Environment:
        """The same candidates, keys and features by fewer steps, where there is a way; else itself.

        What a campaign samples in: which trajectories lead to a candidate is no concern of its
        user, and training time grows with their length.
        """
        return self

    def random_states(self, n: int, generator: Generator) -> Tensor | None:
        """N terminal states spread evenly over the candidates; None where random actions do that.

        For spaces where a walk of random actions ends near where it began.
        """
        return None

    def log_measure(self, states: Tensor) -> Tensor:
        """Log of the volume that each terminal state stands for, `(n,)` float64; 0 by default.

        For spaces whose states grid a continuum into cells: a reward times this volume makes a
        density of it, whatever the grid. Unweighted, finely gridded parts would draw all samples.
        Actions with amounts need none: their densities are those of the continuum already.
        """
        return states.new_zeros(len(states)).double()

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Readable columns for tables, the same names in each row, such as formula."""
        return [{"candidate": key} for key in self.keys(states)]


def _moved(value: Any, device: Any, done: dict[int, Any]) -> Any:
    """Copy what holds tensors, at any depth of objects and containers, with them on `device`."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        items = [_moved(item, device, done) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: _moved(item, device, done) for key, item in value.items()}
    is_ours = type(value).__module__.partition(".")[0] == "sampler" or isinstance(
        value, Environment
    )
    if not is_ours or isinstance(value, type) or not hasattr(value, "__dict__"):
        return value
    if id(value) not in done:
        done[id(value)] = moved = copy.copy(value)
        for name, part in vars(value).items():
            object.__setattr__(moved, name, _moved(part, device, done))
    return done[id(value)]

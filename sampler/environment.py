"""The contract of an environment: everything the engine needs to know about a space.

A space is a directed acyclic graph. Sampling starts at the one initial state, takes actions until
a terminal state is reached, and a terminal state is one candidate. States are rows of one integer
tensor `(n, width)`; every function is pure and works on the whole batch; nothing here knows a
reward. Backward actions share the index of the forward action that they undo.

Named axes: n rows of a batch, w state columns, a actions, p policy inputs, d features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `import sampler` stays cheap: torch comes with the first concrete environment
    from torch import Tensor

Candidate = Any
"""A thing that could be made: a pymatgen `Structure`, a `str`, a numpy vector."""


class Environment(ABC):
    """A space of candidates as a batched directed acyclic graph of integer states."""

    n_actions: int
    """Number of forward actions, a. A terminal state has none that is allowed."""
    n_policy_inputs: int
    """Width p of `policy_inputs`."""
    n_features: int
    """Width d of `features`."""
    max_steps: int
    """An upper bound on the length of a trajectory."""

    @abstractmethod
    def initial_states(self, n: int) -> Tensor:
        """Return n copies of the initial state, `(n, w)` int64."""

    @abstractmethod
    def forward_mask(self, states: Tensor) -> Tensor:
        """Allowed actions, `(n, a)` bool. Never all False unless the state is terminal."""

    @abstractmethod
    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """States after allowed `actions` `(n,)`; new memory, `(n, w)`."""

    @abstractmethod
    def is_terminal(self, states: Tensor) -> Tensor:
        """Rows that are finished candidates, `(n,)` bool."""

    @abstractmethod
    def backward_mask(self, states: Tensor) -> Tensor:
        """Actions whose undoing leads to a parent, `(n, a)` bool; none at the initial state."""

    @abstractmethod
    def step_back(self, states: Tensor, actions: Tensor) -> Tensor:
        """Parents: states from which `actions` `(n,)` lead to `states`; new memory, `(n, w)`."""

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

    def families(self, states: Tensor) -> list[str]:
        """Which candidates a person would call variants of one thing: equal text, same family."""
        return self.keys(states)

    def log_measure(self, states: Tensor) -> Tensor:
        """Log of the volume that each terminal state stands for, `(n,)` float64; 0 by default.

        Where states grid a continuous parameter into b bins, each stands for 1/b of its range.
        A sampler whose reward is weighted so gives a space with three such parameters no more
        room than one with a single parameter; unweighted, finer grids would draw all samples.
        """
        return states.new_zeros(len(states)).double()

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Readable columns for tables, the same names in each row, such as formula."""
        return [{"candidate": key} for key in self.keys(states)]

"""What the parts of a crystal share: one row of state, of which each part owns some columns.

A part is a small environment that is under way while those before it are finished: space group,
composition, lattice, positions. Its functions get whole rows, for it may depend on what the parts
before it chose; its actions are numbered from 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from sampler.environments.crystal_formula_rules import Compositions
from sampler.environments.crystal_rules import Wish

STAGE = 0
"""Column of the part that is under way; their number once all are finished."""


@dataclass(frozen=True)
class Columns:
    """Where things are in a state row. All choices are 1-based, 0 is none.

    `pending`: the element whose number of atoms comes next; -1 once the composition is done.
    """

    n_elements: int
    n_position_columns: int

    system: ClassVar[int] = 1
    point: ClassVar[int] = 2
    group: ClassVar[int] = 3
    pending: ClassVar[int] = 4
    lattice: ClassVar[slice] = slice(5, 11)

    @property
    def counts(self) -> slice:
        """Atoms of each element."""
        return slice(11, 11 + self.n_elements)

    @property
    def positions(self) -> slice:
        """Sites and coordinates; empty without positions."""
        return slice(self.counts.stop, self.width)

    @property
    def width(self) -> int:
        """Number of columns."""
        return 11 + self.n_elements + self.n_position_columns


class Part(ABC):
    """One part of a crystal's trajectory. n rows, a actions of this part."""

    n_actions: int
    n_inputs: int
    max_steps: int
    n_heads: int = 0
    """How many of the last actions have amounts, each its own head."""

    @abstractmethod
    def forward_mask(self, states: Tensor) -> Tensor:
        """Allowed actions, `(n, a)` bool."""

    @abstractmethod
    def backward_mask(self, states: Tensor) -> Tensor:
        """Actions that may have led here, `(n, a)` bool; none where this part has not begun."""

    @abstractmethod
    def step(self, states: Tensor, actions: Tensor, amounts: Tensor) -> Tensor:
        """Take `actions` in place, and say which rows have finished this part, `(n,)` bool."""

    @abstractmethod
    def step_back(self, states: Tensor, actions: Tensor) -> None:
        """Undo `actions` in place."""

    def narrowed(self, formulas: Compositions, wish: Wish) -> Self:
        """This part under a restriction; itself where that does not concern it."""
        return self

    @abstractmethod
    def has_begun(self, states: Tensor) -> Tensor:
        """Whether any step of this part was taken, `(n,)` bool."""

    @abstractmethod
    def inputs(self, states: Tensor) -> Tensor:
        """What the policy sees of this part, `(n, n_inputs)` float32 in [-1, 1]."""

    def amount_range(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """See `Environment.amount_range`."""
        zeros = states.new_zeros(len(states))
        return zeros, zeros + 1

    def amounts_between(self, parents: Tensor, actions: Tensor, children: Tensor) -> Tensor:
        """See `Environment.amounts_between`."""
        return parents.new_zeros(len(parents))

    def log_width(self, states: Tensor, actions: Tensor) -> Tensor:
        """See `Environment.log_width`."""
        return states.new_zeros(len(states))

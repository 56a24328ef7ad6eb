"""Spaces that are spelled: the number of the step says what an action does.

A word that grows at its end is spelled: at step t the letters are allowed, the one that is chosen
goes to column t, and switches on one policy input. `sampler.spelled` walks by these tables.

Named axes: s steps, a actions, w state columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Spelling:
    """What actions do at each step from the initial state on, by step and action `(s, a)`.

    The space is a tree. Of a column that steps before the last of a trajectory write, only one
    step does: so a state is known from the terminal one. ValueError otherwise.
    """

    allowed: Flags  # (s, a)
    is_final: Flags  # (s, a): it leads to a terminal state
    columns: Whole  # (s, a): the state column that it writes
    numbers: Whole  # (s, a): what it writes there
    inputs: Whole  # (s, a): the one policy input that changes, from 0 to 1

    def __post_init__(self) -> None:
        goes_on = self.allowed & ~self.is_final
        writers: dict[int, int] = {}
        for step, action in np.argwhere(goes_on).tolist():
            column = int(self.columns[step, action])
            if writers.setdefault(column, step) != step:
                raise ValueError(
                    f"spelling: expected that one step writes column {column}, got steps "
                    f"{writers[column]} and {step}"
                )
        if bool(goes_on[-1].any()):
            raise ValueError(f"spelling: expected that step {len(goes_on) - 1}, the last, is final")

    def written(self, width: int) -> Flags:
        """Which of the `width` columns of a state are written before each step, `(s + 1, w)`."""
        goes_on = self.allowed & ~self.is_final
        written = np.zeros((len(goes_on) + 1, width), dtype=np.bool_)
        steps, actions = np.nonzero(goes_on)
        written[steps + 1, self.columns[steps, actions]] = True
        return np.logical_or.accumulate(written, axis=0)


@runtime_checkable
class Spelled(Protocol):
    """An environment that has a spelling."""

    def spelling(self) -> Spelling | None:
        """The tables; None where the number of the step does not say all."""


_SPELLED_OUT = ("forward_mask", "step", "is_terminal", "policy_inputs", "initial_states")


def spelling_of(environment: object, device: torch.device) -> Spelling | None:
    """The spelling of a space, None if it has none; only the CPU makes use of it.

    A subclass that changes what the tables say, and has no `spelling` of its own, has none.
    """
    if device.type != "cpu" or not isinstance(environment, Spelled):
        return None
    by_whom = _owner(environment, "spelling")
    if any(_owner(environment, name) < by_whom for name in _SPELLED_OUT):
        return None
    return environment.spelling()


def _owner(environment: object, name: str) -> int:
    """How far up its classes a method is defined; -1: on the object itself."""
    if name in vars(environment):
        return -1
    classes = type(environment).__mro__
    return next((i for i, each in enumerate(classes) if name in vars(each)), len(classes))

"""What the parts of a `Stack` leave one another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sampler.registry import resolve

States = Mapping[str, Tensor]
"""States of the parts, `(n, w)` each, by name, int64 where the part is discrete."""


class Constraint(ABC):
    """What the earlier parts of a `Stack` leave the later ones.

    `parts` names the parts that it narrows. Three duties, which no code can check for it: never
    forbid everything (the sampler stops with a dead end); where several actions lead to one state,
    allow all or none of them; a terminal state meets it exactly if it allows every step there
    (coordinates are rounded to multiples of 2^-32, so `is_met` has to leave them that much room).
    Tensors that it makes belong on the device of those that it is given.
    """

    parts: tuple[str, ...]

    @abstractmethod
    def is_met(self, states: States) -> Tensor:
        """Whether it holds of finished parts, `(n,)` bool."""

    def allowed(self, part: str, states: States, mask: Tensor) -> Tensor:
        """Which of the actions `mask` `(n, a)` bool of `part` it allows.

        `states` has the finished earlier parts and the present state of `part`.
        """
        return mask

    def amount_range(
        self, part: str, states: States, actions: Tensor, low: Tensor, high: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which amounts of [low, high], `(n,)` each, it leaves to actions `(n,)` of `part`."""
        return low, high

    def restricted(self, where: Mapping[str, Mapping[str, Any]]) -> Constraint:
        """Return the constraint that leaves no dead end when the parts are restricted by `where`.

        By default itself, and ValueError where a part that it narrows is restricted as well.
        """
        for part in self.parts:
            if part in where:
                raise ValueError(
                    f"where: {part}: {type(self).__name__} narrows this part already and cannot "
                    "tell whether both can be met; restrict other parts, or give it a `restricted`"
                )
        return self


def made_constraint(constraint: str | Mapping[str, Any] | Constraint) -> Constraint:
    """The constraint, or what `"module:Class"` or `{"kind": "module:Class", …options}` names."""
    if isinstance(constraint, Constraint):
        return constraint
    options = {"kind": constraint} if isinstance(constraint, str) else dict(constraint)
    if "kind" not in options:
        raise ValueError(f"constraints: expected options with a kind, got {constraint!r}")
    made = resolve(options.pop("kind"), {}, "constraint")(**options)
    if not isinstance(made, Constraint):
        raise ValueError(f"constraints: expected a Constraint, got {type(made).__name__}")
    return made

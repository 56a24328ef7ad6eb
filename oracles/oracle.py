"""The contract of an oracle: it answers queries about candidates at one fidelity and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

Answer = float | dict[str, float] | Exception
"""One value, named properties, or why there is none."""


class NotRun(Exception):  # noqa: N818 - it is an answer, not a mishap
    """The oracle could not even start on this candidate: the query is refunded."""


@runtime_checkable
class Oracle(Protocol):
    """Answers queries at one fidelity.

    Optional attributes: `version: str` (part of the query's key: change it when answers change),
    `properties: tuple[str, ...]` (names it answers with; a bare float is called `value`),
    `batch_size: int` (how many candidates one call may get; 1 when absent).
    """

    fidelity: str
    cost: float

    def query(self, candidates: Sequence[Any]) -> list[Any]:
        """One answer for each candidate, in order: see `Answer`.

        An Exception in the list is a failure that was paid for; `NotRun` is refunded.
        """
        ...

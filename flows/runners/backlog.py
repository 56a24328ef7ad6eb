"""Work that waits for a worker: the dearest first, some of it not before a moment."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from pipeline.jobs import Job

_Rank = TypeVar("_Rank", int, float)


@dataclass(frozen=True)
class Work:
    """A chunk of jobs of one fidelity, and the attempt that comes next, counted from 1."""

    chunk: tuple[Job, ...]
    attempt: int = 1

    @property
    def fidelity(self) -> int:
        """The place of its oracle in the ladder."""
        return self.chunk[0].fidelity


class Backlog:
    """A queue between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._ready: list[tuple[int, int, Work]] = []
        self._later: list[tuple[float, int, Work]] = []
        self._is_closed = False

    def put(self, works: Iterable[Work], wait_s: float = 0.0) -> None:
        """Add work, to be taken after `wait_s` seconds at the earliest."""
        due = time.monotonic() + wait_s
        with self._changed:
            for work in works:
                number = next(self._numbers)
                if wait_s > 0:
                    heapq.heappush(self._later, (due, number, work))
                else:
                    heapq.heappush(self._ready, (-work.fidelity, number, work))
            self._changed.notify_all()

    def take(self, how_many: Callable[[Work, int], int]) -> list[Work]:
        """Wait for work; a stretch of one fidelity, or nothing once closed.

        `how_many` says from the first one and the number that waits how long a stretch may be. What
        is tried again goes alone, so that it cannot take others down with it.
        """
        with self._changed:
            while not self._is_closed:
                wait_s = self._ripen()
                if self._ready:
                    return self._pop(how_many)
                self._changed.wait(wait_s)
            return []

    def drop(self, keys: Collection[str]) -> None:
        """Forget the jobs of these keys."""
        with self._changed:
            self._ready = _without(self._ready, keys)
            self._later = _without(self._later, keys)

    def close(self) -> None:
        """Wake all who wait; nothing is taken any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _pop(self, how_many: Callable[[Work, int], int]) -> list[Work]:
        first = heapq.heappop(self._ready)[2]
        works, most = [first], how_many(first, len(self._ready) + 1)
        while first.attempt == 1 and len(works) < most and self._ready:
            following = self._ready[0][2]
            if following.fidelity != first.fidelity or following.attempt > 1:
                break
            works.append(heapq.heappop(self._ready)[2])
        return works

    def _ripen(self) -> float | None:
        """Move what is due; seconds until the next is, None when none waits."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, number, work = heapq.heappop(self._later)
            heapq.heappush(self._ready, (-work.fidelity, number, work))
        return self._later[0][0] - now if self._later else None


def _without(
    entries: list[tuple[_Rank, int, Work]], keys: Collection[str]
) -> list[tuple[_Rank, int, Work]]:
    left = [
        (rank, number, replace(work, chunk=tuple(j for j in work.chunk if j.key not in keys)))
        for rank, number, work in entries
    ]
    kept = [entry for entry in left if entry[2].chunk]
    heapq.heapify(kept)
    return kept

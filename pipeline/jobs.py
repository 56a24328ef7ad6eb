"""Queries at work: who answers them, and what becomes of an answer.

However often a query is dispatched, by however many drivers, it runs once at a time and never again
after its result stands: see `pipeline.job_files`.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from oracles.oracle import NotRun, Oracle
from pipeline.job_files import (
    Job,
    Outcome,
    forget_result,
    keep_room,
    locked,
    read_result,
    sync_results,
    write_result,
)
from sampler.environment import Environment

__all__ = [
    "Bench",
    "InlineRunner",
    "Job",
    "Outcome",
    "Runner",
    "ask",
    "chunks",
    "forget_result",
    "keep_room",
    "locked",
    "outcome",
    "read_result",
    "sync_results",
    "write_result",
]


class Runner(ABC):
    """Answers jobs somewhere: in this process, in others, on a cluster.

    Work is handed over by `submit` and comes back by `poll`, so that a round can close while some
    of it is out. What a killed driver left at work is found again by `submit`.
    """

    @abstractmethod
    def submit(self, jobs: Sequence[Job]) -> None:
        """See to it that each job is at work. One whose result stands is only collected, one that
        works already, here or for an earlier driver, is attached to: none runs twice at once.
        """

    @abstractmethod
    def poll(self, timeout: float | None = 0.0) -> list[Outcome]:
        """What has come since the last call, each outcome once, in any order.

        Waits for the first at most `timeout` seconds, or as long as it takes (None). Empty when
        none came, and at once when no job is out.
        """

    @abstractmethod
    def cancel(self, keys: Collection[str]) -> set[str]:
        """Stop jobs; the keys that will not answer. A result that came first is polled as usual."""

    @abstractmethod
    def running(self) -> set[str]:
        """The keys of all jobs that are out: submitted, and neither polled nor cancelled."""

    def handles(self) -> dict[str, str]:
        """What people may call the jobs that work now, by key, such as `slurm 17`."""
        return {}

    def start(self) -> None:  # noqa: B027 - most have nothing to warm up
        """Warm up ahead of the first job."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held. What works on without a driver is attached to by the next one."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Submit jobs and yield each outcome as it comes, in any order, until all have come."""
        missing = {job.key for job in jobs}
        self.submit(jobs)
        while missing:
            outcomes = self.poll(None)
            if not outcomes:
                missing &= self.running()  # the others were cancelled
            for outcome in outcomes:
                missing.discard(outcome.key)
                yield outcome


class Bench:
    """A place where oracles run: the environment, the ladder and the folder of jobs.

    `cache` is a folder that campaigns share: an answer that one of them has paid for is taken from
    it, and one that another is working on is waited for. Failures are nobody else's.
    """

    def __init__(
        self,
        environment: Environment,
        ladder: Sequence[Oracle],
        jobs: Path,
        cache: Path | None = None,
    ) -> None:
        self.environment = environment
        self.ladder = ladder
        self.jobs = jobs
        self.cache = cache

    def answer(self, chunk: Sequence[Job], durable: bool = True) -> list[Outcome]:
        """Outcomes of jobs of one fidelity, each from its result file or computed now.

        Unless `durable`, `sync_results` must follow before anyone counts on them.
        """
        with locked(self.jobs, [job.key for job in chunk]):
            known = {job.key: read_result(self.jobs, job.key) for job in chunk}
            missing = [job for job in chunk if known[job.key] is None]
            for job in missing:
                keep_room(self.jobs, job.key)
            for fresh in self._shared(missing):
                write_result(self.jobs, fresh, durable)
                known[fresh.key] = fresh
        return [found for job in chunk if (found := known[job.key]) is not None]

    def _shared(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Outcomes from the cache where it holds them, else computed, and left there."""
        if self.cache is None or not jobs:
            yield from self._compute(jobs)
            return
        with locked(self.cache, [job.key for job in jobs]):
            held = {job.key: read_result(self.cache, job.key) for job in jobs}
            for found in held.values():
                if found is not None:
                    yield replace(found, cached=True)
            for fresh in self._compute([job for job in jobs if held[job.key] is None]):
                yield fresh  # recorded first: whoever pays has it, whatever becomes of the cache
                if fresh.error is None:
                    write_result(self.cache, fresh)

    def _compute(self, jobs: Sequence[Job]) -> list[Outcome]:
        if not jobs:
            return []
        started = time.perf_counter()
        states = self.environment.from_keys([job.candidate for job in jobs])
        candidates = self.environment.decode(states)
        made = [
            (j, c) for j, c in zip(jobs, candidates, strict=True) if not isinstance(c, Exception)
        ]
        answers = ask(self.ladder[jobs[0].fidelity], [c for _, c in made]) if made else []
        seconds = (time.perf_counter() - started) / len(jobs)
        by_key = {job.key: answer for (job, _), answer in zip(made, answers, strict=True)}
        unmade = {
            job.key: NotRun(f"the candidate could not be made: {candidate}")
            for job, candidate in zip(jobs, candidates, strict=True)
            if isinstance(candidate, Exception)
        }
        return [outcome(job.key, (by_key | unmade)[job.key], seconds) for job in jobs]


class InlineRunner(Runner):
    """Answers jobs in this process, a chunk each poll: for Python callers and quick oracles."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._waiting: list[list[Job]] = []

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take the jobs in; they are answered when polled, the dearest first."""
        out = self.running()
        self._waiting += chunks([job for job in jobs if job.key not in out], self.bench.ladder)
        self._waiting.sort(key=lambda chunk: -chunk[0].fidelity)

    def poll(self, timeout: float | None = 0.0) -> list[Outcome]:
        """Answer the next chunk, however long that takes."""
        return self.bench.answer(self._waiting.pop(0)) if self._waiting else []

    def cancel(self, keys: Collection[str]) -> set[str]:
        """Forget jobs; none of them has begun."""
        forgotten = self.running() & set(keys)
        left = [[job for job in chunk if job.key not in forgotten] for chunk in self._waiting]
        self._waiting = [chunk for chunk in left if chunk]
        return forgotten

    def running(self) -> set[str]:
        """The keys that wait."""
        return {job.key for chunk in self._waiting for job in chunk}

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()


def ask(oracle: Oracle, candidates: Sequence[Any]) -> list[Any]:
    """One answer a candidate, whatever the oracle does."""
    try:
        answers = list(oracle.query(candidates))
    # An oracle is anyone's code: whatever it raises is an outcome, with its reason in the ledger.
    except Exception as error:
        return [error] * len(candidates)
    if len(answers) != len(candidates):
        message = f"the oracle gave {len(answers)} answers to {len(candidates)} candidates"
        return [ValueError(message)] * len(candidates)
    return answers


def outcome(key: str, answer: object, seconds: float) -> Outcome:
    """An oracle's answer as an outcome; anything that is not a finite number is a failure."""
    if isinstance(answer, Exception):
        # A message may quote bytes that are no text, which the ledger could not store.
        told = str(answer).encode("utf-8", "backslashreplace").decode("utf-8")
        text = " ".join(told.split()) or type(answer).__name__
        named = text if isinstance(answer, NotRun) else f"{type(answer).__name__}: {text}"
        return Outcome(key, error=named, ran=not isinstance(answer, NotRun), seconds=seconds)
    try:
        properties: dict[Any, Any] = answer if isinstance(answer, dict) else {"value": answer}
        numbers = {str(name): float(number) for name, number in properties.items()}
    # Anyone's object may be asked for a number here, and may refuse in any way.
    except Exception:
        error = f"expected a number or a dict of numbers, the oracle gave {_shown(answer)}"
        return Outcome(key, error=error, seconds=seconds)
    bad = {name: number for name, number in numbers.items() if not math.isfinite(number)}
    if bad:
        return Outcome(
            key, error=f"the oracle gave a value that is not finite: {bad}", seconds=seconds
        )
    return Outcome(key, numbers, seconds=seconds)


def _shown(answer: object, limit: int = 400) -> str:
    try:
        return ascii(answer)[:limit]
    except Exception:  # an object that cannot even be shown
        return f"something of type {type(answer).__name__}"


def chunks(jobs: Sequence[Job], ladder: Sequence[Oracle]) -> list[list[Job]]:
    """Jobs grouped by fidelity, the dearest first, in pieces of the oracle's `batch_size`."""
    pieces = []
    for index in reversed(range(len(ladder))):
        level = [job for job in jobs if job.fidelity == index]
        size = max(1, int(getattr(ladder[index], "batch_size", 1)))
        pieces += [level[start : start + size] for start in range(0, len(level), size)]
    return pieces

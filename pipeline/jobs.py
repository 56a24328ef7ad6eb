"""Queries at work: a folder for each, a lock that dies with its holder, a result that is whole.

`jobs/<key>/result.json` is written aside and renamed, so it is there entirely or not at all. Before
work starts the worker takes the kernel's lock on `jobs/<key>/lock` and looks for a result again:
however often a query is dispatched, by however many drivers, it runs once at a time and never again
after its result stands.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from oracles.oracle import NotRun, Oracle
from pipeline.ledger import sync_file
from sampler.environment import Environment

RESULT = "result.json"


@dataclass(frozen=True)
class Job:
    """One query to be answered: `fidelity` is the oracle's place in the ladder."""

    key: str
    candidate: str
    fidelity: int


@dataclass(frozen=True)
class Outcome:
    """What came of one query: properties, or an error; `ran` is False for a refund."""

    key: str
    properties: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    ran: bool = True
    seconds: float = 0.0


class Runner(Protocol):
    """Answers jobs somewhere: in this process, or in others."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Dispatch all jobs and yield each outcome as it comes, in any order."""
        ...

    def close(self) -> None:
        """Stop what runs and free what is held."""
        ...


class Bench:
    """A place where oracles run: the environment, the ladder and the folder of jobs."""

    def __init__(self, environment: Environment, ladder: Sequence[Oracle], jobs: Path) -> None:
        self.environment = environment
        self.ladder = ladder
        self.jobs = jobs

    def answer(self, chunk: Sequence[Job]) -> list[Outcome]:
        """Outcomes of jobs of one fidelity, each from its result file or computed now."""
        with locked(self.jobs, [job.key for job in chunk]):
            known = {job.key: read_result(self.jobs, job.key) for job in chunk}
            missing = [job for job in chunk if known[job.key] is None]
            for fresh in self._compute(missing):
                write_result(self.jobs, fresh)
                known[fresh.key] = fresh
        return [found for job in chunk if (found := known[job.key]) is not None]

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


class InlineRunner:
    """Answers jobs in this process, one after the other: for Python callers and quick oracles."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Dispatch all jobs and yield each outcome."""
        for chunk in chunks(jobs, self.bench.ladder):
            yield from self.bench.answer(chunk)

    def close(self) -> None:
        """Nothing is held."""


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


@contextmanager
def locked(jobs: Path, keys: Sequence[str]) -> Iterator[None]:
    """Hold the locks of several jobs; waits for a worker of a dead driver to finish its own."""
    handles = []
    try:
        for key in sorted(keys):  # one order everywhere, so that two holders never wait in a ring
            folder = jobs / key
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            handles.append(handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        for handle in handles:
            os.close(handle)


def write_result(jobs: Path, result: Outcome) -> None:
    """Write `result.json` so that it is there whole or not at all, also after a power cut."""
    target = jobs / result.key / RESULT
    fresh = target.with_suffix(".tmp")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(asdict(result), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(target)
    sync_file(target.parent)


def read_result(jobs: Path, key: str) -> Outcome | None:
    """The outcome of a job that finished; None when there is none yet."""
    try:
        return Outcome(**json.loads((jobs / key / RESULT).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None

"""What becomes of chunks whose worker has reported, died or been killed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flows.runners.backlog import Work
from flows.worker import TIMED_OUT
from pipeline.jobs import Job, Outcome, locked, read_result, write_result
from pipeline.places import Place

INTERRUPTED = "another query of its chunk was cancelled"


@dataclass(frozen=True)
class Verdict:
    """Outcomes to pass on, and work to do (again) after so many seconds."""

    outcomes: list[Outcome] = field(default_factory=list)
    again: list[tuple[Work, float]] = field(default_factory=list)


def judge(
    jobs: Path,
    places: Sequence[Place],
    stretch: Sequence[Work],
    error: str | None,
    cancelled: Collection[str],
) -> Verdict:
    """Pass on what has a result; `error` says why the worker broke off, None that it did not.

    It broke off at the first chunk without a result: those after it had not begun, and keep their
    attempt. What is cancelled is dropped.
    """
    found = {job.key: _found(jobs, job, work.attempt) for work in stretch for job in work.chunk}
    came = [outcome for outcome in found.values() if outcome is not None]
    wanted = {key for key, outcome in found.items() if outcome is None} - set(cancelled)
    left = [
        replace(work, chunk=chunk)
        for work in stretch
        if (chunk := tuple(job for job in work.chunk if job.key in wanted))
    ]
    if not left:
        return Verdict(came)
    first = _judge_first(jobs, places, left[0], error or "the worker left no result")
    return Verdict(came + first.outcomes, first.again + [(work, 0.0) for work in left[1:]])


def _judge_first(jobs: Path, places: Sequence[Place], work: Work, error: str) -> Verdict:
    place = places[work.fidelity]
    if error == INTERRUPTED:
        return Verdict(again=[(work, 0.0)])
    if work.attempt < place.attempts and error != TIMED_OUT:
        again = replace(work, attempt=work.attempt + 1)
        return Verdict(again=[(again, place.backoff(work.attempt))])
    told = f"{error}, attempt {work.attempt} of {place.attempts}"
    return Verdict([_failed(jobs, job, told, work.attempt) for job in work.chunk])


def _found(jobs: Path, job: Job, attempt: int) -> Outcome | None:
    outcome = read_result(jobs, job.key)
    return None if outcome is None else replace(outcome, attempts=attempt)


def _failed(jobs: Path, job: Job, error: str, attempt: int) -> Outcome:
    with locked(jobs, [job.key]):
        # The worker of a killed driver may have held the lock, and finished meanwhile.
        outcome = read_result(jobs, job.key)
        if outcome is None:
            outcome = Outcome(job.key, error=error, attempts=attempt)
            write_result(jobs, outcome)
    return outcome

"""Several runners in one campaign: each fidelity's jobs go where its place says."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from itertools import groupby

from pipeline.jobs import Job, Outcome, Runner

TICK_S = 0.1
"""How long one of several busy runners may be waited for before the others are looked at."""


class Runners(Runner):
    """Routes each job to the runner of its fidelity, and gathers what comes.

    `by_fidelity`: a runner for each fidelity, cheapest first; several may share one.
    """

    def __init__(self, by_fidelity: Sequence[Runner]) -> None:
        self.by_fidelity = tuple(by_fidelity)
        self.all = list(dict.fromkeys(self.by_fidelity))

    def start(self) -> None:
        """Warm up all of them."""
        for runner in self.all:
            runner.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand each job to its runner, those of the dearest fidelity first."""
        ordered = sorted(jobs, key=lambda job: -job.fidelity)
        for fidelity, level in groupby(ordered, key=lambda job: job.fidelity):
            self.by_fidelity[fidelity].submit(list(level))

    def poll(self, timeout: float | None = 0.0) -> list[Outcome]:
        """What has come to any of them."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            busy = [runner for runner in self.all if runner.running()]
            outcomes = [outcome for runner in busy for outcome in runner.poll(0.0)]
            left = TICK_S if deadline is None else deadline - time.monotonic()
            if outcomes or not busy or left <= 0:
                return outcomes
            wait = (None if deadline is None else left) if len(busy) == 1 else min(left, TICK_S)
            if outcomes := busy[0].poll(wait):
                return outcomes

    def cancel(self, keys: Collection[str]) -> set[str]:
        """Stop jobs wherever they are; the keys that will not answer."""
        return {key for runner in self.all for key in runner.cancel(keys)}

    def running(self) -> set[str]:
        """The keys of all jobs that are out."""
        return {key for runner in self.all for key in runner.running()}

    def handles(self) -> dict[str, str]:
        """What people may call the jobs that work now."""
        return {key: name for runner in self.all for key, name in runner.handles().items()}

    def close(self) -> None:
        """Close all of them, also when one cannot be."""
        errors = []
        for runner in self.all:
            try:
                runner.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

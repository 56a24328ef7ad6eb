"""Local worker processes: they can be killed, outlive their driver, and never work twice."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection, Sequence

from flows.runners.backlog import Backlog, Work
from flows.runners.process import WorkerProcess
from flows.runners.site import Site
from flows.runners.verdict import INTERRUPTED, judge
from pipeline.jobs import Job, Outcome, Runner, chunks, read_result
from pipeline.places import Place

STRETCH_S, STRETCH_MOST = 0.1, 32
"""How long a worker works, and on how many chunks, before it flushes and reports them together."""


class LocalRunner(Runner):
    """A pool of worker processes on this machine, one thread each to feed and to watch it.

    A worker that dies takes its chunk's attempt with it, but no other chunk's. A chunk that
    outlasts `time_limit_s` for each of its queries is killed and fails. `places`: the rules of
    each fidelity, cheapest first.
    """

    def __init__(self, site: Site, places: Sequence[Place], workers: int) -> None:
        self.site = site
        self.places = tuple(places)
        self.workers = workers
        self.backlog = Backlog()
        self._came: queue.SimpleQueue[list[Outcome] | BaseException] = queue.SimpleQueue()
        self._out: set[str] = set()
        self._cancelled: set[str] = set()
        self._pool: list[_Worker] = []

    def start(self) -> None:
        """Start the workers ahead of the first job: loading a potential takes seconds."""
        if not self._pool:
            self.site.write()
        while len(self._pool) < self.workers:
            self._pool.append(_Worker(self, len(self._pool)))

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand jobs to the workers, the dearest first; a result that stands is only collected."""
        fresh = [job for job in jobs if job.key not in self._out]
        self._out |= {job.key for job in fresh}
        self._cancelled -= self._out
        found = {job.key: read_result(self.site.jobs, job.key) for job in fresh}
        self._came.put([outcome for outcome in found.values() if outcome is not None])
        missing = [job for job in fresh if found[job.key] is None]
        if missing:
            self.start()
            pieces = chunks(missing, self.site.ladder)
            self.backlog.put(Work(tuple(piece)) for piece in pieces)

    def poll(self, timeout: float | None = 0.0) -> list[Outcome]:
        """What has come; raises what a worker's thread raised."""
        deadline = None if timeout is None else time.monotonic() + timeout
        outcomes: list[Outcome] = []
        while self._out:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            came = self._next(0.0 if outcomes else left)
            if came is None:
                break
            if isinstance(came, BaseException):
                raise came
            wanted = [outcome for outcome in came if outcome.key in self._out]
            self._out -= {outcome.key for outcome in wanted}
            outcomes += wanted
        return outcomes

    def _next(self, timeout: float | None) -> list[Outcome] | BaseException | None:
        try:
            return self._came.get(timeout=timeout) if timeout != 0 else self._came.get_nowait()
        except queue.Empty:
            return None

    def cancel(self, keys: Collection[str]) -> set[str]:
        """Stop jobs, also at work: what else their worker had begun is begun again."""
        stopped = self._out & set(keys)
        self._cancelled |= stopped
        self.backlog.drop(stopped)
        for worker in self._pool:
            worker.interrupt(stopped)
        stopped = {key for key in stopped if read_result(self.site.jobs, key) is None}
        self._out -= stopped
        return stopped

    def running(self) -> set[str]:
        """The keys of all jobs that are out."""
        return set(self._out)

    def handles(self) -> dict[str, str]:
        """The processes that work on jobs now."""
        return {key: f"process {w.process.pid}" for w in self._pool for key in w.at_work()}

    def close(self) -> None:
        """Stop all workers at once; an unanswered query is dispatched again on resume."""
        self.backlog.close()
        for worker in self._pool:
            worker.stop()
        for worker in self._pool:
            worker.join()
        self._pool.clear()
        self._out.clear()
        self.backlog = Backlog()

    def stretch(self, first: Work, waiting: int, seconds: float | None) -> int:
        """How many chunks a worker takes at once: few enough that all workers have their share.

        `seconds`: what a chunk of this fidelity took lately; one at a time until that is known.
        """
        if seconds is None:
            return 1
        quick = int(STRETCH_S / max(seconds, 1e-6))
        return max(1, min(quick, STRETCH_MOST, -(-waiting // self.workers)))

    def settle(self, stretch: Sequence[Work], error: str | None) -> None:
        """Pass on the results of a stretch; `error` says why the worker died or was killed."""
        verdict = judge(self.site.jobs, self.places, stretch, error, self._cancelled)
        self._came.put(verdict.outcomes)
        for work, wait_s in verdict.again:
            self.backlog.put([work], wait_s)

    def crash(self, error: BaseException) -> None:
        """A worker's thread itself failed: the campaign must hear of it, not wait for ever."""
        self._came.put(error)


class _Worker:
    """A worker process and the thread that feeds it."""

    def __init__(self, runner: LocalRunner, number: int) -> None:
        self.runner = runner
        log = runner.site.jobs / f"worker-{number}.log"
        self.process = WorkerProcess(runner.site.directory, log)
        self._backlog = runner.backlog
        self._stretch: list[Work] = []
        self._settled = threading.Condition()
        self._is_interrupted = False
        self._is_stopping = False
        self._seconds: dict[int, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def at_work(self) -> set[str]:
        """What it works on."""
        return {job.key for work in self._stretch for job in work.chunk}

    def interrupt(self, keys: Collection[str]) -> None:
        """Kill the process if it works on one of these keys, and wait until that is settled."""
        with self._settled:
            if self.at_work() & set(keys):
                self._is_interrupted = True
                self.process.kill()
                self._settled.wait_for(lambda: not self._is_interrupted, timeout=30)

    def stop(self) -> None:
        """Kill the process and end the thread."""
        self._is_stopping = True
        self.process.close()

    def join(self) -> None:
        """Wait for the end of both."""
        self._thread.join(timeout=10)
        self.process.join()

    def _watch(self) -> None:
        try:
            while self._take():
                began = time.monotonic()
                limit = self.runner.places[self._stretch[0].fidelity].time_limit_s
                error = self.process.answer([work.chunk for work in self._stretch], limit)
                if self._is_stopping:
                    return
                self._settle(error, time.monotonic() - began)
        except BaseException as error:
            self.runner.crash(error)

    def _take(self) -> bool:
        taken = self._backlog.take(
            lambda first, n: self.runner.stretch(first, n, self._seconds.get(first.fidelity))
        )
        with self._settled:
            self._stretch = taken
        return bool(taken)

    def _settle(self, error: str | None, seconds: float) -> None:
        with self._settled:
            if error is None:
                self._seconds[self._stretch[0].fidelity] = seconds / len(self._stretch)
            self.runner.settle(self._stretch, INTERRUPTED if self._is_interrupted else error)
            self._stretch, self._is_interrupted = [], False
            self._settled.notify_all()

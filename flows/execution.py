"""Local worker processes: they can be killed, outlive their driver, and never work twice."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from oracles.oracle import Oracle
from pipeline.assemble import Parts
from pipeline.config import Execution
from pipeline.jobs import Job, Outcome, chunks, locked, read_result, write_result
from pipeline.queries import CampaignStoppedError


@dataclass
class _Work:
    """A chunk of jobs and how often it has been tried."""

    chunk: list[Job]
    attempt: int = 1


class LocalRunner:
    """A pool of worker processes on this machine, one thread each to feed and to watch it.

    A worker that dies takes its chunk's attempt with it; a chunk that outlasts `time_limit_s` for
    each of its queries is killed and fails. Workers stand in their own session, so that Ctrl-C
    reaches the driver alone, which then stops them.
    """

    def __init__(self, directory: Path, ladder: Sequence[Oracle], execution: Execution) -> None:
        self.directory = directory
        self.ladder = ladder
        self.execution = execution
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    def start(self) -> None:
        """Start the workers ahead of the first job: loading a potential takes seconds."""
        while len(self._workers) < self.execution.workers:
            self._workers.append(_Worker(self, len(self._workers)))

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Dispatch all jobs, the dearest first, and yield each outcome as it comes."""
        self.start()
        for chunk in chunks(jobs, self.ladder):
            self._work.put(_Work(chunk))
        for _ in jobs:
            outcome = self._done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome

    def close(self) -> None:
        """Stop all workers at once; an unanswered query is dispatched again on resume."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join()
        self._workers.clear()

    def next_work(self) -> _Work | None:
        """The next chunk; None when the runner closes."""
        return self._work.get()

    def settle(self, work: _Work, error: str | None) -> None:
        """Pass on the results of a chunk; `error` says why the worker died or was killed."""
        jobs = self.directory / "jobs"
        found = {job.key: read_result(jobs, job.key) for job in work.chunk}
        missing = [job for job in work.chunk if found[job.key] is None]
        for outcome in found.values():
            if outcome is not None:
                self._done.put(outcome)
        if missing and work.attempt < self.execution.attempts and error != TIMED_OUT:
            self._work.put(_Work(missing, work.attempt + 1))
        else:
            self._fail(missing, f"{error}, attempt {work.attempt} of {self.execution.attempts}")

    def _fail(self, missing: Sequence[Job], error: str) -> None:
        jobs = self.directory / "jobs"
        for job in missing:
            with locked(jobs, [job.key]):
                # The worker of a killed driver may have held the lock, and finished meanwhile.
                outcome = read_result(jobs, job.key)
                if outcome is None:
                    outcome = Outcome(job.key, error=error)
                    write_result(jobs, outcome)
            self._done.put(outcome)

    def crash(self, error: BaseException) -> None:
        """A worker thread itself failed: the campaign must hear of it, not wait for ever."""
        self._done.put(error)

    def stop_feeding(self) -> None:
        """Wake one waiting worker thread so that it ends."""
        self._work.put(None)


TIMED_OUT = "killed at execution.time_limit_s"


class _Worker:
    """A worker process and the thread that feeds it."""

    def __init__(self, runner: LocalRunner, number: int) -> None:
        self.runner = runner
        self.log = runner.directory / "jobs" / f"worker-{number}.log"
        self.stopping = threading.Event()
        self._timer_fired = False
        self._is_ready = False
        self.process = self._spawn()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Kill the process and end the thread."""
        self.stopping.set()
        self.runner.stop_feeding()
        _kill(self.process)

    def join(self) -> None:
        """Wait for the end of both."""
        self._thread.join(timeout=10)
        _kill(self.process)  # which the thread may have started while `stop` killed the last one
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                _close(pipe)

    def _spawn(self) -> subprocess.Popen[str]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | os.environ
        with self.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                # -P: the folder we stand in must not shadow our packages.
                [sys.executable, "-P", "-m", "flows.worker", str(self.runner.directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
            )
        threading.Thread(target=_bury, args=(process,), daemon=True).start()
        return process

    def _watch(self) -> None:
        try:
            while (work := self.runner.next_work()) is not None:
                if self.stopping.is_set():
                    return
                error = self._answer(work)
                if self.stopping.is_set():
                    return
                self.runner.settle(work, error)
        except BaseException as error:
            self.runner.crash(error)

    def _answer(self, work: _Work) -> str | None:
        """Have the process answer a chunk; why it could not, or None."""
        if self.process.poll() is not None:
            self.process, self._is_ready = self._spawn(), False
        if not self._is_ready:
            self._await_ready()
        limit = self.runner.execution.time_limit_s
        self._timer_fired = False
        timer = threading.Timer(limit * len(work.chunk), self._time_out) if limit else None
        if timer:
            timer.start()
        try:
            reply = self._exchange(json.dumps([asdict(job) for job in work.chunk]))
        finally:
            if timer:
                timer.cancel()
        if reply:
            return None
        code = self.process.wait()
        return TIMED_OUT if self._timer_fired else f"the oracle's process died ({_cause(code)})"

    def _await_ready(self) -> None:
        """Wait until the process has loaded the campaign, which is no query's time nor fault."""
        self._is_ready = bool(self._exchange())
        if not self._is_ready and not self.stopping.is_set():
            cause = _cause(self.process.wait())
            raise CampaignStoppedError(f"a worker did not start ({cause}); its log is {self.log}")

    def _exchange(self, line: str | None = None) -> str:
        """Send a line, if there is one, and receive one; nothing when the process is gone."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018 - both are pipes
        try:
            if line is not None:
                stdin.write(line + "\n")
                stdin.flush()
            return stdout.readline()
        except (BrokenPipeError, ValueError):
            return ""

    def _time_out(self) -> None:
        self._timer_fired = True
        _kill(self.process)


def local_runner(parts: Parts, directory: Path, folder: Path) -> LocalRunner:
    """The runner of a campaign (the workers read the rest from its ledger)."""
    return LocalRunner(directory, [rung.oracle for rung in parts.ladder], parts.config.execution)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill the worker and whatever it started: they are a process group of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _bury(process: subprocess.Popen[str]) -> None:
    """Kill what a worker leaves when it dies: it works on, and may hold the worker's pipe open."""
    with suppress(ChildProcessError):
        # Not reaped yet, so that the number of its group cannot be another's.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        _kill(process)


def _close(pipe: IO[str]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit {code}"

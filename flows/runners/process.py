"""A worker process on this machine: it can be killed, and takes what it started with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

from flows.worker import DONE, KEPT, READY, TIMED_OUT
from pipeline.jobs import Job
from pipeline.queries import CampaignStoppedError

STARTS = 5
"""How often a process is started that is killed before it is ready."""


class WorkerProcess:
    """A process that answers stretches of chunks, started again when it is needed and gone.

    It stands in its own session, so that Ctrl-C reaches the driver alone, which then stops it.
    """

    def __init__(self, directory: Path, log: Path) -> None:
        self.directory = directory
        self.log = log
        self._is_killed_for_good = False
        self._timer_fired = False
        self._is_ready = False
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """The number of the process that is there, or was last."""
        return self._process.pid

    def answer(self, stretch: Sequence[Sequence[Job]], limit_s: float | None) -> str | None:
        """Have chunks answered; why that broke off, or None. `limit_s` is each query's.

        CampaignStoppedError when the process cannot start or the disk takes no result.
        """
        self._be_ready()
        sent = json.dumps([[asdict(job) for job in chunk] for chunk in stretch])
        for chunk in stretch:
            reply = self._within(limit_s and limit_s * len(chunk), sent)
            if reply != DONE:
                return self._broken(reply)
            sent = ""
        reply = self._exchange()
        return None if reply == KEPT else self._broken(reply)

    def kill(self) -> None:
        """Kill the process; the next `answer` starts another."""
        _kill(self._process)

    def close(self) -> None:
        """Kill the process for good."""
        self._is_killed_for_good = True
        _kill(self._process)

    def join(self) -> None:
        """Wait for the end of a closed process."""
        _kill(self._process)  # which `answer` may have started while `close` killed the last one
        self._process.wait()
        self._drop_pipes()

    def _spawn(self) -> subprocess.Popen[str]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | os.environ
        with self.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                # -P: the folder we stand in must not shadow our packages.
                [sys.executable, "-P", "-m", "flows.worker", str(self.directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
            )
        threading.Thread(target=_bury, args=(process,), daemon=True).start()
        return process

    def _be_ready(self) -> None:
        """See to a process that has loaded the campaign, which is no query's time nor fault.

        One that is killed meanwhile, as by a lack of memory, is started again; one that gives up
        would do so again.
        """
        for _ in range(STARTS):
            if self._process.poll() is not None:
                self._drop_pipes()
                self._process, self._is_ready = self._spawn(), False
            self._is_ready = self._is_ready or self._exchange() == READY
            if self._is_ready or self._is_killed_for_good:
                return
            code = self._process.wait()
            if code >= 0:
                break
        raise CampaignStoppedError(
            f"a worker did not start ({_cause(code)}); its log is {self.log}"
        )

    def _within(self, limit_s: float | None, sent: str) -> str:
        self._timer_fired = False
        if not limit_s:
            return self._exchange(sent)
        timer = threading.Timer(limit_s, self._time_out)
        timer.start()
        try:
            return self._exchange(sent)
        finally:
            timer.cancel()

    def _exchange(self, line: str = "") -> str:
        """Send a line, if there is one, and receive one; nothing when the process is gone."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018 - both are pipes
        try:
            if line:
                stdin.write(line + "\n")
                stdin.flush()
            reply = stdout.readline()
            return str(json.loads(reply)) if reply.endswith("\n") else ""
        except (BrokenPipeError, ValueError):
            return ""

    def _broken(self, reply: str) -> str:
        if reply:
            raise CampaignStoppedError(
                f"a result cannot be written: {reply}; nothing that was recorded is lost: "
                "mend this and run the same command again"
            )
        code = self._process.wait()
        return TIMED_OUT if self._timer_fired else f"the oracle's process died ({_cause(code)})"

    def _time_out(self) -> None:
        self._timer_fired = True
        _kill(self._process)

    def _drop_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                _close(pipe)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill the worker and whatever it started: they are a process group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _bury(process: subprocess.Popen[str]) -> None:
    """Kill what a worker leaves when it dies: it works on, and may hold the worker's pipe open."""
    with suppress(ChildProcessError):
        # Not reaped yet, so that the number of its group cannot be another's.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        _kill(process)


def _close(pipe: IO[str]) -> None:
    with suppress(BrokenPipeError):
        pipe.close()


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit {code}"

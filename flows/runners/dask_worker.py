"""What runs inside a Dask worker: it hands each chunk to a process of its own, which can be killed.

So an oracle that dies or hangs never takes the Dask worker with it, and a Dask worker that is
killed leaves a process that finishes what it had begun, like a local one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.runners.process import WorkerProcess
from pipeline.jobs import Job

_guard = threading.Lock()
_idle: dict[str, list[WorkerProcess]] = {}
_busy: dict[WorkerProcess, frozenset[str]] = {}
_refused: set[str] = set()
"""Keys that were cancelled: a task that was on its way here must not begin."""


def answer(directory: str, chunk: Sequence[Mapping[str, Any]], limit_s: float | None) -> str | None:
    """Have a chunk answered; why that broke off, or None. The results are in their files."""
    jobs = [Job(**job) for job in chunk]
    if any(job.key in _refused for job in jobs):
        return "cancelled"
    process = _taken(directory, frozenset(job.key for job in jobs))
    try:
        return process.answer([jobs], limit_s)
    finally:
        with _guard:
            del _busy[process]
            _idle[directory].append(process)


def _taken(directory: str, keys: frozenset[str]) -> WorkerProcess:
    """A process that is idle, or a new one."""
    with _guard:
        waiting = _idle.setdefault(directory, [])
        process = waiting.pop() if waiting else _started(directory)
        _busy[process] = keys
    return process


def _started(directory: str) -> WorkerProcess:
    name = f"worker-{os.uname().nodename}-{os.getpid()}-{threading.get_ident()}.log"
    return WorkerProcess(Path(directory), Path(directory) / "jobs" / name)


def interrupt(keys: Collection[str]) -> None:
    """Kill the processes of this worker that work on one of these keys, and let none begin."""
    with _guard:
        _refused.update(keys)
        for process, at_work in _busy.items():
            if at_work & set(keys):
                process.kill()


def dismiss(directory: str) -> None:
    """Kill the processes of a campaign that ends or stops."""
    with _guard:
        busy = [process for process in _busy if str(process.directory) == directory]
        idle = _idle.pop(directory, [])
        _idle[directory] = []
    for process in busy:
        process.kill()
    for process in idle:
        process.close()
        process.join()

"""A query at work has a folder: a lock that dies with its holder, a result that is whole.

`jobs/<key>/result.json` is written aside and renamed, so it is there entirely or not at all. Before
work starts the worker takes the kernel's lock on `jobs/<key>/lock` and looks for a result again,
and takes the room that the result will need, so that a full disk stops it before money is spent.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import BinaryIO

from pipeline.ledger_file import sync_file

RESULT, ROOM = "result.json", "room"
ROOM_BYTES = 4096
"""A result with fewer characters always finds room: one block of most disks."""


@dataclass(frozen=True)
class Job:
    """One query to be answered: `fidelity` is the oracle's place in the ladder."""

    key: str
    candidate: str
    fidelity: int


@dataclass(frozen=True)
class Outcome:
    """What came of one query: properties, or an error; `ran` is False for a refund.

    `attempts`: how often its work was begun, this time included; `cached`: another campaign paid
    for it.
    """

    key: str
    properties: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    ran: bool = True
    seconds: float = 0.0
    attempts: int = 1
    cached: bool = False


@contextmanager
def locked(jobs: Path, keys: Sequence[str], wait: bool = True) -> Iterator[None]:
    """Hold the locks of several jobs; waits for a worker of a dead driver to finish its own.

    Unless `wait`: BlockingIOError when another holds one.
    """
    handles = []
    try:
        for key in sorted(keys):  # one order everywhere, so that two holders never wait in a ring
            folder = jobs / key
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            handles.append(handle)
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        for handle in handles:
            os.close(handle)


def keep_room(jobs: Path, key: str) -> None:
    """Take the room on the disk that a result needs, before its oracle is asked.

    Bytes are written, because a file system may promise what it has not got. The holder of the
    job's lock calls this; OSError when the disk is full.
    """
    with _written_over(jobs / key / ROOM) as file:
        file.write(bytes(ROOM_BYTES))


@contextmanager
def _written_over(path: Path) -> Iterator[BinaryIO]:
    """A file to write from its start, in the room that it has; OSError names it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "r+b") as file:
            yield file
    except OSError as error:  # what a write raises does not say where
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_result(jobs: Path, result: Outcome, durable: bool = True) -> None:
    """Write `result.json` so that it is there whole or not at all.

    Unless `durable` that holds when this process dies, but after a power cut only once
    `sync_results` has run.
    """
    target = jobs / result.key / RESULT
    # A name of its own: a time limit's thread may write while the answer does.
    fresh = target.with_suffix(f".{threading.get_ident()}.tmp")
    with suppress(FileNotFoundError):  # none was kept, or the other thread has it
        target.with_name(ROOM).rename(fresh)
    with _written_over(fresh) as file:
        file.write(json.dumps(asdict(result)).encode())
        file.truncate()
        file.flush()
        if durable:
            os.fsync(file.fileno())
    fresh.rename(target)
    if durable:
        sync_file(target.parent)


def sync_results(jobs: Path, keys: Sequence[str]) -> None:
    """Make the results of several jobs survive a power cut.

    From threads at once, because a file system flushes many waiting files together: 32 results cost
    about as much as 2 one after the other.
    """
    paths = [jobs / key / RESULT for key in keys]
    with ThreadPoolExecutor(max(1, min(len(paths), 16))) as threads:
        list(threads.map(sync_file, paths))
        list(threads.map(sync_file, [path.parent for path in paths]))


def read_result(jobs: Path, key: str) -> Outcome | None:
    """The outcome of a job that finished; None when there is none yet.

    What a power cut left torn is set aside: such a result was never counted on.
    """
    path = jobs / key / RESULT
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        # Only what we know: a newer version may have written more, and its result counts.
        return Outcome(**{f.name: data[f.name] for f in fields(Outcome) if f.name in data})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        set_aside(path)
        return None


def forget_result(jobs: Path, key: str) -> None:
    """Put a result out of the way, so that the query can be asked again; it is kept for people."""
    with locked(jobs, [key]):
        set_aside(jobs / key / RESULT)


def set_aside(path: Path) -> None:
    """Rename a file to its first free number, such as `result.1.json`."""
    numbers = itertools.count(1)
    free = (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in numbers)
    with suppress(FileNotFoundError):
        path.rename(next(aside for aside in free if not aside.exists()))

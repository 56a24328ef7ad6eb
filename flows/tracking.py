"""Tracking: keeps MLflow's view of a campaign up to date, beside the rounds and never in their way.

The ledger is the truth. What tracking misses, through a crash or a failure of its own, the next
call catches up, and `motherlode track DIR --rebuild` makes the whole view anew.
"""

from __future__ import annotations

import fcntl
import logging
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Tracking
from pipeline.ledger import LedgerError
from pipeline.progress import Progress
from pipeline.snapshot import read_snapshot
from pipeline.status import read_status

if TYPE_CHECKING:
    from flows.mlflow_view import MlflowView, Status

STORE = "mlflow.db"

logger = logging.getLogger("motherlode")


class TrackingError(Exception):
    """MLflow's view could not be written although someone asked for just that."""


class MlflowTracking(Progress):
    """MLflow's view of the campaign in `directory`, written by one thread of its own.

    `uri` names a tracking server or store; without it the store is `mlflow.db` in the directory.
    `started`, `queries` and `finished` raise nothing: the last failure is kept in `failure`, and
    the first is warned of.
    """

    def __init__(self, directory: Path, uri: str | None = None) -> None:
        self.directory = directory.resolve()
        self.uri = uri or f"sqlite:///{self.directory / STORE}"
        self.failure: str | None = None
        self._view: MlflowView | None = None
        # A thread, so that MLflow's store (seconds to create) and figures wait beside the oracles.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mlflow")

    def started(self) -> None:
        """The campaign begins or goes on: open the store, and catch up what was missed.

        MLflow is imported by the caller's own thread: two threads that import at once can see
        half-made modules.
        """
        self._guarded(_import_mlflow)
        self._worker.submit(self._guarded, self._sync)

    def queries(self, n: int) -> None:
        """N queries are at work: show the rounds before them that are not shown yet.

        Not when a round is recorded, because the next one trains then, in this process: to draw a
        round's figures beside that held it up by 2 s, while now it only waits for the oracles.
        """
        self._worker.submit(self._guarded, self._sync)

    def finished(self, status: Status) -> None:
        """The campaign ended; returns when everything is shown that can be."""
        self._worker.submit(self._guarded, self._finish, status).result()

    def update(self) -> None:
        """Show everything now, as it stands. TrackingError when that fails."""
        self._now(self._show_all)

    def rebuild(self) -> None:
        """Delete this campaign's runs and make them anew. TrackingError when that fails."""
        self._now(self._rebuild)

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            _while_alone(self.directory, work, *arguments)
        # Whatever goes wrong in a view must never stop or change a round.
        except Exception as error:
            if self.failure is None:
                logger.warning("%s", _remedy(self.directory, error))
            self._view = None  # perhaps its runs are gone: the next call opens it anew
            self.failure = f"{type(error).__name__}: {error}"

    def _now(self, work: Callable[[], None]) -> None:
        try:
            self._worker.submit(_while_alone, self.directory, work).result()
        except LedgerError:
            raise
        except Exception as error:
            raise TrackingError(f"MLflow at {self.uri}: {_first_line(error)}") from error

    def _opened(self) -> MlflowView:
        if self._view is None:
            from flows.mlflow_view import MlflowView, create_store

            if self._is_own_store():
                create_store(self.directory / STORE)
            name = read_snapshot(self.directory).config.name
            self._view = MlflowView(self.directory, self.uri, name)
        return self._view

    def _is_own_store(self) -> bool:
        return self.uri == f"sqlite:///{self.directory / STORE}"

    def _sync(self) -> None:
        view = self._opened()
        view.sync(read_snapshot(self.directory))

    def _finish(self, status: Status) -> None:
        self._sync()
        self._opened().close(read_snapshot(self.directory), status)

    def _show_all(self) -> None:
        state = read_status(self.directory)["state"]
        self._sync() if state == "running" else self._finish(_ENDS[state])

    def _rebuild(self) -> None:
        if self._is_own_store():
            _remove_if_broken(self.directory / STORE)
        self._opened().remove()
        self._show_all()


def _while_alone(directory: Path, work: Callable[..., None], *arguments: object) -> None:
    """Wait for another process (`motherlode track`) that writes the same view, then keep it out."""
    with (directory / "mlflow.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        work(*arguments)


def _import_mlflow() -> None:
    from flows.mlflow_view import import_client

    import_client()


_ENDS: dict[str, Status] = {"done": "FINISHED", "stopped": "KILLED"}


@contextmanager
def tracking(directory: Path, config: Tracking) -> Iterator[Progress]:
    """Watch a campaign while it runs: MLflow's view, or nothing, as the configuration says."""
    if config.kind == "none":
        yield Progress()
        return
    view = MlflowTracking(directory, config.uri)
    view.started()
    status: Status = "KILLED"  # what an interrupt leaves
    try:
        yield view
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        view.finished(status)


def track_directory(directory: Path, rebuild: bool = False) -> None:
    """Bring MLflow's view of a campaign up to date, or make it anew.

    LedgerError when there is no campaign; TrackingError when MLflow cannot be written.
    """
    view = MlflowTracking(directory, read_snapshot(directory).config.tracking.uri)
    if rebuild:
        view.rebuild()
    else:
        view.update()


def _remedy(directory: Path, error: Exception) -> str:
    command = f"motherlode track {shlex.quote(str(directory))} --rebuild"
    return (
        f"MLflow's view fell behind ({_first_line(error)}); the campaign goes on and its ledger "
        f"is whole; the next round tries again, or make the view anew with `{command}`"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _remove_if_broken(store: Path) -> None:
    """Remove the campaign's own store when SQLite cannot read it: nothing in it is to be kept."""
    if not store.exists():
        return
    db = sqlite3.connect(store)
    try:
        is_broken = db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok"
    except sqlite3.DatabaseError:
        is_broken = True
    finally:
        db.close()
    if is_broken:
        store.unlink()

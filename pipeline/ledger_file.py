"""The ledger's file: its schema, how an older one is brought up to date, and what can be wrong.

Opening looks at the version first. An older ledger is copied aside and then migrated in one
transaction, so that a crash leaves the old one or the new one; a newer one is refused.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

SCHEMA_VERSION = 2
_INDICES = """
CREATE INDEX queries_by_round ON queries (round);
CREATE INDEX queries_by_state ON queries (state, fidelity, family, value, actual_cost);
CREATE INDEX queries_open ON queries (declared_cost, paid_before)
    WHERE state IN ('reserved', 'running');
"""
# The index by state holds all that is summed, counted and compared: for a million rows that is read
# from it alone, in a fraction of a second.
SCHEMA = f"""
CREATE TABLE queries (
    key TEXT PRIMARY KEY,
    campaign TEXT NOT NULL,
    round INTEGER NOT NULL,
    candidate TEXT NOT NULL,
    fidelity TEXT NOT NULL,
    oracle TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'running', 'done', 'failed', 'cancelled')),
    declared_cost REAL NOT NULL,
    actual_cost REAL,
    value REAL,
    error TEXT,
    reason TEXT NOT NULL,
    created_at TEXT NOT NULL,
    finished_at TEXT,
    seconds REAL,
    properties TEXT,
    family TEXT NOT NULL,
    description TEXT NOT NULL,
    started_at TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    runner_handle TEXT,
    paid_before REAL NOT NULL DEFAULT 0
);
CREATE TABLE about (name TEXT PRIMARY KEY, text TEXT NOT NULL);
{_INDICES}"""
_ADDED = {  # by version 2, beside the indices
    "started_at": "TEXT",
    "attempts": "INTEGER NOT NULL DEFAULT 0",
    "runner_handle": "TEXT",
    "paid_before": "REAL NOT NULL DEFAULT 0",
}
_FROM_VERSION_1 = [
    "DROP INDEX queries_by_state",
    "DROP INDEX queries_by_round",
    *(f"ALTER TABLE queries ADD COLUMN {name} {kind}" for name, kind in _ADDED.items()),
    *(statement for statement in _INDICES.split(";") if statement.strip()),
]
CHECKED_BYTES = 64 * 2**20
"""Up to this size opening reads the whole file for damage (about 0.2 s); see `_check_whole`."""


class LedgerError(Exception):
    """The ledger cannot do what was asked; the message says why and what to do."""


class StorageError(OSError):
    """The disk does not take what is to be written: nothing recorded is lost, the rest waits."""


def create(path: Path, about: Mapping[str, str]) -> None:
    """Make a new ledger aside and rename it, so that a crash leaves a whole ledger or none."""
    fresh = path.with_suffix(".new")
    with clear_errors(path):
        for leftover in path.parent.glob(f"{fresh.name}*"):
            leftover.unlink()
        db = sqlite3.connect(fresh)
        db.executescript(SCHEMA)
        db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.commit()
        db.close()
        sync_file(fresh)
        fresh.rename(path)
        sync_file(path.parent)


def connect_writer(path: Path) -> sqlite3.Connection:
    """The connection of the one writer; an older ledger is migrated first."""
    with clear_errors(path):
        db = _connect(f"{path.resolve().as_uri()}?mode=rw")
        version = _check_whole(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if version < SCHEMA_VERSION:
            _migrate(db, path, version)
    return db


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, also while another process does; reads an older ledger."""
    with clear_errors(path):
        # Not mode=ro: that one cannot take away the two files that SQLite puts beside a WAL.
        how = "mode=rw" if _can_write_beside(path) else "mode=ro&immutable=1"
        db = _connect(f"{path.resolve().as_uri()}?{how}")
        if _check_whole(db, path) < SCHEMA_VERSION:
            added = ", ".join(
                f"{'0' if 'DEFAULT' in kind else 'NULL'} AS {name}" for name, kind in _ADDED.items()
            )
            # rowid too: a view has none of its own, and reservation order is read from it.
            db.execute(
                f"CREATE TEMP VIEW queries AS SELECT rowid, *, {added} FROM main.queries"  # noqa: S608
            )
        db.execute("PRAGMA query_only = ON")
    return db


def _can_write_beside(path: Path) -> bool:
    """Whether SQLite can make its files here; in an archive nobody writes, so it needs none."""
    return (
        os.access(path.parent, os.W_OK, effective_ids=True)
        or path.with_name(f"{path.name}-wal").exists()
    )


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)


def _check_whole(db: sqlite3.Connection, path: Path) -> int:
    """Its version. LedgerError unless this is a ledger of ours, not newer than us, undamaged.

    Reading every page of a large file would take longer than all else that a resume does. There the
    length and the small table are looked at; a damaged page is told when it is met.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{path} has schema version {version}, expected at most {SCHEMA_VERSION}: "
            "use the version of motherlode that wrote it"
        )
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if version < 1 or not {"queries", "about"} <= tables:
        raise LedgerError(f"{path} is not a ledger: it has no tables `queries` and `about`")
    check = "quick_check(1)" if path.stat().st_size <= CHECKED_BYTES else "quick_check(about)"
    verdict = db.execute(f"PRAGMA {check}").fetchone()[0]
    if verdict != "ok":
        raise LedgerError(f"{path} is damaged: {' '.join(str(verdict).split())}")
    return version


def _migrate(db: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the ledger aside, then bring it up to date in one transaction."""
    _back_up(db, path.with_name(f"{path.name}.version-{version}"))
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in _FROM_VERSION_1:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        roll_back(db)
        raise
    db.execute("COMMIT")


def _back_up(db: sqlite3.Connection, target: Path) -> None:
    fresh = target.with_name(f"{target.name}.tmp")
    fresh.unlink(missing_ok=True)
    copy = sqlite3.connect(fresh)
    try:
        db.backup(copy)
    finally:
        copy.close()
    sync_file(fresh)
    fresh.rename(target)
    sync_file(target.parent)


def roll_back(db: sqlite3.Connection) -> None:
    """Undo the transaction; SQLite has done so itself after some errors, such as a full disk."""
    with suppress(sqlite3.Error):
        if db.in_transaction:
            db.execute("ROLLBACK")


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Tell SQLite's errors in one line each, with the remedy."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _told(error, path) from None


def _told(error: sqlite3.DatabaseError, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code, without its details
    match code:
        case sqlite3.SQLITE_FULL:
            return StorageError(f"{path}: the disk is full; free some space")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StorageError(f"{path} cannot be written ({error}); see the folder's permissions")
        case sqlite3.SQLITE_IOERR:
            return StorageError(f"{path} cannot be read or written ({error}); look at the disk")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StorageError(f"{path} is held by another process ({error}); wait for it")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return LedgerError(f"{path} is not a readable ledger: {error}")
        case _:
            return error


def sync_file(path: Path) -> None:
    """Flush a file's data, or a directory's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

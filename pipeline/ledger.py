"""The ledger: the append-only record of queries and outcomes, and the only truth of a campaign.

A SQLite file in WAL mode with `synchronous=FULL`. A query is reserved with its declared cost before
it is dispatched, and ends exactly once: `done` with its actual cost, or `failed` with its cost and
reason (cost 0, a refund, when the oracle did not run). Each change is one transaction.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.config import digest

SCHEMA_VERSION = 1
OPEN_STATES = ("reserved", "running")
_SCHEMA = """
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
    description TEXT NOT NULL
);
CREATE INDEX queries_by_state ON queries (state);
CREATE INDEX queries_by_round ON queries (round);
CREATE TABLE about (name TEXT PRIMARY KEY, text TEXT NOT NULL);
"""


class LedgerError(Exception):
    """The ledger cannot do what was asked; the message says why and what to do."""


class OverBudgetError(LedgerError):
    """A reservation would exceed the budget; nothing was reserved."""


@dataclass(frozen=True)
class Query:
    """One (candidate, fidelity) to be reserved, with everything a reader of the ledger needs."""

    key: str
    round: int
    candidate: str
    fidelity: str
    oracle: str
    cost: float
    family: str
    description: Mapping[str, str | float | int] = field(default_factory=dict)
    reason: Mapping[str, Any] = field(default_factory=dict)


class Ledger:
    """One campaign's ledger. Open it with `Ledger.open` (writer) or `Ledger.read` (reader)."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    @classmethod
    def open(cls, path: Path, about: Mapping[str, str]) -> Ledger:
        """Open for writing, creating the file with `about` when there is none.

        Only the holder of the campaign's lock may call this.
        """
        if path.exists() and path.stat().st_size:
            return cls(_connect(path), path)
        # Created aside and renamed, so that a crash leaves a whole ledger or none.
        fresh = path.with_suffix(".new")
        for leftover in path.parent.glob(f"{fresh.name}*"):
            leftover.unlink()
        db = sqlite3.connect(fresh)
        db.executescript(_SCHEMA)
        db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.commit()
        db.close()
        sync_file(fresh)
        fresh.rename(path)
        sync_file(path.parent)
        return cls(_connect(path), path)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Open read-only, also while another process writes. LedgerError when there is none."""
        if not path.is_file():
            raise LedgerError(f"{path.parent}: no campaign here (expected {path.name} in it)")
        return cls(_connect(path, read_only=True), path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def about(self) -> dict[str, str]:
        """What the campaign is: name, resolved configuration, folder of the configuration."""
        return dict(self._db.execute("SELECT name, text FROM about").fetchall())

    def set_about(self, about: Mapping[str, str]) -> None:
        """Replace entries of `about` in one transaction."""
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", about.items())

    def forget(self, name: str) -> None:
        """Remove an entry of `about`."""
        with self._transaction():
            self._db.execute("DELETE FROM about WHERE name = ?", (name,))

    def reserve(self, queries: Sequence[Query], campaign: str, budget: float) -> list[str]:
        """Reserve a whole batch or none of it; returns the keys that are new.

        A key that the ledger holds already is not reserved again: its outcome is there, free.
        OverBudgetError when paid plus promised cost would exceed `budget`.
        """
        with self._transaction():
            held = self._held([q.key for q in queries])
            fresh = list({q.key: q for q in queries if q.key not in held}.values())
            asked = sum(q.cost for q in fresh)
            committed = self.spend() + self.promised()
            if not affordable(asked, budget - committed):
                raise OverBudgetError(
                    f"the batch costs {asked:g}; of {budget:g} only {budget - committed:g} is left"
                )
            self._db.executemany(
                "INSERT INTO queries (key, campaign, round, candidate, fidelity, oracle, state,"
                " declared_cost, reason, created_at, family, description)"
                " VALUES (?, ?, ?, ?, ?, ?, 'reserved', ?, ?, ?, ?, ?)",
                [_row(q, campaign) for q in fresh],
            )
        return [q.key for q in fresh]

    def _held(self, keys: Sequence[str]) -> set[str]:
        rows = self._db.execute(
            "SELECT key FROM queries WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
        return {key for (key,) in rows}

    def record_known(
        self, queries: Sequence[Query], values: Sequence[float], campaign: str
    ) -> None:
        """Record values that the user brought, at no cost, in one transaction."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO queries (key, campaign, round, candidate, fidelity, oracle,"
                " state, declared_cost, actual_cost, value, reason, created_at, finished_at,"
                " family, description) VALUES (?, ?, ?, ?, ?, ?, 'done', 0, 0, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        q.key,
                        campaign,
                        q.round,
                        q.candidate,
                        q.fidelity,
                        q.oracle,
                        float(value),
                        _json(q.reason),
                        _now(),
                        _now(),
                        q.family,
                        _json(q.description),
                    )
                    for q, value in zip(queries, values, strict=True)
                ],
            )

    def start(self, keys: Sequence[str]) -> None:
        """Mark reserved queries as running."""
        with self._transaction():
            self._db.executemany(
                "UPDATE queries SET state = 'running' WHERE key = ? AND state = 'reserved'",
                [(key,) for key in keys],
            )

    def commit(
        self, key: str, properties: Mapping[str, float], value: float, cost: float, seconds: float
    ) -> None:
        """End an open query as done. LedgerError when it is not open: it is never paid twice."""
        self._finish(
            key,
            "state = 'done', properties = ?, value = ?, actual_cost = ?, seconds = ?",
            (_json(properties), value, cost, seconds),
        )

    def fail(self, key: str, error: str, cost: float, seconds: float = 0.0) -> None:
        """End an open query as failed; cost 0 is a refund."""
        self._finish(
            key,
            "state = 'failed', error = ?, actual_cost = ?, seconds = ?",
            (error, cost, seconds),
        )

    def _finish(self, key: str, assignments: str, values: tuple[Any, ...]) -> None:
        with self._transaction():
            cursor = self._db.execute(
                f"UPDATE queries SET {assignments}, finished_at = ?"  # noqa: S608 - fixed texts
                " WHERE key = ? AND state IN ('reserved', 'running')",
                (*values, _now(), key),
            )
            if cursor.rowcount != 1:
                raise LedgerError(f"query {key} is not open; its outcome is already recorded")

    def spend(self) -> float:
        """What was paid."""
        return self._sum("actual_cost", "state IN ('done', 'failed', 'cancelled')")

    def promised(self) -> float:
        """The declared cost of what is reserved or running."""
        return self._sum("declared_cost", "state IN ('reserved', 'running')")

    def _sum(self, column: str, where: str) -> float:
        query = f"SELECT TOTAL({column}) FROM queries WHERE {where}"  # noqa: S608 - fixed texts
        return float(self._db.execute(query).fetchone()[0])

    def open_queries(self) -> list[dict[str, Any]]:
        """Reserved or running queries in order of reservation."""
        return self._rows("WHERE state IN ('reserved', 'running') ORDER BY rowid")

    def round_queries(self, number: int) -> list[dict[str, Any]]:
        """The queries of one round in order of reservation."""
        return self._rows("WHERE round = ? ORDER BY rowid", (number,))

    def last_round(self) -> int | None:
        """The highest round that has a query; None in an empty ledger."""
        found = self._db.execute("SELECT MAX(round) FROM queries").fetchone()[0]
        return None if found is None else int(found)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many queries are in each state, by fidelity."""
        counts: dict[str, dict[str, int]] = {}
        rows = self._db.execute("SELECT fidelity, state, COUNT(*) FROM queries GROUP BY 1, 2")
        for fidelity, state, n in rows:
            counts.setdefault(fidelity, {})[state] = n
        return counts

    def to_frame(self) -> pd.DataFrame:
        """All queries in order of reservation, one row each; `reason` and the like as objects."""
        frame = pd.DataFrame(self._rows("ORDER BY rowid"), columns=self._columns())
        numbers = ["declared_cost", "actual_cost", "value", "seconds"]
        frame[numbers] = frame[numbers].astype("float64")
        return frame

    def _columns(self) -> list[str]:
        return [row[1] for row in self._db.execute("PRAGMA table_info(queries)")]

    def _rows(self, clause: str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        cursor = self._db.execute(f"SELECT * FROM queries {clause}", values)  # noqa: S608
        names = [column[0] for column in cursor.description]
        return [_decode(dict(zip(names, row, strict=True))) for row in cursor]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def affordable(cost: float, left: float) -> bool:
    """Whether a cost fits, allowing for the rounding of sums of decimal costs."""
    return cost <= left + 1e-9 * max(1.0, abs(left))


def query_key(identity: str, fidelity: str, candidate: str) -> str:
    """The stable key of a query: a hash of the oracle's identity, the fidelity, the candidate."""
    return digest([identity, fidelity, candidate])


def sync_file(path: Path) -> None:
    """Flush a file's data, or a directory's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _connect(path: Path, read_only: bool = False) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=rw",
            uri=True,
            timeout=30,
            isolation_level=None,
            check_same_thread=False,
        )
        _check_whole(db, path)
        if read_only:
            # Not mode=ro: that one cannot take away the two files that SQLite puts beside a WAL.
            db.execute("PRAGMA query_only = ON")
        else:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"{path} is not a readable ledger: {error}") from None
    return db


def _check_whole(db: sqlite3.Connection, path: Path) -> None:
    """LedgerError unless this is a ledger of our version, and undamaged."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version != SCHEMA_VERSION:
        raise LedgerError(
            f"{path} has schema version {version}, expected {SCHEMA_VERSION}: "
            "use the version of motherlode that wrote it"
        )
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if not {"queries", "about"} <= tables:
        raise LedgerError(f"{path} is not a ledger: it has no tables `queries` and `about`")
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise LedgerError(f"{path} is damaged: {' '.join(str(verdict).split())}")


def _row(query: Query, campaign: str) -> tuple[Any, ...]:
    return (
        query.key,
        campaign,
        query.round,
        query.candidate,
        query.fidelity,
        query.oracle,
        query.cost,
        _json(query.reason),
        _now(),
        query.family,
        _json(query.description),
    )


def _decode(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("reason", "description", "properties"):
        row[name] = json.loads(row[name]) if row[name] else {}
    return row


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(dict(data), ensure_ascii=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

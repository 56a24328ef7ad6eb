"""The ledger: the append-only record of queries and outcomes, and the only truth of a campaign.

A SQLite file in WAL mode with `synchronous=FULL`. A query is reserved with its declared cost before
it is dispatched, and ends exactly once: `done` with its actual cost, or `failed` with its cost and
reason (cost 0, a refund, when the oracle did not run). Each change is one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config import digest
from pipeline.ledger_file import (
    SCHEMA_VERSION,
    LedgerError,
    StorageError,
    clear_errors,
    connect_reader,
    connect_writer,
    create,
    roll_back,
    sync_file,
)
from pipeline.ledger_reader import OPEN, OPEN_STATES, LedgerReader

__all__ = [
    "OPEN_STATES",
    "SCHEMA_VERSION",
    "Ledger",
    "LedgerError",
    "OverBudgetError",
    "Query",
    "StorageError",
    "affordable",
    "query_key",
    "sync_file",
]


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


class Ledger(LedgerReader):
    """One campaign's ledger. Open it with `Ledger.open` (writer) or `Ledger.read` (reader)."""

    @classmethod
    def open(cls, path: Path, about: Mapping[str, str]) -> Ledger:
        """Open for writing, creating the file with `about` when there is none.

        Only the holder of the campaign's lock may call this.
        """
        if not path.exists() or not path.stat().st_size:
            create(path, about)
        return cls(connect_writer(path), path)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Open read-only, also while another process writes. LedgerError when there is none."""
        if not path.is_file():
            raise LedgerError(f"{path.parent}: no campaign here (expected {path.name} in it)")
        return cls(connect_reader(path), path)

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
            committed = self.committed()
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
        asked = "SELECT key FROM queries WHERE key IN (SELECT value FROM json_each(?))"
        return {key for (key,) in self._ask(asked, (json.dumps(list(keys)),))}

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
        now = _now()
        with self._transaction():
            self._db.executemany(
                "UPDATE queries SET state = 'running', started_at = ?"
                " WHERE key = ? AND state = 'reserved'",
                [(now, key) for key in keys],
            )

    def note_handles(self, handles: Mapping[str, str]) -> None:
        """Write down what the runner calls its open queries, such as `slurm 17`, for people."""
        with self._transaction():
            self._db.executemany(
                f"UPDATE queries SET runner_handle = ? WHERE key = ? AND {OPEN}",  # noqa: S608
                [(handle, key) for key, handle in handles.items()],
            )

    def commit(
        self,
        key: str,
        properties: Mapping[str, float],
        value: float,
        cost: float,
        seconds: float,
        attempts: int = 1,
    ) -> None:
        """End an open query as done. LedgerError when it is not open: it is never paid twice."""
        self._finish(
            key,
            "state = 'done', properties = ?, value = ?, actual_cost = paid_before + ?,"
            " seconds = ?, attempts = attempts + ?",
            (_json(properties), value, cost, seconds, attempts),
        )

    def fail(
        self, key: str, error: str, cost: float, seconds: float = 0.0, attempts: int = 1
    ) -> None:
        """End an open query as failed; cost 0 is a refund."""
        self._finish(
            key,
            "state = 'failed', error = ?, actual_cost = paid_before + ?, seconds = ?,"
            " attempts = attempts + ?",
            (error, cost, seconds, attempts),
        )

    def cancel(self, keys: Sequence[str], why: str) -> None:
        """End those of `keys` that are open as cancelled, at no cost; again it does nothing."""
        now = _now()
        with self._transaction():
            self._db.executemany(
                f"UPDATE queries SET state = 'cancelled', error = ?, actual_cost = paid_before, "  # noqa: S608
                f"finished_at = ? WHERE key = ? AND {OPEN}",
                [(why, now, key) for key in keys],
            )

    def reopen(self, keys: Sequence[str], budget: float) -> list[str]:
        """Reserve the failed queries of `keys` once more, all or none; what was paid stays paid.

        Their result files must be out of the way first: see `pipeline.jobs.forget_result`.
        OverBudgetError when their declared cost no longer fits in `budget`.
        """
        with self._transaction():
            asked = "state = 'failed' AND key IN (SELECT value FROM json_each(?))"
            rows = self._ask(
                f"SELECT key, declared_cost FROM queries WHERE {asked} ORDER BY rowid",  # noqa: S608
                (json.dumps(list(keys)),),
            )
            cost, left = sum(cost for _, cost in rows), budget - self.committed()
            if not affordable(cost, left):
                raise OverBudgetError(f"trying again costs {cost:g}; only {left:g} is left")
            self._db.executemany(
                "UPDATE queries SET state = 'reserved', paid_before = actual_cost, actual_cost ="
                " NULL, error = NULL, finished_at = NULL, started_at = NULL WHERE key = ?",
                [(key,) for key, _ in rows],
            )
        return [key for key, _ in rows]

    def _finish(self, key: str, assignments: str, values: tuple[Any, ...]) -> None:
        with self._transaction():
            cursor = self._db.execute(
                f"UPDATE queries SET {assignments}, finished_at = ?"  # noqa: S608 - fixed texts
                f" WHERE key = ? AND {OPEN}",
                (*values, _now(), key),
            )
            if cursor.rowcount != 1:
                raise LedgerError(f"query {key} is not open; its outcome is already recorded")

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make the changes inside one transaction: many outcomes, one flush to the disk.

        An error takes all of them back. Their result files stand, so a resume finds them again.
        """
        with self._transaction():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction, or a part of the one that is open, which can be undone by itself."""
        begin, commit = ("SAVEPOINT part", "RELEASE part")
        is_part = self._db.in_transaction
        if not is_part:
            begin, commit = "BEGIN IMMEDIATE", "COMMIT"
        with clear_errors(self.path):
            self._db.execute(begin)
            try:
                yield
                self._db.execute(commit)
            except BaseException:
                self._undo(is_part)
                raise

    def _undo(self, is_part: bool) -> None:
        if is_part and self._db.in_transaction:  # SQLite may have ended it all: the disk is full
            self._db.execute("ROLLBACK TO part")
            self._db.execute("RELEASE part")
        elif not is_part:
            roll_back(self._db)


def affordable(cost: float, left: float) -> bool:
    """Whether a cost fits, allowing for the rounding of sums of decimal costs."""
    return cost <= left + 1e-9 * max(1.0, abs(left))


def query_key(identity: str, fidelity: str, candidate: str) -> str:
    """The stable key of a query: a hash of the oracle's identity, the fidelity, the candidate."""
    return digest([identity, fidelity, candidate])


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


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(dict(data), ensure_ascii=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

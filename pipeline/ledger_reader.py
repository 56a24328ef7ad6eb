"""What the ledger says: sums, counts and rows, also while another process writes it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.goal import Goal, Target, score
from pipeline.ledger_file import clear_errors

COLUMNS = (
    *("key", "campaign", "round", "candidate", "fidelity", "oracle", "state", "declared_cost"),
    *("actual_cost", "value", "error", "reason", "created_at", "finished_at", "seconds"),
    *("properties", "family", "description", "started_at", "attempts", "runner_handle"),
    "paid_before",
)
_JSON = ("reason", "description", "properties")
_NUMBERS = ("declared_cost", "actual_cost", "value", "seconds", "paid_before")
OPEN_STATES = ("reserved", "running")
OPEN = "state IN ('reserved', 'running')"
ENDED = "state IN ('done', 'failed', 'cancelled')"


class LedgerReader:
    """The questions that a ledger answers, each from an index where rows can be many."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def about(self) -> dict[str, str]:
        """What the campaign is: name, resolved configuration, folder of the configuration."""
        return dict(self._ask("SELECT name, text FROM about"))

    def spend(self) -> float:
        """What was paid."""
        return self._sum("actual_cost", ENDED) + self._sum("paid_before", OPEN)

    def promised(self) -> float:
        """The declared cost of what is reserved or running."""
        return self._sum("declared_cost", OPEN)

    def committed(self) -> float:
        """What was paid and what is promised."""
        return self.spend() + self.promised()

    def _sum(self, column: str, where: str, values: tuple[Any, ...] = ()) -> float:
        query = f"SELECT TOTAL({column}) FROM queries WHERE {where}"  # noqa: S608 - fixed texts
        return float(self._ask(query, values)[0][0])

    def open_queries(self) -> list[dict[str, Any]]:
        """Reserved or running queries in order of reservation."""
        return self._rows(f"WHERE {OPEN} ORDER BY rowid")

    def is_open(self) -> bool:
        """Whether any query is reserved or running."""
        return bool(self._ask(f"SELECT 1 FROM queries WHERE {OPEN} LIMIT 1"))  # noqa: S608

    def began_at(self) -> datetime | None:
        """When the first query was reserved; None in an empty ledger."""
        first = self._ask("SELECT created_at FROM queries ORDER BY rowid LIMIT 1")
        return datetime.fromisoformat(first[0][0]) if first else None

    def has_answers(self) -> bool:
        """Whether any query is done."""
        return bool(self._ask("SELECT 1 FROM queries WHERE state = 'done' LIMIT 1"))

    def n_open(self, number: int) -> tuple[int, int]:
        """How many queries of a round have not ended, and how many it has."""
        query = f"SELECT TOTAL({OPEN}), COUNT(*) FROM queries WHERE round = ?"  # noqa: S608
        n_open, n = self._ask(query, (number,))[0]
        return int(n_open), int(n)

    def round_queries(self, number: int) -> list[dict[str, Any]]:
        """The queries of one round in order of reservation."""
        return self._rows("WHERE round = ? ORDER BY rowid", (number,))

    def last_round(self) -> int | None:
        """The highest round that has a query; None in an empty ledger."""
        last = self._ask("SELECT MAX(round) FROM queries")[0][0]
        return None if last is None else int(last)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many queries are in each state, by fidelity."""
        counts: dict[str, dict[str, int]] = {}
        grouped = "SELECT fidelity, state, COUNT(*) FROM queries GROUP BY state, fidelity"
        for fidelity, state, n in sorted(self._ask(grouped)):
            counts.setdefault(fidelity, {})[state] = n
        return counts

    def best(self, fidelity: str, goal: Goal) -> tuple[str, float] | None:
        """Candidate and value of the best finished query of a fidelity, the first of equals."""
        order, aim = _best_first(goal)
        done = "FROM queries WHERE fidelity = ? AND state = 'done'"
        found = self._ask(
            f"SELECT candidate, value FROM queries WHERE rowid ="  # noqa: S608 - fixed texts
            f" (SELECT rowid {done} ORDER BY {order}, rowid LIMIT 1)",
            (fidelity, *aim),
        )
        return (str(found[0][0]), float(found[0][1])) if found else None

    def top(self, fidelity: str, goal: Goal, k: int, through: int | None = None) -> pd.DataFrame:
        """The k best finished queries of a fidelity, one for each family, best first.

        What `metrics.top_k` says of the whole frame, without reading it: the first of equals, and
        `distance` too where the goal is a target value. `through`: of rounds up to this one.
        """
        chosen = json.dumps(self._firsts(fidelity, goal, k, through))
        asked = "JOIN json_each(?) AS chosen ON queries.rowid = chosen.value ORDER BY chosen.key"
        frame = self._frame([f"queries.{name}" for name in COLUMNS], asked, (chosen,))
        return (
            frame.assign(distance=score(frame["value"], goal))
            if isinstance(goal, Target)
            else frame
        )

    def _firsts(self, fidelity: str, goal: Goal, k: int, through: int | None) -> list[int]:
        """The row numbers of the best of each of the k best families."""
        (order, aim), (until, last) = _best_first(goal), _until(through)
        asked = (
            f"SELECT family, rowid FROM queries WHERE fidelity = ? AND state = 'done'{until}"  # noqa: S608
            f" ORDER BY {order}, rowid LIMIT ?"
        )
        n = 2 * k
        while True:
            rows = self._ask(asked, (fidelity, *last, *aim, n))
            firsts: dict[str, int] = dict(reversed(rows))
            if len(firsts) >= k or len(rows) < n:
                return [rowid for family, rowid in rows if firsts[family] == rowid][:k]
            n *= 4

    def paid(self, through: int | None = None) -> float:
        """The cost of what has ended, of rounds up to `through`."""
        until, last = _until(through)
        return self._sum("actual_cost", ENDED + until, last)

    def n_families(self, fidelity: str, through: int | None = None) -> int:
        """How many different families have a finished query of this fidelity."""
        until, last = _until(through)
        counted = "SELECT COUNT(DISTINCT family) FROM queries WHERE fidelity = ? AND state = 'done'"
        return int(self._ask(counted + until, (fidelity, *last))[0][0])

    def to_frame(self, columns: Sequence[str] = COLUMNS, number: int | None = None) -> pd.DataFrame:
        """All queries in order of reservation, one row each; `reason` and the like as objects.

        `columns`: only these, which is much quicker for a long ledger without the objects.
        `number`: of one round.
        """
        where, values = ("", ()) if number is None else ("WHERE round = ? ", (number,))
        return self._frame(columns, f"{where}ORDER BY rowid", values)

    def _frame(
        self, columns: Sequence[str], clause: str, values: tuple[Any, ...] = ()
    ) -> pd.DataFrame:
        rows = self._ask(f"SELECT {', '.join(columns)} FROM queries {clause}", values)  # noqa: S608
        names = [name.rpartition(".")[2] for name in columns]
        cells = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
        data = {n: [_object(c) for c in cs] if n in _JSON else cs for n, cs in cells.items()}
        frame = pd.DataFrame(data, columns=names)
        numbers = [name for name in _NUMBERS if name in names]
        frame[numbers] = frame[numbers].astype("float64")
        return frame

    def _rows(self, clause: str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        rows = self._ask(f"SELECT {', '.join(COLUMNS)} FROM queries {clause}", values)  # noqa: S608
        named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        return [row | {name: _object(row[name]) for name in _JSON} for row in named]

    def _ask(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with clear_errors(self.path):
            return self._db.execute(query, values).fetchall()


def _object(text: str | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def _best_first(goal: Goal) -> tuple[str, tuple[float, ...]]:
    """What rows are ordered by, and its values."""
    if isinstance(goal, Target):
        return "abs(value - ?)", (goal.target,)
    return ("value" if goal == "minimize" else "-value"), ()


def _until(through: int | None) -> tuple[str, tuple[int, ...]]:
    """A condition on the round, and its values; none at all is quicker."""
    return ("", ()) if through is None else (" AND round <= ?", (through,))

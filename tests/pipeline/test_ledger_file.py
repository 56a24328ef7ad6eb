"""The ledger's file: whole or an error in one line, migrated or as it was, on any disk."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline import ledger_file
from pipeline.ledger import SCHEMA_VERSION, Ledger, LedgerError, StorageError
from tests.fakes import a_query
from tests.pipeline.ledgers import state_of

BUDGET = 5.0


def test_what_a_killed_writer_committed_is_there(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from pipeline.ledger import Ledger\n"
        "from pipeline.ledger import Query\n"
        "l = Ledger.open(Path(sys.argv[1]), {})\n"
        "l.reserve([Query('a', 0, 'c', 't', 'o', 1.0, 'f')], 'x', 5)\n"
        "l.commit('a', {'value': 2.0}, 2.0, 1.0, 0)\n"
        "l._db.execute('BEGIN IMMEDIATE')\n"
        'l._db.execute("UPDATE queries SET value = 99")\n'
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[2]
    died = subprocess.run([sys.executable, "-c", script, str(path), str(root)])
    assert died.returncode == -9
    reader = Ledger.read(path)
    assert list(reader.to_frame()["value"]) == [2.0]
    reader.close()
    writer = Ledger.open(path, {})
    assert writer.spend() == 1.0
    writer.close()


def test_a_crash_while_creating_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    for name in ("ledger.new", "ledger.new-journal", "ledger.new-wal"):
        (tmp_path / name).write_bytes(b"half a ledger")
    with pytest.raises(LedgerError, match="no campaign here"):
        Ledger.read(path)
    made = Ledger.open(path, {"campaign": "x"})
    assert made.about() == {"campaign": "x"}
    made.close()
    assert not list(tmp_path.glob("ledger.new*"))


def test_opening_again_keeps_what_it_is_about(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path, {"campaign": "first"}).close()
    again = Ledger.open(path, {"campaign": "second"})
    assert again.about() == {"campaign": "first"}
    again.close()


def whole_ledger(path: Path) -> None:
    made = Ledger.open(path, {"campaign": "x"})
    made.reserve([a_query(f"k{i}", 0.01) for i in range(200)], "x", BUDGET)
    made.close()


def spoil(path: Path, how: str) -> None:
    if how == "garbage":
        path.write_bytes(b"this is no database, whatever its name says" * 100)
    elif how == "other version":
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    elif how == "foreign":
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE cooking (recipe TEXT)")
    elif how == "foreign of our version":
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE cooking (recipe TEXT)")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif how == "torn":
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "header only":
        path.write_bytes(path.read_bytes()[:100])
    else:
        whole = bytearray(path.read_bytes())
        whole[4096:] = b"\xa5" * (len(whole) - 4096)
        path.write_bytes(whole)


SPOILS = [
    "garbage",
    "other version",
    "foreign",
    "foreign of our version",
    "torn",
    "header only",
    "scribbled over",
]


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("mode", ["open", "read"])
def test_a_spoilt_ledger_is_one_clear_error(tmp_path: Path, how: str, mode: str) -> None:
    path = tmp_path / "ledger.sqlite"
    whole_ledger(path)
    spoil(path, how)
    before = path.read_bytes()
    with pytest.raises(LedgerError) as caught:
        Ledger.open(path, {}) if mode == "open" else Ledger.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before  # whatever is left of it is left alone


def of_version_1(path: Path) -> list[tuple[object, ...]]:
    """A ledger as the first version of motherlode wrote it; its rows."""
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1)
        db.execute("INSERT INTO about VALUES ('campaign', 'old')")
        rows = [
            ("z", "done", 1.0, 1.0, 5.0),
            ("a", "failed", 1.0, 1.0, None),
            ("m", "running", 0.5, None, None),
        ]
        db.executemany(
            "INSERT INTO queries (key, state, declared_cost, actual_cost, value, campaign, round,"
            " candidate, fidelity, oracle, reason, created_at, family, description)"
            " VALUES (?, ?, ?, ?, ?, 'old', 0, 'c', 'target', 'o', '{}', 'then', 'f', '{}')",
            rows,
        )
        return db.execute("SELECT * FROM queries ORDER BY rowid").fetchall()


VERSION_1 = """
CREATE TABLE queries (
    key TEXT PRIMARY KEY, campaign TEXT NOT NULL, round INTEGER NOT NULL,
    candidate TEXT NOT NULL, fidelity TEXT NOT NULL, oracle TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'running', 'done', 'failed', 'cancelled')),
    declared_cost REAL NOT NULL, actual_cost REAL, value REAL, error TEXT, reason TEXT NOT NULL,
    created_at TEXT NOT NULL, finished_at TEXT, seconds REAL, properties TEXT,
    family TEXT NOT NULL, description TEXT NOT NULL
);
CREATE INDEX queries_by_state ON queries (state);
CREATE INDEX queries_by_round ON queries (round);
CREATE TABLE about (name TEXT PRIMARY KEY, text TEXT NOT NULL);
PRAGMA user_version = 1;
"""


def rows_of(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as db:
        return db.execute("SELECT * FROM queries ORDER BY rowid").fetchall()


def test_an_older_ledger_is_read_as_it_is_then_backed_up_and_migrated(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    before = of_version_1(path)
    bytes_before = path.read_bytes()
    reader = Ledger.read(path)
    assert list(reader.to_frame()["key"]) == ["z", "a", "m"]
    assert (reader.spend(), reader.promised(), reader.last_round()) == (2.0, 0.5, 0)
    assert reader.best("target", "minimize") == ("c", 5.0)
    reader.close()
    assert path.read_bytes() == bytes_before
    migrated = Ledger.open(path, {})
    assert (migrated.spend(), migrated.promised()) == (2.0, 0.5)
    assert migrated.reopen(["a"], BUDGET) == ["a"]
    migrated.commit("m", {"value": 1.0}, 1.0, 0.5, 0.0)
    migrated.close()
    backup = tmp_path / "ledger.sqlite.version-1"
    assert rows_of(backup) == before
    fresh = Ledger.open(tmp_path / "fresh.sqlite", {})
    assert schema_of(path) == schema_of(fresh.path)  # migrated is as new
    fresh.close()
    Ledger.open(path, {}).close()  # and not migrated again


def schema_of(path: Path) -> tuple[object, ...]:
    with sqlite3.connect(path) as db:
        columns = db.execute("PRAGMA table_info(queries)").fetchall()
        indices = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'").fetchall()
        (version,) = db.execute("PRAGMA user_version").fetchone()
    return columns, sorted(i for i in indices if i[1]), version


@pytest.mark.parametrize("n", range(1, 10))
def test_a_migration_that_breaks_off_leaves_the_old_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    path = tmp_path / "ledger.sqlite"
    before = of_version_1(path)
    broken = [*ledger_file._FROM_VERSION_1[: n - 1], "DROP TABLE that_is_not_there"]
    with monkeypatch.context() as patch:
        patch.setattr(ledger_file, "_FROM_VERSION_1", broken)
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            Ledger.open(path, {})
    assert rows_of(path) == before
    Ledger.open(path, {}).close()
    assert [row[: len(before[0])] for row in rows_of(path)] == before


def test_a_full_disk_is_one_line_and_loses_nothing(ledger: Ledger) -> None:
    ledger.reserve([a_query("a"), a_query("b")], "test", BUDGET)
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    for act in (_fill, _fill_in_batch):
        with pytest.raises(StorageError, match="disk is full") as caught:
            act(ledger)
        assert "\n" not in str(caught.value)
        assert state_of(ledger) == {"a": "reserved", "b": "reserved"}
    ledger._db.execute("PRAGMA max_page_count = 100000")
    ledger.fail("b", "went wrong", 1.0)  # there is room again
    assert state_of(ledger)["b"] == "failed"


def _fill(ledger: Ledger) -> None:
    ledger.reserve([a_query(f"k{i}", 0.001) for i in range(99)], "test", BUDGET)


def _fill_in_batch(ledger: Ledger) -> None:
    with ledger.batch():
        ledger.commit("a", {"value": 1.0}, 1.0, 1.0, 0.0)
        _fill(ledger)


def test_a_torn_log_keeps_every_whole_transaction_before_the_tear(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    opened = Ledger.open(path, {})
    opened.reserve([a_query(f"k{i}", 0.1) for i in range(4)], "test", BUDGET)
    lengths = []
    wal = path.with_name("ledger.sqlite-wal")
    for i in range(4):
        opened.commit(f"k{i}", {"value": float(i)}, float(i), 0.1, 0.0)
        lengths.append(wal.stat().st_size)
    torn = tmp_path / "torn"
    for kept in range(4):
        for cut in (lengths[kept], lengths[kept] + 1000 if kept < 3 else lengths[kept]):
            torn.mkdir()
            shutil.copy(path, torn)
            (torn / wal.name).write_bytes(wal.read_bytes()[:cut])
            again = Ledger.open(torn / path.name, {})
            assert list(state_of(again).values()).count("done") == kept + 1
            again.close()
            shutil.rmtree(torn)
    opened.close()


READ_ONLY = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from pipeline.ledger import Ledger
os.seteuid(65534)
print(Ledger.read(Path(sys.argv[1])).spend())
for act in (lambda: Ledger.open(Path(sys.argv[1]), {}),
            lambda: Ledger.open(Path(sys.argv[1]).with_name("new.sqlite"), {})):
    try:
        act().set_about({"a": "b"})
    except OSError as error:
        print(type(error).__name__, error)
"""


def test_in_a_folder_that_cannot_be_written_it_is_read_and_writing_is_one_line() -> None:
    with tempfile.TemporaryDirectory() as scratch:  # not pytest's, which only root may enter
        path = Path(scratch) / "ledger.sqlite"
        whole_ledger(path)
        Path(scratch).chmod(0o755)
        path.chmod(0o444)
        command = [sys.executable, "-c", READ_ONLY, str(path), str(Path(__file__).parents[2])]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        spend, opened, created = done.stdout.splitlines()
        assert spend == "0.0"
        for told in (opened, created):
            assert told.startswith("StorageError ")
            assert "cannot be written" in told
        assert [p.name for p in Path(scratch).iterdir()] == ["ledger.sqlite"]


def test_a_damaged_page_of_a_large_ledger_is_told_when_it_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.sqlite"
    whole_ledger(path)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2 // 4096 * 4096
    whole[middle : middle + 3 * 4096] = b"\xa5" * 3 * 4096
    path.write_bytes(whole)
    monkeypatch.setattr(ledger_file, "CHECKED_BYTES", 4096)
    reader = Ledger.read(path)
    with pytest.raises(LedgerError, match="not a readable ledger"):
        reader.to_frame()
    reader.close()

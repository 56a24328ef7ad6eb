"""Empty databases that are made once: copies of ones in use, and what happens without a cache."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.mlflow_view import create_store, import_client
from flows.prepared import CACHE, copy_prepared, keep_prepared, kept


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def schema(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return sorted(db.execute("SELECT name, sql FROM sqlite_master").fetchall(), key=str)


def test_a_copy_of_a_database_in_use_has_all_but_the_rows_left_out(
    cache: Path, tmp_path: Path
) -> None:
    assert not copy_prepared("prefect", tmp_path / "none.db")
    with closing(sqlite3.connect(tmp_path / "used.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE version (number INTEGER)")
        db.execute("CREATE TABLE own (secret TEXT)")
        db.execute("INSERT INTO version VALUES (7)")
        db.execute("INSERT INTO own VALUES ('where this campaign is')")
        db.commit()
        keep_prepared("prefect", tmp_path / "used.db", without=["own"])
    (tmp_path / ".prepared-killed").mkdir()
    assert copy_prepared("prefect", tmp_path / "new.db")
    assert not list(tmp_path.glob(".prepared-*"))
    assert schema(tmp_path / "new.db") == schema(tmp_path / "used.db")
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        assert db.execute("SELECT number FROM version").fetchall() == [(7,)]
        assert db.execute("SELECT * FROM own").fetchall() == []
    assert b"where this campaign is" not in kept("prefect").read_bytes()
    assert [path.name for path in cache.iterdir()] == [kept("prefect").name]


def test_mlflow_takes_the_copy_for_its_own(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_store(tmp_path / "first.db")
    assert kept("mlflow").is_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    create_store(elsewhere / "second.db")
    assert schema(elsewhere / "second.db") == schema(tmp_path / "first.db")
    (default,) = import_client()(
        tracking_uri=f"sqlite:///{elsewhere / 'second.db'}"
    ).search_experiments()
    assert str(elsewhere) in default.artifact_location


def test_without_a_cache_everything_is_made_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE, str(tmp_path / "file"))
    create_store(tmp_path / "store.db")
    assert schema(tmp_path / "store.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "store.db"]

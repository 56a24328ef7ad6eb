"""Empty databases of Prefect and MLflow, made once for a user and copied for every new campaign.

Both make theirs in dozens of migrations, which take seconds. The copy goes through the same check
when it is opened, so that nothing rests on it: without a cache a campaign only starts later.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from pipeline.ledger import sync_file

CACHE = "MOTHERLODE_CACHE"
"""The environment variable that says where they are kept, else in the user's cache folder."""


def kept(package: str) -> Path:
    """Where the empty database of the installed version of a package is kept."""
    root = os.environ.get(CACHE)
    if not root:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = os.fspath(Path(home) / "motherlode")
    return Path(root) / f"{package}-{version(package)}.db"


def copy_prepared(package: str, path: Path) -> bool:
    """Put a copy of the kept database at `path`, whole or not at all; whether there is one."""
    source = kept(package)
    if not source.is_file():
        return False
    for leftover in path.parent.glob(".prepared-*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=".prepared-", dir=path.parent) as folder:
        fresh = Path(folder) / path.name
        shutil.copyfile(source, fresh)
        fresh.rename(path)
    return True


def keep_prepared(package: str, path: Path, without: Iterable[str] = ()) -> None:
    """Keep a copy of the database at `path`, also one in use, for campaigns to come.

    `without`: tables whose rows belong to the campaign. What cannot be kept (a full disk, a home
    that is read-only) is not: the next campaign makes its own.
    """
    with suppress(OSError, sqlite3.Error):
        place = kept(package)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".prepared-", dir=place.parent) as folder:
            fresh = Path(folder) / place.name
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(fresh)) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
                for table in without:
                    copy.execute(f'DELETE FROM "{table}"')  # noqa: S608 - a name of ours
                copy.commit()
                copy.execute("VACUUM")
            sync_file(fresh)
            fresh.rename(place)

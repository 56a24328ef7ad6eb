"""For all tests: one thread, no plug-in of one test in the next, nothing in the user's folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from flows.prepared import CACHE

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

_NOT_OURS: set[str] = set()
"""Modules that were looked at: after every test all of them, thousands, would take long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure what pipeline/'s own tests cover of it: measuring takes a third of their time."""
    for item in items:
        if item.path.parent.name != "pipeline":
            item.add_marker("no_cover")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Empty databases are kept for this run of all workers, and not in the user's folder."""
    os.environ[CACHE] = str(tmp_path_factory.getbasetemp().parent / "prepared")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny tensors are fastest on one thread, and the machine may be shared."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_plugins_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the modules that a test imported from its own folder, and how they were found."""
    finders = list(sys.meta_path)
    yield
    # Others stay: importlib_metadata, which MLflow imports, puts its finder in the place of
    # Python's own, and without it no package would be found installed.
    is_ours = [type(finder).__module__ == "pipeline.plugins" for finder in sys.meta_path]
    sys.meta_path[:] = [
        finder
        for finder, ours in zip(sys.meta_path, is_ours, strict=True)
        if finder in finders or not ours
    ]
    ours = tmp_path_factory.getbasetemp()
    for name in sys.modules.keys() - _NOT_OURS:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(ours):
            del sys.modules[name]
        else:
            _NOT_OURS.add(name)

"""A short campaign beside its plug-in, where workers in other processes find it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests import fakes
from tests.fakes import menu_config, merged


def lab(folder: Path, module: str, oracle: dict[str, Any] | None = None, **changes: Any) -> Path:
    """The config of two oracles that write their evaluations to `log`; `oracle`: their options.

    `module` names the plug-in, and must be another one for each test file of one process.
    """
    (folder / f"{module}.py").write_text(Path(fakes.__file__).read_text())
    price_of = {"kind": f"{module}:Price", "log": str(folder / "log")} | (oracle or {})
    config = menu_config(
        module,
        oracles=[
            price_of | {"fidelity": "low", "cost": 0.1, "bias": 0.2},
            price_of | {"fidelity": "target", "cost": 1},
        ],
        initial={"n": {"low": 4, "target": 2}},
        selection={"batch_size": 4, "n_proposals": 20},
        budget={"cost": 6, "rounds": 2},
    )
    (folder / "c.yaml").write_text(yaml.safe_dump(merged(config, changes)))
    return folder / "c.yaml"


def lines(path: Path) -> list[str]:
    """The lines of a file; none when there is no such file."""
    return path.read_text().splitlines() if path.exists() else []


def wait_for(true: Callable[[], object], seconds: float = 120) -> None:
    """Wait until something holds; fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)

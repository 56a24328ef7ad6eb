"""A config file against the campaign that it began: what `motherlode resume` changed since.

A schedule names a file, and goes on with the campaign as it stands. It imports no Prefect, whose
settings must stand in the environment first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.campaign import CHANGEABLE, LEDGER, directory_of
from pipeline.config import parse, read_yaml
from pipeline.ledger import Ledger


def as_it_stands(config: Path, directory: Path | None) -> tuple[list[str], list[str]]:
    """Assignments that bring a file up to its campaign, and what they change, in words.

    Only of the sections that `resume` may change; both empty where nothing differs or nothing has
    begun. ConfigError when the file is no configuration.
    """
    wanted = parse(read_yaml(config))
    ledger = directory_of(wanted, directory) / LEDGER
    if not ledger.exists():
        return [], []
    file, now = yaml.safe_load(wanted.as_yaml()), _resolved(ledger)
    changed = [section for section in CHANGEABLE if file.get(section) != now.get(section)]
    assignments = [f"{section}={_one_line(now[section])}" for section in changed]
    told = [text for section in changed for text in _differences(section, file, now)]
    return assignments, told


def _resolved(path: Path) -> dict[str, Any]:
    """The configuration that a campaign's ledger holds, with what this version added to it."""
    ledger = Ledger.read(path)
    try:
        text = ledger.about()["config"]
    finally:
        ledger.close()
    resolved: dict[str, Any] = yaml.safe_load(parse(yaml.safe_load(text)).as_yaml())
    return resolved


def _differences(section: str, file: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Each option of a section that differs: `budget.cost is 60 (the file says 30)`."""
    before, after = file[section], now[section]
    return [
        f"{section}.{name} is {_one_line(after.get(name))} "
        f"(the file says {_one_line(before.get(name))})"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _one_line(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")

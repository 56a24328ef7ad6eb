"""Where a campaign stands, read from its ledger alone, also while another process writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil

from pipeline.approval import waiting_batch
from pipeline.config import CampaignConfig
from pipeline.goal import Target
from pipeline.ledger import affordable
from pipeline.ledger_reader import LedgerReader
from pipeline.snapshot import open_ledger


def read_status(directory: Path) -> dict[str, Any]:
    """State, round, money, counts and best value; LedgerError when there is no campaign."""
    ledger, config = open_ledger(directory)
    try:
        return _told(ledger, config, directory)
    finally:
        ledger.close()


def _told(ledger: LedgerReader, config: CampaignConfig, directory: Path) -> dict[str, Any]:
    target, _ = _ladder(ledger)[-1]
    goal = config.objective.goal
    candidate, value = ledger.best(target, goal) or (None, None)
    distance = abs(value - goal.target) if isinstance(goal, Target) and value is not None else None
    return {
        "campaign": config.name,
        "state": _state(ledger, config, directory),
        "round": ledger.last_round(),
        "rounds": config.budget.rounds,
        "spend": ledger.spend(),
        "promised": ledger.promised(),
        "budget": config.budget.cost,
        "property": config.objective.property,
        "goal": str(goal),
        "unit": config.objective.unit,
        "best": value,
        **({"best_distance": distance} if isinstance(goal, Target) else {}),
        "best_candidate": candidate,
        "different_candidates": ledger.n_families(target),
        "queries": ledger.counts(),
    }


def _ladder(ledger: LedgerReader) -> list[tuple[str, float]]:
    """Name and declared cost of each fidelity, cheapest first."""
    return [(str(name), float(cost)) for name, cost in json.loads(ledger.about()["ladder"])]


def _state(ledger: LedgerReader, config: CampaignConfig, directory: Path) -> str:
    """`running`, `waiting for approval`, `done`, or `stopped` (the same command goes on)."""
    if holder(directory) is not None:
        return "running"
    if waiting_batch(directory) is not None:
        return "waiting for approval"
    left = config.budget.cost - ledger.spend()
    cheapest = min(cost for _, cost in _ladder(ledger))
    is_used_up = (ledger.last_round() or 0) >= config.budget.rounds
    is_used_up = is_used_up or not affordable(cheapest, left) or "finished" in ledger.about()
    return "done" if is_used_up and not ledger.is_open() else "stopped"


def holder(directory: Path) -> int | None:
    """The process that runs the campaign; None when there is none."""
    try:
        words = (directory / "lock").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return None
    pid = int(words[1]) if len(words) > 1 and words[1].isdigit() else None
    if pid is None or not psutil.pid_exists(pid):
        return None
    held = [Path(file.path) for file in _open_files(pid)]
    return pid if (directory / "lock").resolve() in held else None


def _open_files(pid: int) -> list[Any]:
    try:
        return list(psutil.Process(pid).open_files())
    except psutil.Error:
        return []

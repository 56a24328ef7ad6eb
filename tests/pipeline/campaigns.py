"""Short campaigns of stand-ins, played for the tests of the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import Campaign
from tests.fakes import KillAt, comparable, menu_config

PRICE = "tests.fakes:Price"


def play(config: dict[str, Any], directory: Path, k: int | None = None) -> pd.DataFrame:
    """Run a campaign, killed at the k-th thing that it tells; its ledger."""
    with Campaign.from_config(config, directory) as campaign:
        campaign.progress = KillAt(k)
        campaign.run()
        return campaign.ledger.to_frame()


def logged(directory: Path, **changes: Any) -> tuple[dict[str, Any], Path]:
    """A short campaign whose oracles write down each evaluation."""
    log = directory / "evaluations"
    ladder = [
        {"kind": PRICE, "fidelity": "low", "cost": 0.1, "bias": 0.2, "log": str(log)},
        {"kind": PRICE, "fidelity": "target", "cost": 1, "log": str(log)},
    ]
    shorter = {
        "oracles": ladder,
        "initial": {"n": {"low": 3, "target": 1}},
        "budget": {"cost": 5, "rounds": 2},
        "selection": {"batch_size": 3, "n_proposals": 20},
        "sampler": {"kind": "gflownet", "n_steps": 2, "batch_size": 4, "hidden": [8]},
    }
    return menu_config(**(shorter | changes)), log


def undisturbed(directory: Path) -> list[dict[str, Any]]:
    config, log = logged(directory)
    frame = play(config, directory / "undisturbed")
    log.unlink()
    return comparable(frame)

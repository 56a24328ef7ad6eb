"""Failed queries tried once more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.campaign import LEDGER, hold, release
from pipeline.config import ConfigError, parse
from pipeline.job_files import forget_result
from pipeline.ledger import Ledger


def retry(directory: Path, keys: Sequence[str] = ()) -> list[str]:
    """Reserve failed queries once more, all of them or those of `keys`; the keys reserved.

    What was paid for the failure stays paid. They go out when the campaign is resumed. ConfigError
    for a key that names no failed query; OverBudgetError when they no longer fit in the budget;
    LockedError while another process runs the campaign.
    """
    Ledger.read(
        directory / LEDGER
    ).close()  # before the lock, which would make the directory's file
    lock = hold(directory)
    try:
        ledger = Ledger.open(directory / LEDGER, {})
        try:
            failed = _failed(ledger, keys)
            for key in failed:
                forget_result(directory / "jobs", key)
            budget = parse(yaml.safe_load(ledger.about()["config"])).budget.cost
            reserved = ledger.reopen(failed, budget)
            ledger.forget("finished")
            return reserved
        finally:
            ledger.close()
    finally:
        release(lock)


def _failed(ledger: Ledger, keys: Sequence[str]) -> list[str]:
    frame = ledger.to_frame(["key", "state"])
    failed = frame.loc[frame["state"] == "failed", "key"].tolist()
    chosen = [[key for key in failed if wanted and key.startswith(wanted)] for wanted in keys]
    for wanted, found in zip(keys, chosen, strict=True):
        if len(found) != 1:
            came = f"{len(found)} failed queries begin" if found else "no failed query begins"
            raise ConfigError([f"--key {wanted}: {came} with it; see `motherlode export`"])
    return [found[0] for found in chosen] if keys else failed

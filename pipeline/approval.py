"""A person decides before money is spent: the batch waits until it is approved, cut or rejected.

A decision is a file, `rounds/NNN/approval.json`, that appears whole or not at all. Whoever drives
the campaign takes it in before the round's queries go out, so that deciding needs no lock, works
while nothing runs, and survives any crash.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.config import Approval, ConfigError
from pipeline.ledger import Ledger, sync_file
from pipeline.queries import CampaignStoppedError
from pipeline.snapshot import open_ledger

DECISION, BATCH = "approval.json", "batch.csv"
SHOWN = ("mean", "sd", "log_gain", "novelty", "why")
"""What of a query's reason stands in a column of its own."""


class WaitingForApprovalError(CampaignStoppedError):
    """The round's batch waits for a person."""


def is_needed(approval: Approval, rows: Sequence[Mapping[str, Any]], target: str) -> bool:
    """Whether a round's reserved queries may only go out after a person's word."""
    if not rows:
        return False
    match approval.when:
        case "always":
            return True
        case "target_fidelity":
            return any(row["fidelity"] == target for row in rows)
        case "cost_above":
            assert approval.cost_above is not None  # noqa: S101 - the schema sees to it
            return sum(float(row["declared_cost"]) for row in rows) > approval.cost_above
        case _:
            return False


def decided(folder: Path) -> dict[str, Any] | None:
    """The decision about the round of this folder; None while there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / DECISION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def apply(ledger: Ledger, decision: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Cancel what the decision drops or rejects; again it does nothing."""
    waiting = [row["key"] for row in rows]
    if decision["decision"] == "reject":
        ledger.cancel(waiting, f"rejected: {decision['why']}")
    else:
        dropped = set(decision["drop"])
        ledger.cancel([key for key in waiting if key in dropped], "dropped from the batch")


def waiting_batch(directory: Path) -> tuple[int, pd.DataFrame] | None:
    """The round that waits for a person and its batch; None when none does.

    Columns: key, candidate, what the space says of it, fidelity, cost, and of the reason `SHOWN`.
    """
    ledger, config = open_ledger(directory)
    try:
        number = ledger.last_round()
        rows = [] if number is None else ledger.round_queries(number)
        ladder = json.loads(ledger.about()["ladder"])
    finally:
        ledger.close()
    reserved = [row for row in rows if row["state"] == "reserved"]
    if number is None or not is_needed(config.approval, reserved, str(ladder[-1][0])):
        return None
    if decided(_folder(directory, number)) is not None:
        return None
    return number, batch_table(reserved)


def batch_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The batch as people read it: what, at which fidelity, for how much, and why."""
    return pd.DataFrame(
        [
            {"key": row["key"], "candidate": row["candidate"]}
            | row["description"]
            | {"fidelity": row["fidelity"], "cost": row["declared_cost"]}
            | {name: row["reason"].get(name) for name in SHOWN}
            for row in rows
        ]
    )


def write_batch(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the batch beside the round, for people and their spreadsheets."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{BATCH}.tmp"
    batch_table(rows).to_csv(fresh, index=False)
    fresh.rename(folder / BATCH)
    return folder / BATCH


def approve(directory: Path, drop: Sequence[str] = ()) -> tuple[int, int]:
    """Let the waiting batch go out, without the keys of `drop`; the round, and how many go.

    A key may be cut short as long as it names one query. ConfigError when nothing waits, or a key
    names none or several.
    """
    number, batch = _waiting(directory)
    dropped = [_whole_key(key, batch["key"].tolist()) for key in drop]
    _decide(directory, number, {"decision": "approve", "drop": sorted(set(dropped))})
    return number, len(batch) - len(set(dropped))


def reject(directory: Path, why: str) -> tuple[int, int]:
    """Refuse the waiting batch; the round, and how many queries that are never proposed again."""
    if not why.strip():
        raise ConfigError(["--why: expected a reason, which the ledger keeps; got nothing"])
    number, batch = _waiting(directory)
    _decide(directory, number, {"decision": "reject", "why": why.strip()})
    return number, len(batch)


def _waiting(directory: Path) -> tuple[int, pd.DataFrame]:
    found = waiting_batch(directory)
    if found is None:
        raise ConfigError([f"{directory}: no batch waits for approval; see `motherlode status`"])
    return found


def _whole_key(key: str, known: Sequence[str]) -> str:
    matches = [whole for whole in known if key and whole.startswith(key)]
    if len(matches) != 1:
        came = f"{len(matches)} queries of the batch begin" if matches else "no query begins"
        raise ConfigError([f"--drop {key}: {came} with it; `motherlode pending` shows the keys"])
    return matches[0]


def _decide(directory: Path, number: int, decision: Mapping[str, Any]) -> None:
    """Write the decision; the first one counts, should two people decide at once."""
    folder = _folder(directory, number)
    told = dict(decision) | {"by": getpass.getuser(), "at": datetime.now(UTC).isoformat()}
    fresh = folder / f"{DECISION}.{os.getpid()}.tmp"
    fresh.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    sync_file(fresh)
    try:
        os.link(fresh, folder / DECISION)  # unlike a rename it never replaces what is there
    except FileExistsError:
        raise ConfigError([f"round {number} of {directory} is decided already"]) from None
    finally:
        fresh.unlink()
    sync_file(folder)


def _folder(directory: Path, number: int) -> Path:
    return directory / "rounds" / f"{number:03d}"

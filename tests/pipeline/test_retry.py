"""Failed queries tried once more: paid for what they cost, asked once, and only those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import Campaign
from pipeline.campaign import LockedError
from pipeline.config import ConfigError
from pipeline.ledger import LedgerError
from pipeline.retry import retry
from tests.fakes import menu_config


def failing(directory: Path) -> tuple[dict[str, Any], Path]:
    """A campaign whose target fails once on each item of the first twenty."""
    log = directory / "asked"
    broken = {"kind": "tests.pipeline.test_retry:Mended", "fidelity": "target", "cost": 1}
    config = menu_config(
        oracles=[broken | {"log": str(log)}],
        initial={"n": {"target": 4}},
        budget={"cost": 12, "rounds": 1},
        execution={"max_failed_share": 1.0},
        approval={"when": "never"},
    )
    return config, log


class Mended:
    """Fails while its log does not say `mended`."""

    def __init__(self, fidelity: str, cost: float, log: str) -> None:
        self.fidelity, self.cost, self.log = fidelity, cost, Path(log)

    def query(self, candidates: list[int]) -> list[Any]:
        told = self.log.read_text() if self.log.exists() else ""
        with self.log.open("a") as file:
            file.writelines(f"{candidate}\n" for candidate in candidates)
        if "mended" in told:
            return [float(candidate) for candidate in candidates]
        return [RuntimeError("the licence has run out") for _ in candidates]


def broken(directory: Path) -> Path:
    config, log = failing(directory)
    with Campaign.from_config(config, directory / "run") as campaign:
        campaign.step()
    with log.open("a") as file:
        file.write("mended\n")
    return directory / "run"


def test_failed_queries_are_asked_again_and_both_times_paid(tmp_path: Path) -> None:
    run = broken(tmp_path)
    assert len(retry(run)) == 4
    with Campaign.resume(run) as campaign:
        campaign.run()
        frame = campaign.ledger.to_frame()
    first = frame[frame["round"] == 0]
    assert (first["state"] == "done").all()
    assert first["actual_cost"].tolist() == [2.0] * 4


def test_one_of_them_by_its_key(tmp_path: Path) -> None:
    run = broken(tmp_path)
    with Campaign.resume(run) as campaign:
        key = campaign.ledger.to_frame()["key"][2]
    assert retry(run, [key[:12]]) == [key]


@pytest.mark.parametrize("key", ["zzzz", ""])
def test_a_key_that_names_no_failure_is_told(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="no failed query"):
        retry(broken(tmp_path), [key])


def test_not_while_the_campaign_runs_nor_where_none_is(tmp_path: Path) -> None:
    run = broken(tmp_path)
    with Campaign.resume(run), pytest.raises(LockedError):
        retry(run)
    with pytest.raises(LedgerError, match="no campaign here"):
        retry(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_not_beyond_the_budget(tmp_path: Path) -> None:
    run = broken(tmp_path)
    Campaign.resume(run, overrides=["budget.cost=6"]).close()
    with pytest.raises(LedgerError, match="trying again costs 4"):
        retry(run)

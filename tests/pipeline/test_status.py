"""Where a campaign stands, from its ledger alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import Campaign
from pipeline.ledger import LedgerError
from pipeline.snapshot import open_ledger
from pipeline.status import holder, read_status
from tests.fakes import KillAt, Killed, menu_config

ROOT = Path(__file__).parents[2]


def test_no_campaign_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no campaign here"):
        read_status(tmp_path)


def test_a_campaign_runs_stops_and_is_done(tmp_path: Path) -> None:
    with Campaign.from_config(menu_config(), tmp_path / "run") as campaign:
        assert read_status(tmp_path / "run")["state"] == "running"
        assert read_status(tmp_path / "run")["round"] is None
        campaign.progress = KillAt(8)
        with pytest.raises(Killed):
            campaign.run()
    stopped = read_status(tmp_path / "run")
    assert stopped["state"] == "stopped"
    assert stopped["promised"] > 0
    assert stopped["spend"] + stopped["promised"] == pytest.approx(2.6)
    with Campaign.from_config(menu_config(), tmp_path / "run") as campaign:
        campaign.run()
        best = campaign.best(1)
        spend = campaign.ledger.spend()
    done = read_status(tmp_path / "run")
    assert done["state"] == "done"
    assert done["spend"] == spend
    assert done["promised"] == 0
    assert done["best"] == best["value"].iloc[0]
    assert done["best_candidate"] == best["candidate"].iloc[0]
    assert done["rounds"] == 3
    assert done["queries"]["low"]["done"] >= 6
    assert done["different_candidates"] >= 2


def test_stopped_between_rounds_is_stopped(tmp_path: Path) -> None:
    with Campaign.from_config(menu_config(), tmp_path / "run") as campaign:
        campaign.step()
    assert read_status(tmp_path / "run")["state"] == "stopped"


def test_a_used_up_budget_is_done_before_the_last_round(tmp_path: Path) -> None:
    config = menu_config(budget={"cost": 2.6, "rounds": 9})
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.run()
    assert read_status(tmp_path / "run")["state"] == "done"


def test_the_holder_is_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    (tmp_path / "lock").write_text("")
    assert holder(tmp_path) is None
    (tmp_path / "lock").write_text("process 999999999 on here\n")
    assert holder(tmp_path) is None
    (tmp_path / "lock").write_text("process 1 on here\n")  # alive, but holds no such file
    assert holder(tmp_path) is None


def test_another_process_sees_who_holds_it(tmp_path: Path) -> None:
    with Campaign.from_config(menu_config(), tmp_path / "run"):
        script = (
            "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
            "from pipeline.status import holder; print(holder(Path(sys.argv[1])))"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "run"), str(ROOT)]
        seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert seen.strip() == str(os.getpid())


def test_the_ledger_holds_the_config(tmp_path: Path) -> None:
    with Campaign.from_config(menu_config(seed=5), tmp_path / "run"):
        pass
    ledger, config = open_ledger(tmp_path / "run")
    ledger.close()
    assert config.seed == 5

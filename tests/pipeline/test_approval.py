"""A person's word before money is spent: waiting, approving, cutting, rejecting, crashing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline import Campaign
from pipeline.approval import WaitingForApprovalError, approve, reject, waiting_batch
from pipeline.config import ConfigError, parse
from pipeline.status import read_status
from tests.fakes import comparable, menu_config


def play(directory: Path, **changes: Any) -> pd.DataFrame:
    with Campaign.from_config(menu_config(**changes), directory) as campaign:
        campaign.run()
        return campaign.ledger.to_frame()


def stopped(directory: Path, **changes: Any) -> str:
    with pytest.raises(WaitingForApprovalError) as told:
        play(directory, **changes)
    return str(told.value)


ALWAYS = {"approval": {"when": "always"}}


def test_nothing_is_spent_before_the_word_and_all_of_it_after(tmp_path: Path) -> None:
    undisturbed = play(tmp_path / "free")
    for number in range(4):
        message = stopped(tmp_path / "asked", **ALWAYS)
        assert f"round {number} waits" in message
        found = waiting_batch(tmp_path / "asked")
        assert found is not None
        assert found[0] == number
        assert set(found[1]["key"]) == set(undisturbed[undisturbed["round"] == number]["key"])
        assert (tmp_path / "asked" / "rounds" / f"{number:03d}" / "batch.csv").exists()
        assert read_status(tmp_path / "asked")["state"] == "waiting for approval"
        approve(tmp_path / "asked")
    frame = play(tmp_path / "asked", **ALWAYS)
    assert comparable(frame) == comparable(undisturbed)


def test_asking_again_changes_nothing_while_no_one_decides(tmp_path: Path) -> None:
    stopped(tmp_path, **ALWAYS)
    before = waiting_batch(tmp_path)
    stopped(tmp_path, **ALWAYS)
    after = waiting_batch(tmp_path)
    assert before is not None and after is not None  # noqa: PT018
    assert before[1].equals(after[1])


def test_what_is_dropped_costs_nothing_and_is_never_proposed_again(tmp_path: Path) -> None:
    stopped(tmp_path, **ALWAYS)
    found = waiting_batch(tmp_path)
    assert found is not None
    key, candidate = found[1]["key"][0], found[1]["candidate"][0]
    assert approve(tmp_path, [key[:10]]) == (0, len(found[1]) - 1)
    with Campaign.resume(tmp_path, overrides=["approval.when=never"]) as campaign:
        campaign.run()
        frame = campaign.ledger.to_frame()
    row = frame[frame["key"] == key].iloc[0]
    assert row["state"] == "cancelled"
    assert row["actual_cost"] == 0.0
    assert not (frame[frame["round"] > 0]["candidate"] == candidate).any()


def test_a_rejected_batch_is_never_proposed_again_and_the_campaign_goes_on(tmp_path: Path) -> None:
    stopped(tmp_path, **ALWAYS)
    approve(tmp_path)
    stopped(tmp_path, **ALWAYS)
    assert reject(tmp_path, "too many oxides")[0] == 1
    stopped(tmp_path, **ALWAYS)
    approve(tmp_path)
    with Campaign.resume(tmp_path, overrides=["approval.when=never"]) as campaign:
        campaign.run()
        frame = campaign.ledger.to_frame()
    refused = frame[frame["round"] == 1]
    assert (refused["state"] == "cancelled").all()
    assert refused["error"].unique().tolist() == ["rejected: too many oxides"]
    assert refused["actual_cost"].sum() == 0.0
    later = frame[frame["round"] > 1]
    assert len(later)
    assert not set(later["candidate"]) & set(refused["candidate"])


@pytest.mark.parametrize(
    ("setting", "waits"),
    [
        ({"when": "never"}, False),
        ({"when": "target_fidelity"}, True),
        ({"when": {"cost_above": 100}}, False),
        ({"cost_above": 0.1}, True),
    ],
)
def test_when_it_waits(tmp_path: Path, setting: dict[str, Any], waits: bool) -> None:
    if waits:
        stopped(tmp_path, approval=setting)
    else:
        play(tmp_path, approval=setting)


def test_a_batch_of_cheap_queries_does_not_wait_for_the_target_fidelity(tmp_path: Path) -> None:
    only_low = {"approval": {"when": "target_fidelity"}, "initial": {"n": {"low": 3}}}
    assert "round 1" in stopped(tmp_path, **only_low)


def test_the_first_decision_counts(tmp_path: Path) -> None:
    stopped(tmp_path, **ALWAYS)
    approve(tmp_path)
    with pytest.raises(ConfigError, match="no batch waits"):
        reject(tmp_path, "too late")


@pytest.mark.parametrize(
    ("key", "told"),
    [("zzzz", "no query"), ("", "no query")],
)
def test_a_key_that_names_nothing_is_told(tmp_path: Path, key: str, told: str) -> None:
    stopped(tmp_path, **ALWAYS)
    with pytest.raises(ConfigError, match=told):
        approve(tmp_path, [key])
    assert waiting_batch(tmp_path) is not None


def test_a_rejection_needs_a_reason(tmp_path: Path) -> None:
    stopped(tmp_path, **ALWAYS)
    with pytest.raises(ConfigError, match="expected a reason"):
        reject(tmp_path, "  ")


@pytest.mark.parametrize(
    "setting", [{"when": "sometimes"}, {"when": "cost_above"}, {"whn": "always"}]
)
def test_a_bad_setting_is_told(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="approval"):
        parse(menu_config(approval=setting))

"""The budget in counts and hours, and the forecast of how it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import Campaign
from pipeline.assemble import assemble
from pipeline.config import ConfigError, parse
from pipeline.dry_run import dry_run
from tests.fakes import menu_config


def counts(directory: Path, **budget: Any) -> dict[str, int]:
    with Campaign.from_config(menu_config(budget=budget), directory) as campaign:
        campaign.run()
        return campaign.ledger.to_frame()["fidelity"].value_counts().to_dict()


def test_no_fidelity_is_asked_more_often_than_it_may(tmp_path: Path) -> None:
    free = counts(tmp_path / "free", cost=9, rounds=3)
    bound = counts(tmp_path / "bound", cost=9, rounds=3, queries={"target": 4})
    assert free["target"] > 4
    assert bound["target"] <= 4


def test_no_round_begins_after_its_hours(tmp_path: Path) -> None:
    with Campaign.from_config(
        menu_config(budget={"cost": 9, "rounds": 3, "hours": 1e-9}), tmp_path
    ) as campaign:
        assert campaign.step()
        assert campaign.next_round() is None
    with Campaign.resume(tmp_path, overrides=["budget.hours=1000"]) as campaign:
        assert campaign.next_round() == 1


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        ({"queries": {"targt": 3}}, "budget.queries.targt: no oracle has this fidelity"),
        ({"queries": {"low": 2}}, "initial.n.low: 6, more than the 2"),
        ({"hours": 0}, "budget.hours"),
    ],
)
def test_a_budget_that_cannot_be_is_told(tmp_path: Path, budget: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Campaign.from_config(menu_config(budget={"cost": 9, "rounds": 3} | budget), tmp_path)


def test_a_forecast_asks_the_cheapest_oracle_alone_and_writes_nothing(tmp_path: Path) -> None:
    log = tmp_path / "asked"
    ladder = [
        {"kind": "tests.fakes:Price", "fidelity": "low", "cost": 0.1, "log": str(log)},
        {"kind": "tests.fakes:Price", "fidelity": "target", "cost": 1, "log": str(log)},
    ]
    parts = assemble(parse(menu_config(oracles=ladder, approval={"when": "always"})), tmp_path)
    table = dry_run(parts, tmp_path)
    assert table.columns.tolist() == ["round", "low", "target", "cost", "spend"]
    assert table["target"].sum() > 2
    assert table["spend"].iloc[-1] == pytest.approx(
        0.1 * table["low"].sum() + table["target"].sum()
    )
    assert table["spend"].iloc[-1] <= 9
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"low"}
    assert [path.name for path in tmp_path.iterdir()] == ["asked"]

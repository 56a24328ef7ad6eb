"""Values that the user brings: they cost nothing, and a bad table is named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import Campaign
from pipeline.config import ConfigError
from tests.fakes import menu_config


def known(folder: Path, text: str) -> dict[str, Any]:
    (folder / "known.csv").write_text(text)
    return menu_config(initial={"file": "known.csv"}, budget={"cost": 3, "rounds": 1})


def from_file(folder: Path, config: dict[str, Any]) -> Campaign:
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return Campaign.from_config(folder / "c.yaml", folder / "run")


def test_known_values_start_a_campaign_and_cost_nothing(tmp_path: Path) -> None:
    table = "candidate,fidelity,value,note\nitem 3,target,0.5,mine\nitem 3,low,0.75,\nitem 8,low,-1"
    with from_file(tmp_path, known(tmp_path, table)) as campaign:
        campaign.run()
        frame = campaign.ledger.to_frame()
    own = frame[frame["round"] == 0]
    assert list(own["candidate"]) == ["item 3", "item 3", "item 8"]
    assert list(own["value"]) == [0.5, 0.75, -1.0]
    assert (own["actual_cost"] == 0).all()
    assert own["reason"].iloc[0] == {"why": "known, from known.csv"}
    later = frame[frame["round"] == 1]
    assert len(later) > 0
    assert ("item 3", "target") not in set(zip(later["candidate"], later["fidelity"], strict=True))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("candidate,fidelity\nitem 1,low", ["missing: value"]),
        ("candidate,fidelity,value\n", ["it has no rows"]),
        ("", ["cannot be read"]),
        ("candidate,fidelity,value\nitem 99,low,1", ["line 2", "'item 99'"]),
        ("candidate,fidelity,value\n,low,1", ["line 2", "''"]),
        ("candidate,fidelity,value\nNA,low,1", ["line 2", "'NA'"]),
        ("candidate,fidelity,value\nitem 1,low,2\nitem 1,tagret,1", ["line 3", "`tagret`", "low"]),
        ("candidate,fidelity,value\nitem 1,low,much", ["line 2", "finite value", "much"]),
        ("candidate,fidelity,value\nitem 1,low,", ["line 2", "finite value"]),
        ("candidate,fidelity,value\nitem 1,low,inf", ["line 2", "finite value"]),
        ("candidate,fidelity,value\nitem 1,low,1\nitem 1,low,1,2,3,4", ["cannot be read"]),
        ("candidate,fidelity,value\nitem 1,low,1\nitem 1,low,2", ["line 3", "again"]),
    ],
)
def test_a_bad_table_is_named_before_anything_is_written(
    tmp_path: Path, table: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, known(tmp_path, table))
    (line,) = caught.value.problems
    assert line.startswith("initial.file: ")
    for word in ["known.csv", *words]:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_every_bad_row_is_named_at_once(tmp_path: Path) -> None:
    table = "candidate,fidelity,value\nitem 99,high,much\nitem 1,low,1\nitem 98,low,2"
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, known(tmp_path, table))
    assert len(caught.value.problems) == 4


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"initial\.file: .*none\.csv cannot be read"):
        from_file(tmp_path, menu_config(initial={"file": "none.csv"}))

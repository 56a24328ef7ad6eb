"""The ledger as a table: every format gives back what the ledger holds."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.config import ConfigError
from pipeline.export import write_table
from pipeline.ledger import Ledger, LedgerError
from tests.fakes import a_query

VALUE = 0.1 + 0.2
"""0.30000000000000004: what a careless writer rounds."""


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    ledger = Ledger.open(tmp_path / "ledger.sqlite", {})
    ledger.reserve([a_query("a"), a_query("b"), a_query("c")], "test", 10)
    ledger.commit("a", {"value": VALUE, "tiny": 1.25e-17}, VALUE, 1.0, 1e-7)
    ledger.fail("b", 'a "quoted", broken\nreason – größer', 1.0)
    ledger.close()
    return tmp_path


def read_back(out: Path) -> pd.DataFrame:
    if out.suffix == ".csv":
        read = pd.read_csv(out, float_precision="round_trip")
    elif out.suffix == ".parquet":
        read = pd.read_parquet(out)
    else:
        return pd.DataFrame(json.loads(out.read_text(encoding="utf-8")))
    for name in ("reason", "properties", "description"):
        read[name] = [json.loads(cell) for cell in read[name]]
    return read


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".json"])
def test_a_table_holds_what_the_ledger_holds(campaign: Path, ending: str) -> None:
    out = campaign / f"table{ending}"
    assert write_table(campaign, out) == 3
    read = read_back(out)
    ledger = Ledger.read(campaign / "ledger.sqlite")
    kept = ledger.to_frame()
    ledger.close()
    assert list(read.columns) == list(kept.columns)
    for name in kept.columns:
        before, after = kept[name].astype(object), read[name].astype(object)
        assert (
            after.where(after.notna(), None).tolist() == before.where(before.notna(), None).tolist()
        ), name


def test_an_empty_ledger_is_an_empty_table(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "ledger.sqlite", {}).close()
    for ending in (".csv", ".parquet", ".json"):
        assert write_table(tmp_path, tmp_path / f"t{ending}") == 0


@pytest.mark.parametrize("name", ["table.xlsx", "table", "csv"])
def test_another_ending_is_one_line(campaign: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected an ending of \.csv, \.parquet, \.json"):
        write_table(campaign, campaign / name)
    assert not (campaign / name).exists()


def test_no_campaign_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no campaign here"):
        write_table(tmp_path, tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()

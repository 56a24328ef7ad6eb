"""The ledger as a table for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from pipeline.config import ConfigError
from pipeline.ledger import Ledger

FORMATS = (".csv", ".parquet", ".json")


def write_table(directory: Path, out: Path) -> int:
    """Write every query to `out`, by its ending; the number of rows. ConfigError names the endings.

    In CSV and Parquet the columns `reason`, `properties` and `description` hold JSON.
    """
    check_format(out)
    ledger = Ledger.read(directory / "ledger.sqlite")
    frame = ledger.to_frame()
    ledger.close()
    if out.suffix != ".json":
        for name in ("reason", "properties", "description"):
            frame[name] = [json.dumps(cell, ensure_ascii=False) for cell in frame[name]]
    write_frame(frame, out)
    return len(frame)


def check_format(out: Path) -> None:
    """ConfigError where the ending of `out` is not one of `FORMATS`."""
    if out.suffix not in FORMATS:
        raise ConfigError([f"--out {out}: expected an ending of {', '.join(FORMATS)}"])


def write_frame(frame: pd.DataFrame, out: Path) -> None:
    """Write a table of plain cells (JSON: also lists and mappings) by the ending of `out`."""
    check_format(out)
    if out.suffix == ".csv":
        frame.to_csv(out, index=False)
    elif out.suffix == ".parquet":
        frame.to_parquet(out, index=False)
    else:
        # Not pandas' own writer, which rounds: what was measured is exported to the last digit.
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        out.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")

"""The ledger as a table for other programs."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.config import ConfigError
from pipeline.ledger import Ledger

FORMATS = (".csv", ".parquet", ".json")


def write_table(directory: Path, out: Path) -> int:
    """Write every query to `out`, by its ending; the number of rows. ConfigError names the endings.

    In CSV and Parquet the columns `reason`, `properties` and `description` hold JSON.
    """
    if out.suffix not in FORMATS:
        raise ConfigError([f"--out {out}: expected an ending of {', '.join(FORMATS)}"])
    ledger = Ledger.read(directory / "ledger.sqlite")
    frame = ledger.to_frame()
    ledger.close()
    if out.suffix == ".json":
        # Not pandas' own writer, which rounds: what was measured is exported to the last digit.
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        out.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
        return len(frame)
    for name in ("reason", "properties", "description"):
        frame[name] = [json.dumps(cell, ensure_ascii=False) for cell in frame[name]]
    if out.suffix == ".csv":
        frame.to_csv(out, index=False)
    else:
        frame.to_parquet(out, index=False)
    return len(frame)

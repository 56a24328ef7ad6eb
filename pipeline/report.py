"""The report: one self-contained HTML page about a campaign, computed from its directory alone."""

from __future__ import annotations

import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from pipeline import metrics
from pipeline.figures import INK, all_figures
from pipeline.snapshot import Snapshot, read_snapshot
from pipeline.status import read_status
from pipeline.tables import (
    batch_table,
    best_table,
    calibration_table,
    failure_table,
)

__all__ = ["best_table", "write_report"]

REPORT = "report.html"
CAPTIONS = {
    "progress": "Best value and mean of the ten best different candidates at the target fidelity "
    "(columns value, family), against the running sum of actual_cost in the order of reservation. "
    "Dotted lines end the rounds.",
    "predicted_measured": "reason.mean ± reason.sd, recorded before each query, against value.",
    "outcomes": "Column value at the target fidelity, by round; the bar is the round's median.",
    "spend": "Sum of actual_cost by round and fidelity.",
    "sampler_loss": "sampler_loss in each rounds/NNN/decision.json, each step and a running mean.",
}


def write_report(directory: Path) -> Path:
    """Write `report.html` of a campaign, whole or not at all; also while the campaign runs.

    LedgerError when the directory holds no campaign.
    """
    page = _template().render(_content(directory))
    fresh = directory / f"{REPORT}.tmp"
    fresh.write_text(page, encoding="utf-8")
    fresh.rename(directory / REPORT)
    return directory / REPORT


def _content(directory: Path) -> dict[str, Any]:
    """Everything that the template shows, by the names it uses."""
    snapshot, status = read_snapshot(directory), read_status(directory)
    frame, config = snapshot.frame, snapshot.config
    last = None if frame.empty else int(frame["round"].max())
    return {
        "name": config.name,
        "label": snapshot.label,
        "goal": str(snapshot.goal),
        "target": snapshot.target,
        "status": status,
        "spent_share": min(1.0, status["spend"] / status["budget"]),
        "states": frame["state"].value_counts().to_dict(),
        "n_queries": len(frame),
        "began": _moment(frame["created_at"].min() if len(frame) else None),
        "latest": _moment(frame["finished_at"].dropna().max()),
        "finished": snapshot.about.get("finished"),
        "best": _rows(best_table(snapshot), "key"),
        "figures": {name: inline_svg(name, f) for name, f in all_figures(snapshot).items()},
        "captions": CAPTIONS,
        "rounds": _rows(_rounds(snapshot)),
        "calibration": _rows(calibration_table(snapshot)),
        "failures": _rows(failure_table(frame)),
        "last": last,
        "batch": _rows(_batch(snapshot, last), "key"),
        "notes": _last_notes(snapshot),
        "config": snapshot.about["config"],
        "versions": snapshot.versions,
        "folder": snapshot.about.get("folder"),
    }


def _batch(snapshot: Snapshot, last: int | None) -> pd.DataFrame:
    table = batch_table(snapshot.frame, -1 if last is None else last, snapshot.label)
    return table if table["error"].any() else table.drop(columns="error")


def _rounds(snapshot: Snapshot) -> pd.DataFrame:
    history = metrics.history(snapshot.frame, snapshot.target, snapshot.goal)
    if history.empty:
        return history
    notes = [snapshot.notes.get(int(number), {}) for number in history["round"]]
    losses = [told.get("sampler_loss") or [None] for told in notes]
    history["distinct_proposals"] = [told.get("proposals", {}).get("distinct") for told in notes]
    history["sampler_loss"] = [loss[-1] for loss in losses]
    return history


def _last_notes(snapshot: Snapshot) -> dict[str, str]:
    """What the last decided round noted about its models, as text; the losses have a figure."""
    if not snapshot.notes:
        return {}
    notes = dict(snapshot.notes[max(snapshot.notes)])
    notes.pop("sampler_loss", None)
    return {name: json.dumps(value, ensure_ascii=False) for name, value in notes.items()}


def _rows(table: pd.DataFrame, index: str | None = None) -> dict[str, Any]:
    """A table for the template: its columns (with which are numbers) and its rows as text."""
    shown = table if index is None else table.assign(**{index: table.index})
    columns = [(str(name).replace("_", " "), _is_number(shown[name])) for name in shown.columns]
    cells = [[cell(value) for value in row] for row in shown.itertuples(index=False, name=None)]
    return {"columns": columns, "rows": cells}


def _is_number(column: pd.Series[Any]) -> bool:
    return column.dtype.kind in "fiu"


def cell(value: object) -> str:
    """A value for people: four significant digits, a dash where there is none."""
    if value is None or value != value:  # nan is the one value that differs from itself
        return "–"
    return f"{value:.4g}".replace("-", "−") if isinstance(value, float) else str(value)


def inline_svg(name: str, figure: Figure) -> Markup:
    """A figure as an `<svg>` that takes its ink from the page and names nothing outside it."""
    text = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Text stays text (searchable, in the reader's font), and the same figure has the same ids.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata=no_metadata)
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace(INK, "currentColor")
    drawn = re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawn)
    drawn = re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg role="img"', drawn, count=1)
    # Ids are unique in a figure only; the page holds several.
    for before in (' id="', "url(#", 'href="#'):
        drawn = drawn.replace(before, f"{before}{name}-")
    return Markup(drawn)  # noqa: S704 - drawn by matplotlib, which escapes the text in it


def _moment(stamp: object) -> str:
    """A ledger's time as `2026-01-31 12:34 UTC`."""
    return f"{stamp[:16].replace('T', ' ')} UTC" if isinstance(stamp, str) else "–"


@cache
def _template() -> Template:
    engine = Environment(
        loader=PackageLoader("pipeline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["cell"] = cell
    return engine.get_template("report.html.j2")

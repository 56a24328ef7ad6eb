"""Tables for people, as pure functions of the ledger's frame: the best, batches, failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline import metrics
from pipeline.snapshot import Snapshot

CALIBRATION = ("coverage_68", "coverage_95", "nll", "spearman", "rmse")


def best_table(snapshot: Snapshot, k: int = 10) -> pd.DataFrame:
    """The k best different candidates at the target fidelity, best first, with columns for people.

    The description's columns, the value with its unit, `distance` where the goal is a target
    value, `predicted` and `sd` as they stood before the query (nan where nothing was predicted),
    `fidelity`, `cost`, `round`. The index holds the ledger's keys.
    """
    rows = metrics.top_k(snapshot.frame, snapshot.target, snapshot.goal, k)
    return candidate_table(rows, snapshot.label)


def short_table(snapshot: Snapshot, k: int = 10) -> pd.DataFrame:
    """`best_table` for a terminal: at most two columns of description, the prediction in one."""
    table = best_table(snapshot, k)
    value = snapshot.label
    described = list(table.columns[: table.columns.get_loc(value)])[:2]
    predicted = [
        f"{mean:.3g} ± {sd:.2g}" if mean == mean else "–"  # NaN differs from itself
        for mean, sd in zip(table["predicted"], table["sd"], strict=True)
    ]
    told = [value, "distance"] if "distance" in table else [value]
    short = table[[*described, *told]].assign(predicted=predicted)
    return short.join(table[["fidelity", "cost", "round"]])


def candidate_table(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """Rows of the ledger as description, value, `predicted`, `sd`, `fidelity`, `cost`, `round`.

    After the value the column `distance`, where the rows have one.
    """
    far = ["distance"] if "distance" in rows else []
    columns = [label, *far, "predicted", "sd", "fidelity", "cost", "round"]
    told = [
        dict(row["description"])
        | {
            label: row["value"],
            **{name: row[name] for name in far},
            "predicted": row["reason"].get("mean"),
            "sd": row["reason"].get("sd"),
            "fidelity": row["fidelity"],
            "cost": row["actual_cost"],
            "round": int(row["round"]),
        }
        for row in rows.to_dict("records")
    ]
    described = [name for name in _union(told) if name not in columns]
    table = pd.DataFrame(told, index=rows["key"].tolist(), columns=[*described, *columns])
    numbers = [label, *far, "predicted", "sd", "cost"]
    return table.astype(dict.fromkeys(numbers, "float64"))


def _union(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def batch_table(frame: pd.DataFrame, number: int, label: str) -> pd.DataFrame:
    """Every query of one round in the order of choice: `candidate_table`, its state and reason."""
    rows = frame[frame["round"] == number]
    table = candidate_table(rows, label).drop(columns="round")
    # What is not answered yet is shown with the cost that was promised.
    table["cost"] = rows["actual_cost"].fillna(rows["declared_cost"]).tolist()
    table["state"] = rows["state"].tolist()
    table["reason"] = [reason_text(reason) for reason in rows["reason"]]
    table["error"] = [error if isinstance(error, str) else "" for error in rows["error"]]
    return table


def reason_text(reason: Mapping[str, Any]) -> str:
    """Why a query was selected, in one line; what other columns show is left out."""
    shown_elsewhere = {"why", "mean", "sd", "cost"}
    if reason.get("target_mean") == reason.get("mean"):  # the query is at the target fidelity
        shown_elsewhere |= {"target_mean", "target_sd"}
    rest = {name: value for name, value in reason.items() if name not in shown_elsewhere}
    figures = ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in rest.items()
    )
    why = str(reason.get("why", ""))
    return f"{why} ({figures})" if figures else why


def failure_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Failed queries by reason, the commonest first: `reason`, `fidelity`, `failures`, `cost`."""
    failed = frame[frame["state"] == "failed"]
    grouped = failed.groupby(["error", "fidelity"], sort=False)["actual_cost"]
    table = grouped.agg(["size", "sum"]).reset_index()
    table.columns = pd.Index(["reason", "fidelity", "failures", "cost"])
    return table.sort_values("failures", ascending=False, kind="stable").reset_index(drop=True)


def calibration_table(snapshot: Snapshot) -> pd.DataFrame:
    """How well predictions made before each query agreed, one row a round and fidelity."""
    rows = []
    for number in sorted(snapshot.frame["round"].unique()):
        own = snapshot.frame[snapshot.frame["round"] == number]
        for fidelity, figures in metrics.round_calibration(own).items():
            told = {name: figures[name] for name in CALIBRATION}
            n = int(figures["n"] or 0)
            rows.append({"round": int(number), "fidelity": fidelity, "n": n} | told)
    return pd.DataFrame(rows, columns=["round", "fidelity", "n", *CALIBRATION])

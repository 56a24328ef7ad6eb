"""Figures of a campaign as pure functions of its ledger's frame.

Only what was paid for at the target fidelity counts as found; variants of one family count once.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from surrogate.calibration import calibration


def found(frame: pd.DataFrame, target: str, goal: str) -> pd.DataFrame:
    """Finished target-fidelity queries, best first, one (the best) for each family."""
    done = frame[(frame["state"] == "done") & (frame["fidelity"] == target)]
    ordered = done.sort_values("value", ascending=goal == "minimize", kind="stable")
    return ordered.drop_duplicates("family")


def top_k(frame: pd.DataFrame, target: str, goal: str, k: int) -> pd.DataFrame:
    """The k best different candidates at the target fidelity, best first."""
    return found(frame, target, goal).head(k)


def best_value(frame: pd.DataFrame, target: str, goal: str) -> float | None:
    """The best value at the target fidelity; None before there is one."""
    values = found(frame, target, goal)["value"]
    return None if values.empty else float(values.iloc[0])


def spend(frame: pd.DataFrame) -> float:
    """What was paid for."""
    return float(frame["actual_cost"].sum())


def distinct_share(frame: pd.DataFrame) -> float | None:
    """Different families as a share of the queries; None without any."""
    return None if frame.empty else float(frame["family"].nunique() / len(frame))


def round_calibration(frame: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """How far the predictions made before each query agree with what came, by fidelity."""
    predicted = frame[frame["state"] == "done"]
    # `astype`: without rows the mask has no type, and pandas would choose columns by it.
    predicted = predicted[predicted["reason"].map(lambda reason: "mean" in reason).astype(bool)]
    figures: dict[str, dict[str, float | None]] = {}
    for fidelity, rows in predicted.groupby("fidelity", sort=False):
        mean = [reason["mean"] for reason in rows["reason"]]
        sd = [reason["sd"] for reason in rows["reason"]]
        figures[str(fidelity)] = calibration(mean, sd, rows["value"].tolist())
    return figures


def round_figures(frame: pd.DataFrame, number: int, target: str, goal: str) -> dict[str, Any]:
    """The figures of one round: of its own queries, and of the campaign up to its end."""
    so_far, own = frame[frame["round"] <= number], frame[frame["round"] == number]
    best = top_k(so_far, target, goal, 10)
    return {
        "best": best_value(so_far, target, goal),
        "top_10_mean": None if best.empty else float(best["value"].mean()),
        "spend": spend(so_far),
        "round_cost": spend(own),
        "queries": len(own),
        "failed": int((own["state"] == "failed").sum()),
        "batch_diversity": distinct_share(own),
        "found_families": len(found(so_far, target, goal)),
        "calibration": round_calibration(own),
    }


def history(frame: pd.DataFrame, target: str, goal: str) -> pd.DataFrame:
    """One row for each round: `round_figures` without calibration."""
    rows = []
    for number in sorted(frame["round"].unique()):
        figures = round_figures(frame, int(number), target, goal)
        del figures["calibration"]
        rows.append({"round": int(number)} | figures)
    return pd.DataFrame(rows)

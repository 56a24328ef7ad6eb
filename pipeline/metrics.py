"""Figures of a campaign as pure functions of its ledger's frame.

Only what was paid for at the target fidelity counts as found; variants of one family count once.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from pipeline.goal import Goal, Target, score, sign
from pipeline.ledger_reader import LedgerReader
from surrogate.calibration import calibration

OWN = ("state", "fidelity", "family", "value", "actual_cost", "reason")
"""What the figures of a round need of its own queries."""

LEAST_TIES = 8
"""Values come in steps where each is taken so many times on average."""


def found(frame: pd.DataFrame, target: str, goal: Goal) -> pd.DataFrame:
    """Finished target-fidelity queries, best first, one (the best) for each family.

    Where the goal is a target value, the column `distance` holds |value - target|.
    """
    done = frame[(frame["state"] == "done") & (frame["fidelity"] == target)]
    if isinstance(goal, Target):
        done = done.assign(distance=score(done["value"], goal))
    by = "distance" if isinstance(goal, Target) else "value"
    ordered = done.sort_values(by, ascending=sign(goal) < 0, kind="stable")
    return ordered.drop_duplicates("family")


def top_k(frame: pd.DataFrame, target: str, goal: Goal, k: int) -> pd.DataFrame:
    """The k best different candidates at the target fidelity, best first."""
    return found(frame, target, goal).head(k)


def best_value(frame: pd.DataFrame, target: str, goal: Goal) -> float | None:
    """The best value at the target fidelity; None before there is one."""
    values = found(frame, target, goal)["value"]
    return None if values.empty else float(values.iloc[0])


def best_score(frame: pd.DataFrame, target: str, goal: Goal) -> float | None:
    """The best value, or where the goal is a target value its distance; None before any."""
    best = found(frame, target, goal)["value"].head(1)
    return None if best.empty else float(score(best, goal).iloc[0])


def kth_best_score(frame: pd.DataFrame, target: str, goal: Goal, k: int) -> float | None:
    """What a new candidate must beat to enter the best k: the k-th best value, or its distance.

    None while fewer than k different candidates were paid for at the target.
    """
    values = top_k(frame, target, goal, k)["value"]
    return None if len(values) < k else float(score(values, goal).iloc[-1])


def level_below(frame: pd.DataFrame, target: str, goal: Goal, k: int) -> float | None:
    """The next worse score than the k-th best, where values come in steps; None where they do not.

    They do where there are few different ones: many candidates are equally good.
    """
    scores = score(found(frame, target, goal)["value"], goal)
    levels = scores.drop_duplicates()
    if len(scores) < k or len(levels) * LEAST_TIES > len(scores):
        return None
    worse = levels[sign(goal) * levels < sign(goal) * scores.iloc[k - 1]]
    return None if worse.empty else float(worse.iloc[0])


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


def round_figures(frame: pd.DataFrame, number: int, target: str, goal: Goal) -> dict[str, Any]:
    """The figures of one round: of its own queries, and of the campaign up to its end.

    Where the goal is a target value, `best_distance` and `top_10_distance` (a mean) stand too.
    """
    so_far, own = frame[frame["round"] <= number], frame[frame["round"] == number]
    best = top_k(so_far, target, goal, 10)
    return _figures(own, best, spend(so_far), len(found(so_far, target, goal)), goal)


def ledger_figures(ledger: LedgerReader, number: int, target: str, goal: Goal) -> dict[str, Any]:
    """`round_figures` of a ledger's frame, which is not read whole: only that round's rows are."""
    last = ledger.last_round()
    through = None if last is None or number >= last else number
    return _figures(
        ledger.to_frame(OWN, number),
        ledger.top(target, goal, 10, through),
        ledger.paid(through),
        ledger.n_families(target, through),
        goal,
    )


def _figures(
    own: pd.DataFrame, best: pd.DataFrame, paid: float, n_found: int, goal: Goal
) -> dict[str, Any]:
    return {
        "best": None if best.empty else float(best["value"].iloc[0]),
        "top_10_mean": None if best.empty else float(best["value"].mean()),
        **(distances(best) if isinstance(goal, Target) else {}),
        "spend": paid,
        "round_cost": spend(own),
        "queries": len(own),
        "failed": int((own["state"] == "failed").sum()),
        "batch_diversity": distinct_share(own),
        "found_families": n_found,
        "calibration": round_calibration(own),
    }


def distances(best: pd.DataFrame) -> dict[str, float | None]:
    """The least and the mean distance of rows from `top_k`; None where there are none."""
    column = best["distance"]
    return {
        "best_distance": None if best.empty else float(column.min()),
        "top_10_distance": None if best.empty else float(column.mean()),
    }


def history(frame: pd.DataFrame, target: str, goal: Goal) -> pd.DataFrame:
    """One row for each round: `round_figures` without calibration."""
    rows = []
    for number in sorted(frame["round"].unique()):
        figures = round_figures(frame, int(number), target, goal)
        del figures["calibration"]
        rows.append({"round": int(number)} | figures)
    return pd.DataFrame(rows)

"""Figures of a campaign: pure functions from the ledger's frame to a matplotlib `Figure`.

Only matplotlib's object interface, never pyplot, whose state is shared by the whole process.
Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.goal import Goal, Target, score
from pipeline.goal import sign as better
from pipeline.snapshot import Snapshot

INK = "#242424"
"""The colour of everything that is not data: the report replaces it by the page's own."""
TARGET_COLOUR, SECOND_COLOUR = "#0072B2", "#D55E00"
LOWER_COLOURS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9")
LOWER_MARKERS = ("s", "^", "D", "v")


def all_figures(snapshot: Snapshot) -> dict[str, Figure]:
    """Every figure of a campaign by name."""
    frame, names, label = snapshot.frame, snapshot.fidelities, snapshot.label
    return {
        "progress": progress(frame, names, snapshot.goal, label),
        "predicted_measured": predicted_measured(frame, names, label),
        "outcomes": outcomes(frame, names, label),
        "spend": spend(frame, names),
        "sampler_loss": sampler_loss(snapshot.losses()),
    }


def progress_curve(frame: pd.DataFrame, target: str, goal: Goal, k: int = 10) -> pd.DataFrame:
    """After each target outcome, in the ledger's order: `cost` paid so far, `value`, `best`,
    `top_mean` (of the k best, one a family). For a target value all three are distances to it.
    """
    sign = -better(goal)
    best_of: dict[str, float] = {}
    points = []
    paid = frame["actual_cost"].fillna(0.0).cumsum()
    is_found = (frame["state"] == "done") & (frame["fidelity"] == target)
    found = frame.loc[is_found, ["family", "value"]]
    values = score(found["value"], goal)
    for cost, family, value in zip(paid[is_found], found["family"], values, strict=True):
        best_of[family] = min(sign * value, best_of.get(family, math.inf))
        top = heapq.nsmallest(k, best_of.values())
        points.append((cost, value, sign * top[0], sign * sum(top) / len(top)))
    return pd.DataFrame(points, columns=["cost", "value", "best", "top_mean"], dtype="float64")


def progress(frame: pd.DataFrame, fidelities: Sequence[str], goal: Goal, label: str) -> Figure:
    """Best and mean of the ten best at the target fidelity against what was paid."""
    if isinstance(goal, Target):
        label = f"distance to {goal.target:g} of {label}"
    figure, axes = _canvas(8.4, 4.0, "Best found for what was paid", "paid (cost units)", label)
    curve = progress_curve(frame, fidelities[-1], goal)
    if curve.empty:
        return _empty(figure, axes, "no outcome at the target fidelity yet")
    axes.plot(
        curve["cost"], curve["value"], "o", ms=4, alpha=0.35, color=INK, mew=0, label="each outcome"
    )
    top, best = curve["top_mean"], curve["best"]
    for line, name, colour, width in (
        (top, "mean of the ten best", SECOND_COLOUR, 1.6),
        (best, "best", TARGET_COLOUR, 2.4),
    ):
        axes.step(curve["cost"], line, where="post", color=colour, lw=width, label=name)
    axes.set_ylim(*_limits(np.concatenate([top, best])))
    axes.set_xlim(left=0)
    _mark_rounds(axes, frame)
    return _legend(figure, axes)


def _mark_rounds(axes: Axes, frame: pd.DataFrame) -> None:
    """A line at what was paid at each round's end, the round's number above it."""
    ends = frame.groupby("round")["actual_cost"].sum().cumsum()
    every = math.ceil(len(ends) / 20)
    for number, cost in ends.items():
        axes.axvline(cost, color=INK, lw=0.6, ls=(0, (2, 3)), alpha=0.6, zorder=0)
        if int(str(number)) % every == 0:
            where = axes.get_xaxis_transform()
            axes.text(cost, 1.01, f"{number}", transform=where, color=INK, ha="center", fontsize=8)
    axes.text(-0.01, 1.01, "round", transform=axes.transAxes, color=INK, ha="right", fontsize=8)


def spend(frame: pd.DataFrame, fidelities: Sequence[str]) -> Figure:
    """What each round paid, stacked by fidelity."""
    figure, axes = _canvas(5.6, 3.6, "Spend of each round", "round", "paid (cost units)")
    paid = frame.pivot_table(
        index="round", columns="fidelity", values="actual_cost", aggfunc="sum", fill_value=0.0
    )
    if paid.empty:
        return _empty(figure, axes, "nothing was paid yet")
    floor = np.zeros(len(paid))
    for name, (colour, _) in _styles(fidelities).items():
        height = paid[name].to_numpy() if name in paid else np.zeros(len(paid))
        axes.bar(paid.index, height, bottom=floor, color=colour, width=0.7, label=name)
        floor = floor + height
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _legend(figure, axes)


def predicted_measured(frame: pd.DataFrame, fidelities: Sequence[str], label: str) -> Figure:
    """What was predicted before each query against what came: bars are one sd, the line y = x."""
    title = "Predicted before the query, and measured"
    figure, axes = _canvas(5.6, 4.6, title, f"predicted {label}", f"measured {label}")
    table = predictions(frame)
    if table.empty:
        return _empty(figure, axes, "no outcome of a predicted query yet")
    for name, (colour, marker) in _styles(fidelities).items():
        rows = table[table["fidelity"] == name]
        if rows.empty:
            continue
        axes.errorbar(
            rows["mean"],
            rows["value"],
            xerr=rows["sd"],
            fmt=marker,
            color=colour,
            ms=4.5,
            elinewidth=0.8,
            alpha=0.75,
            label=name,
        )
    both = table[["mean", "value"]].to_numpy().ravel()
    low, high = _limits(both)
    axes.axline((low, low), (high, high), color=INK, lw=0.9, alpha=0.7, zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high))
    pairs = table[["mean", "value"]]
    outside = ((pairs < low) | (pairs > high)).any(axis=1)
    _say_outside(axes, int(outside.sum()))
    return _legend(figure, axes)


def predictions(frame: pd.DataFrame) -> pd.DataFrame:
    """Finished queries with a prediction: `fidelity`, `round`, `mean`, `sd`, `value`."""
    done = frame[frame["state"] == "done"]
    rows = [
        (row["fidelity"], row["round"], row["reason"]["mean"], row["reason"]["sd"], row["value"])
        for row in done[["fidelity", "round", "reason", "value"]].to_dict("records")
        if "mean" in row["reason"]
    ]
    return pd.DataFrame(rows, columns=["fidelity", "round", "mean", "sd", "value"])


def outcomes(frame: pd.DataFrame, fidelities: Sequence[str], label: str) -> Figure:
    """Every target outcome by round; the bar is the round's median."""
    figure, axes = _canvas(5.6, 3.6, "Target outcomes of each round", "round", label)
    done = frame[(frame["state"] == "done") & (frame["fidelity"] == fidelities[-1])]
    if done.empty:
        return _empty(figure, axes, "no outcome at the target fidelity yet")
    low, high = _limits(done["value"].to_numpy())
    for number, rows in done.groupby("round"):
        values = rows["value"].to_numpy()
        # Spread evenly, in the order of choice: nothing random stands in a figure.
        across = float(str(number)) + 0.5 * (np.arange(len(values)) + 0.5) / len(values) - 0.25
        axes.plot(across, values, "o", ms=4.5, mew=0, alpha=0.7, color=TARGET_COLOUR)
        axes.hlines(np.median(values), across[0] - 0.12, across[-1] + 0.12, color=INK, lw=1.6)
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _say_outside(axes, int(((done["value"] < low) | (done["value"] > high)).sum()))
    return figure


def sampler_loss(losses: Mapping[int, Sequence[float]]) -> Figure:
    """The sampler's loss over the training steps of all rounds; thin: each step, thick: mean."""
    figure, axes = _canvas(5.6, 3.6, "Sampler's loss", "training step, over all rounds", "loss")
    trained = {number: np.asarray(loss) for number, loss in losses.items() if len(loss)}
    if not trained:
        return _empty(figure, axes, "the sampler was not trained yet")
    start, every = 0, math.ceil(len(trained) / 12)
    for i, (number, loss) in enumerate(sorted(trained.items())):
        steps = np.arange(start, start + len(loss))
        colour = (TARGET_COLOUR, SECOND_COLOUR)[i % 2]
        axes.plot(steps, loss, color=colour, lw=0.7, alpha=0.4)
        axes.plot(steps, _running_mean(loss), color=colour, lw=1.8)
        if i % every == 0:
            where = axes.get_xaxis_transform()
            axes.text(
                steps.mean(), 1.01, f"{number}", transform=where, color=INK, ha="center", fontsize=8
            )
        start += len(loss)
    axes.text(-0.01, 1.01, "round", transform=axes.transAxes, color=INK, ha="right", fontsize=8)
    if min(float(np.nanmin(loss)) for loss in trained.values()) > 0:
        axes.set_yscale("log")
    return figure


def _running_mean(loss: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean of the last twentieth of the steps (fewer at the beginning), one a step."""
    width = max(1, len(loss) // 20)
    total = np.concatenate([[0.0], np.cumsum(loss)])
    end = np.arange(1, len(loss) + 1)
    begin = np.maximum(end - width, 0)
    mean: np.ndarray[Any, Any] = (total[end] - total[begin]) / (end - begin)
    return mean


def _styles(fidelities: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each fidelity; the target always has the same."""
    lower = [
        (name, (LOWER_COLOURS[i % 4], LOWER_MARKERS[i % 4]))
        for i, name in enumerate(fidelities[:-1])
    ]
    return dict([*lower, (fidelities[-1], (TARGET_COLOUR, "o"))])


def _limits(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """A range with a margin, at most 3 interquartile ranges beyond the quartiles (Tukey's far out).

    One absurd outcome must not flatten the rest.
    """
    low, first, third, high = np.quantile(values, [0.0, 0.25, 0.75, 1.0])
    reach = 3 * (third - first)
    if len(values) >= 8 and reach > 0:
        low, high = max(low, first - reach), min(high, third + reach)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return float(low - margin), float(high + margin)


def _canvas(width: float, height: float, title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """An empty figure in the house style, sizes in inches; its background is transparent."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes: Axes = figure.subplots()
    axes.set_facecolor("none")
    axes.set_title(title, color=INK, fontsize=11, loc="left", pad=16, fontweight="bold")
    axes.set_xlabel(x, color=INK, fontsize=9.5)
    axes.set_ylabel(y, color=INK, fontsize=9.5)
    axes.tick_params(colors=INK, labelsize=8.5)
    axes.grid(visible=True, color=INK, alpha=0.12, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> Figure:
    legend = axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    return figure


def _empty(figure: Figure, axes: Axes, text: str) -> Figure:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, color=INK, ha="center", fontsize=10)
    return figure


def _say_outside(axes: Axes, n: int) -> None:
    if n:
        text = f"{n} beyond the axes"
        axes.text(1.0, 1.01, text, transform=axes.transAxes, color=INK, ha="right", fontsize=8)

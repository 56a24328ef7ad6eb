"""The figures of the races: best k against cost, the sweep, and seconds against points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.campaigns_measure import Array, Curve, Entry
from benchmarks.campaigns_races import R2, RACES, RATIOS, SWEPT

COLOURS = {
    "ours": "#0072B2",
    "single_fidelity": "#D55E00",
    "random_fidelity": "#CC79A7",
    "cheapest": "#56B4E9",
    "random": "#999999",
    "genetic": "#009E73",
    "sampler_random": "#000000",
    "sampler_genetic": "#E69F00",
    "sampler_mcmc": "#8A6D3B",
}
"""Okabe and Ito's colours, which the colour-blind can tell apart."""

N_COSTS = 200


def draw_all(entries: Sequence[Entry], folder: Path) -> None:
    """Draw every figure that the entries allow, as `races_*.png` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    singles = [name for name in RACES if not name.startswith(("sweep", "time"))]
    for name in singles:
        own = [e for e in entries if e.race_name == name]
        if own:
            _save(race(name, own), folder / f"races_{name}.png")
    for function in SWEPT:
        own = [e for e in entries if e.race_name.startswith(f"sweep_{function}")]
        if own:
            _save(sweep(function, own), folder / f"races_sweep_{function}.png")
    timed = [e for e in entries if e.race_name.startswith("time")]
    if timed:
        _save(times(timed), folder / "races_time.png")


def race(name: str, entries: Sequence[Entry]) -> Figure:
    """Mean over seeds of the best k against cost, a band from the worst seed to the best."""
    known, figure = RACES[name], Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    costs = np.linspace(0, entries[0].budget, N_COSTS)
    for method in [m for m in COLOURS if any(e.method == m for e in entries)]:
        own = [e for e in entries if e.method == method]
        curves = np.stack([at_costs(e.curve, costs) for e in own])
        seeds = "1 seed" if len(own) == 1 else f"{len(own)} seeds"
        _band(axes, costs, curves, method, f"{method.replace('_', ' ')} ({seeds})")
    if known.ceiling is not None:
        axes.axhline(known.ceiling, color="black", linestyle=":", label="the best there is")
    if all(e.sign < 0 and e.curve.mean.min(initial=np.inf) > 0 for e in entries):
        axes.set_yscale("log")
    axes.set_xlabel("cost paid (1 = one target query)")
    axes.set_ylabel(f"mean of the best {known.k} paid for at the target")
    axes.set_title(name.replace("_", " "), loc="left")
    axes.grid(alpha=0.3)
    axes.legend(framealpha=0.9, fontsize=8)
    return figure


def at_costs(curve: Curve, costs: Array) -> Array:
    """The curve as a step function at `costs`; NaN before its first value."""
    if not len(curve.cost):
        return np.full(len(costs), np.nan)
    before = np.searchsorted(curve.cost, costs * (1 + 1e-9), side="right") - 1
    return np.where(before >= 0, curve.mean[before.clip(min=0)], np.nan)


def _band(axes: Axes, x: Array, curves: Array, method: str, label: str) -> None:
    known = ~np.isnan(curves).any(axis=0)
    x, curves = x[known], curves[:, known]
    axes.plot(x, curves.mean(axis=0), color=COLOURS[method], label=label)
    axes.fill_between(
        x, curves.min(axis=0), curves.max(axis=0), color=COLOURS[method], alpha=0.15, linewidth=0
    )


def sweep(function: str, entries: Sequence[Entry]) -> Figure:
    """How much better than the single-fidelity loop, by what the cheap oracle explains.

    One point a seed: the difference between the best k at the end, in percent of the
    single-fidelity loop's; above 0 we are ahead. The bar is the mean.
    """
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    panels = figure.subplots(1, len(RATIOS), sharey=True)
    for axes, ratio in zip(panels, RATIOS, strict=True):
        for place, r2 in enumerate(sorted(R2)):
            own = [e for e in entries if e.race_name == f"sweep_{function}_c{ratio:g}_r{r2:g}"]
            gains = advantages(own)
            axes.scatter([place] * len(gains), gains, s=12, color=COLOURS["ours"], alpha=0.6)
            if gains:
                axes.scatter([place], [np.mean(gains)], marker="_", s=300, color="black")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.axhline(-5, color=COLOURS["single_fidelity"], linestyle=":")
        axes.set_xticks(range(len(R2)), [f"{r2:g}" for r2 in sorted(R2)])
        axes.set_xlabel("R² of the cheap oracle")
        axes.set_title(f"cost ratio {ratio:g}", loc="left", fontsize=9)
    panels[0].set_ylabel("ahead of single-fidelity (%)")
    figure.suptitle(function, x=0.02, ha="left")
    return figure


def advantages(entries: Sequence[Entry]) -> list[float]:
    """By how many percent of |single-fidelity's best k| ours is better, seed by seed."""
    ends = {(e.method, e.seed): e.sign * e.curve.at(e.budget) for e in entries}
    seeds = [
        seed for method, seed in ends if method == "ours" and ("single_fidelity", seed) in ends
    ]
    pairs = [(ends["ours", seed], ends["single_fidelity", seed]) for seed in seeds]
    return [100 * (ours - theirs) / abs(theirs) for ours, theirs in pairs]


def times(entries: Sequence[Entry]) -> Figure:
    """CPU seconds of one round's verbs against the number of known points."""
    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axes = figure.subplots()
    numbers = sorted({int(e.race_name.split("_")[1]) for e in entries})
    for verb in ("fit", "train", "propose", "select", "all"):
        means = [_seconds(entries, n, verb) for n in numbers]
        axes.plot(numbers, means, marker="o", label="the whole round" if verb == "all" else verb)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("known points (6-D)")
    axes.set_ylabel("CPU seconds, one thread")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper")
    return figure


def _seconds(entries: Sequence[Entry], n: int, verb: str) -> float:
    rows = [e.seconds[e.seconds["round"] > 0] for e in entries if e.race_name == f"time_{n}"]
    kept = [row if verb == "all" else row[row["verb"] == verb] for row in rows]
    return float(np.mean([row["cpu_seconds"].sum() for row in kept]))


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130)

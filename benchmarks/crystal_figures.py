"""Figures of the crystal benchmark, in colours that colour-blind people tell apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.crystal_rewards import GAP

Result = dict[str, Any]
# Okabe and Ito 2008.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
_WIDTH, _DPI = 9.0, 100
_TITLES = {
    "density": "density",
    "formation_energy": "formation energy (proxy)",
    "band_gap": "band gap (model)",
}


def draw_all(results: Result, folder: Path) -> None:
    """Draw what has been measured, 900 pixels wide."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = [name for name in _TITLES if name in results]
    if trained:
        draw_training(results, trained, folder / "crystal_training.png")
    if "comparison" in results:
        draw_comparison(results["comparison"], folder / "crystal_comparison.png")
    if "where" in results:
        draw_where(results["where"], folder / "crystal_where.png")


def draw_training(results: Result, names: list[str], path: Path) -> None:
    """Loss over training, and the correlation of log p with log R; a line a seed."""
    figure, axes = plt.subplots(1, 2, figsize=(_WIDTH, 3.2), layout="constrained")
    for name, colour in zip(names, (BLUE, ORANGE, GREEN), strict=False):
        for i, run in enumerate(results[name]["runs"]):
            label = _TITLES[name] if i == 0 else None
            minutes = run["cpu_s"] / 60
            losses, found = run["losses"], run["correlations"]
            x = np.arange(1, len(losses) + 1) / len(losses) * minutes
            axes[0].plot(x, losses, color=colour, lw=1.2, label=label)
            x = np.arange(1, len(found) + 1) / len(found) * minutes
            axes[1].plot(x, found, color=colour, marker="o", ms=3, lw=1.2, label=label)
    axes[0].set(yscale="log", xlabel="CPU minutes", ylabel="loss (trajectory balance)")
    axes[1].axhline(0.9, color=GREY, lw=1, ls="--")
    axes[1].set(xlabel="CPU minutes", ylabel="Spearman, log p and log R", ylim=(0, 1))
    axes[0].legend(frameon=False)
    _save(figure, path)


def draw_comparison(told: Result, path: Path) -> None:
    """Predicted energies and gaps of samples beside known and random crystals."""
    figure, axes = plt.subplots(1, 2, figsize=(_WIDTH, 3.2), layout="constrained")
    shown = (
        ("random", GREY, "random crystals"),
        ("decorated", GREEN, "decorated prototypes"),
        ("known", ORANGE, "known crystals"),
    )
    sets = told["sets"]
    for axis, key, own in ((axes[0], "energy", "formation_energy"), (axes[1], "gap", "band_gap")):
        low, high = (-4.5, 5.2) if key == "energy" else (0.0, 8.0)
        for name, colour, label in (*shown, (f"{own} sampler", BLUE, "our samples")):
            _histogram(axis, sets[name][key], low, high, colour, label)
    axes[0].set(xlabel="formation energy, eV/atom (our proxy)", ylabel="share")
    axes[1].set(xlabel="band gap, eV (our model)")
    axes[1].axvline(GAP, color=VERMILION, lw=1, ls="--", label="1.34 eV")
    axes[1].legend(frameon=False)
    _save(figure, path)


def draw_where(told: Result, path: Path) -> None:
    """Predicted energies under each restriction, beside random crystals under the same."""
    figure, axes = plt.subplots(
        1, len(told), figsize=(_WIDTH, 2.8), layout="constrained", sharey=True
    )
    for axis, (name, run) in zip(axes, told.items(), strict=True):
        values = run["value"] + run["value_random"]
        low, high = min(values), max(values)
        _histogram(axis, run["value_random"], low, high, GREY, "random")
        _histogram(axis, run["value"], low, high, BLUE, "our samples")
        axis.set(title=f"{name}: {_wish(run['where'])}", xlabel="eV/atom (our proxy)")
        axis.title.set_fontsize(8)
    axes[0].set_ylabel("share")
    axes[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def _wish(where: Result) -> str:
    texts: dict[str, Callable[[Any], str]] = {
        "elements": lambda x: "-".join(x),
        "n_atoms_per_element": lambda x: f"≤ {x} each",
        "lattice_system": str,
        "lengths": lambda x: f"{x[0]}–{x[1]} Å",
        "angles": lambda x: f"{x[0]}–{x[1]}°",
    }
    return ", ".join(texts[key](value) for key, value in where.items())


def _histogram(
    axis: Axes, values: list[float], low: float, high: float, colour: str, label: str
) -> None:
    weights = np.full(len(values), 1 / len(values))
    inside = np.clip(values, low, high)
    axis.hist(inside, bins=40, range=(low, high), weights=weights, histtype="step",
              color=colour, lw=1.4, label=label)  # fmt: skip


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)

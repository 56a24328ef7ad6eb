"""What is measured of an entry, from its queries alone.

Only values that were paid for at the target fidelity count; variants of one family count once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.campaigns_races import RACES, Race

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """The best so far against what was paid, one point for each value paid for at the target.

    `mean` is over the best k, or over all where fewer than k are paid for; `n` says how many.
    """

    cost: Array
    mean: Array
    best: Array
    n: NDArray[np.int64]

    def at(self, cost: float, values: Array | None = None) -> float:
        """The mean, or the one of `values`, when `cost` was spent; NaN before the first value."""
        spent = self.cost <= cost * (1 + 1e-9)
        values = self.mean if values is None else values
        return float(values[spent][-1]) if spent.any() else float("nan")

    def cost_of(self, mean: float, sign: float, least: int = 1) -> float:
        """What was paid until the mean of at least `least` was as good; inf where it never was."""
        return self._first((sign * self.mean >= sign * mean - 1e-12) & (self.n >= least))

    def cost_of_best(self, value: float, sign: float) -> float:
        """What was paid until one was as good as `value`, to 4 decimals; inf where it never was."""
        return self._first(sign * self.best >= sign * value - 5e-5)

    def _first(self, good: NDArray[np.bool_]) -> float:
        return float(self.cost[good][0]) if good.any() else float("inf")


@dataclass(frozen=True)
class Entry:
    """One method in one race under one seed."""

    race_name: str
    method: str
    seed: int
    config: dict[str, Any]
    frame: pd.DataFrame
    seconds: pd.DataFrame
    diversity: float
    novelty: float

    @classmethod
    def read(cls, path: Path) -> Entry:
        """An entry from its file."""
        told = json.loads(path.read_text())
        numbers = {"value": float, "cost": float, "truth": float}
        frame = pd.DataFrame(told["rows"], columns=told["columns"]).astype(numbers)
        seconds = pd.DataFrame(told["seconds"], columns=["round", "verb", "seconds", "cpu_seconds"])
        return cls(
            race_name=told["race"],
            method=told["method"],
            seed=told["seed"],
            config=told["config"],
            frame=frame,
            seconds=seconds,
            diversity=_number(told["diversity"]),
            novelty=_number(told["novelty"]),
        )

    @property
    def race(self) -> Race:
        """The race it ran in."""
        return RACES[self.race_name]

    @property
    def sign(self) -> float:
        """+1 where more is better."""
        return 1.0 if self.config["objective"]["goal"] == "maximize" else -1.0

    @property
    def target(self) -> str:
        """The name of the target fidelity."""
        return str(self.config["oracles"][-1]["fidelity"])

    @property
    def budget(self) -> float:
        """What it could spend."""
        return float(self.config["budget"]["cost"])

    @cached_property
    def curve(self) -> Curve:
        """Best k that were paid for at the target, against cost."""
        paid = self.frame[(self.frame["fidelity"] == self.target) & self.frame["value"].notna()]
        return self._curve(paid.drop_duplicates("family"), "value")

    @cached_property
    def scored(self) -> Curve:
        """Best k of all that were asked, at any fidelity, by their true values: as published."""
        asked = self.frame[self.frame["truth"].notna()]
        return self._curve(asked.drop_duplicates("family"), "truth")

    def _curve(self, rows: pd.DataFrame, column: str) -> Curve:
        spent = self.frame["cost"].fillna(0.0).cumsum()[rows.index].to_numpy()
        scores, k = self.sign * rows[column].to_numpy(), self.race.k
        best: list[float] = []
        means, bests = np.empty(len(scores)), np.empty(len(scores))
        for i, score in enumerate(scores):
            best = sorted([*best, float(score)], reverse=True)[:k]
            means[i], bests[i] = np.mean(best), best[0]
        n = np.minimum(np.arange(1, len(scores) + 1), k)
        return Curve(spent, self.sign * means, self.sign * bests, n)

    @property
    def rounds(self) -> pd.Series[float]:
        """CPU seconds of each round after the initial design."""
        later = self.seconds[self.seconds["round"] > 0]
        return later.groupby("round")["cpu_seconds"].sum(min_count=1)

    def told(self) -> str:
        """The end in one line."""
        curve = self.curve
        if not len(curve.mean):
            return "nothing was paid for at the target"
        counts = self.frame["fidelity"].value_counts().to_dict()
        return (
            f"top-{self.race.k} {curve.mean[-1]:.4f} of {curve.n[-1]}, best {curve.best[-1]:.4f}, "
            f"half-way {curve.at(self.budget / 2):.4f}, queries {counts}"
        )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def read_entries(results: Path, races: list[str]) -> list[Entry]:
    """Every entry of these races that has a result."""
    paths = [path for race in races for path in sorted((results / race).glob("*-*.json"))]
    return [Entry.read(path) for path in paths]

"""The tables of the races."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from benchmarks.campaigns_measure import Entry
from benchmarks.campaigns_races import LADDER_METHODS, RACES, Race

Column = Callable[[Entry], float]

REFERENCE = "single_fidelity"


def tables(entries: Sequence[Entry]) -> str:
    """A Markdown table for each race: one row a method, mean ± standard deviation over seeds."""
    names = [name for name in RACES if any(e.race_name == name for e in entries)]
    return "\n\n".join(table(name, [e for e in entries if e.race_name == name]) for name in names)


def table(name: str, entries: Sequence[Entry]) -> str:
    """One race's table."""
    race = RACES[name]
    columns = _columns(entries, race)
    told = f"ceiling {race.ceiling:g}; " if race.ceiling is not None else ""
    lines = [
        f"**{name}** ({told}budget {entries[0].budget:g})",
        "",
        "| method | seeds | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for method in sorted({e.method for e in entries}, key=LADDER_METHODS.index):
        own = [e for e in entries if e.method == method]
        cells = " | ".join(spread([column(e) for e in own]) for column in columns.values())
        lines.append(f"| {method} | {len(own)} | {cells} |")
    return "\n".join(lines)


def _columns(entries: Sequence[Entry], race: Race) -> dict[str, Column]:
    k = race.k
    columns: dict[str, Column] = {
        f"top {k}": lambda e: e.curve.at(e.budget),
        "paid": lambda e: float(e.curve.n.max(initial=0)),
        "at half the budget": lambda e: e.curve.at(e.budget / 2),
        "at a tenth": lambda e: e.curve.at(e.budget / 10),
        "best": lambda e: e.curve.at(e.budget, e.curve.best),
    }
    if race.optimum is not None:
        optimum = race.optimum
        columns["cost to the optimum"] = lambda e: e.curve.cost_of_best(optimum, e.sign)
    rivals = [e for e in entries if e.method == REFERENCE]
    if rivals:
        columns |= _shares(statistics.mean(e.curve.at(e.budget) for e in rivals), k)
    columns["diversity"] = lambda e: e.diversity
    if any(math.isfinite(e.novelty) for e in entries):
        columns["novelty"] = lambda e: e.novelty
    columns["CPU s a round"] = lambda e: float(e.rounds.mean())
    return columns


def _shares(goal: float, k: int) -> dict[str, Column]:
    """Which share of the budget it takes to be as good as the single-fidelity loop's end."""
    return {
        "% to it": lambda e: 100 * e.curve.cost_of(goal, e.sign) / e.budget,
        f"% to it with {k} paid": lambda e: 100 * e.curve.cost_of(goal, e.sign, k) / e.budget,
        "% to it, scored": lambda e: 100 * e.scored.cost_of(goal, e.sign, k) / e.budget,
    }


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; `never` where a cost is infinite, with how often it is not."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return "never" if any(v == math.inf for v in values) else "–"
    sd = statistics.stdev(finite) if len(finite) > 1 else 0.0
    of = f" ({len(finite)} of {len(values)})" if len(finite) < len(values) else ""
    return f"{statistics.mean(finite):.4g} ± {sd:.2g}{of}"

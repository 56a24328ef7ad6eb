"""What is kept of an entry: its queries, and what only the space and the true oracle can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.campaigns_races import Config
from pipeline.assemble import Parts
from pipeline.goal import score, sign
from pipeline.jobs import ask, outcome

ROWS = ["round", "candidate", "family", "fidelity", "value", "cost", "state"]
"""What is kept of every query; `truth`, its value at the target, comes to it."""


def result(
    config: Config, parts: Parts, frame: pd.DataFrame, seconds: list[Config], k: int
) -> Config:
    """An entry as plain data, from its frame with the columns `ROWS`."""
    # What a race gives for nothing is in its data already, and can be tens of thousands of rows.
    paid = frame[~((frame["state"] == "done") & (frame["cost"] == 0))]
    told = paid[ROWS].assign(truth=true_values(parts, paid["candidate"].tolist()))
    rows = told.astype(object).where(told.notna(), None)
    return {
        "config": config,
        "columns": [*ROWS, "truth"],
        "rows": rows.to_numpy().tolist(),
        "seconds": seconds,
        **_spread(config, parts, told, k),
    }


def true_values(parts: Parts, keys: list[str]) -> list[float]:
    """Values at the target, NaN where there is none, of candidates by their keys; for nothing."""
    if not keys:
        return []
    candidates = parts.environment.decode(parts.environment.from_keys(keys))
    answers = ask(parts.ladder[-1].oracle, candidates)
    name = parts.config.objective.property
    return [outcome("", a, 0.0).properties.get(name, float("nan")) for a in answers]


def top_paid(parts: Parts, frame: pd.DataFrame, k: int) -> pd.DataFrame:
    """The best k different candidates that were paid for at the target."""
    goal = parts.config.objective.goal
    is_paid = (frame["state"] == "done") & (frame["fidelity"] == parts.fidelities[-1])
    paid = frame[is_paid & (frame["cost"] > 0)].drop_duplicates("family")
    order = score(paid["value"].astype(float), goal).sort_values(ascending=sign(goal) < 0)
    return paid.loc[order.index].head(k)


def _spread(config: Config, parts: Parts, frame: pd.DataFrame, k: int) -> dict[str, Any]:
    """Mean distance between the best k, and from each to the nearest known candidate.

    In the space's own metric: edits a letter for words, shares of the box's diagonal for points.
    """
    environment = parts.environment
    top = environment.from_keys(top_paid(parts, frame, k)["candidate"].tolist())
    n = len(top)
    diversity = novelty = None
    if n > 1:
        diversity = float(environment.distances(top, top).sum()) / (n * (n - 1))
    if "file" in config["initial"] and n:
        known = known_states(config, parts)
        parts_of_known = torch.split(known, 4096)  # a matrix of all would fill the memory
        nearest = [environment.distances(top, part).amin(1) for part in parts_of_known]
        novelty = float(torch.stack(nearest).amin(0).mean())
    return {"diversity": diversity, "novelty": novelty}


def known_states(config: Config, parts: Parts) -> Tensor:
    """The candidates whose values the race gives, `(n, w)`."""
    table = pd.read_csv(Path(config["initial"]["file"]), dtype=str, keep_default_na=False)
    return parts.environment.from_keys(table["candidate"].tolist())

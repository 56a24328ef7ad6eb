"""The initial design: nested random candidates, or a table of values that the user brings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pipeline.assemble import Parts
from pipeline.config import ConfigError
from pipeline.ledger import Query
from pipeline.queries import make_queries
from pipeline.streams import stream


def distinct(states: Tensor, keys: Callable[[Tensor], list[str]]) -> Tensor:
    """The first of each state with equal key, in order."""
    first = {key: i for i, key in reversed(list(enumerate(keys(states))))}
    return states[torch.tensor(sorted(first.values()), dtype=torch.long)]


def distinct_random(parts: Parts, n: int, seed: int) -> Tensor:
    """N different random candidates, or all that the space has when they are fewer."""
    environment = parts.environment
    found = environment.initial_states(0)
    for attempt in range(20):
        drawn = parts.random(stream(seed, attempt, "random")).sample(2 * n)
        before = len(found)
        found = distinct(torch.cat([found, drawn]), environment.keys)
        if len(found) >= n or len(found) == before:
            break
    return found[:n]


def random_design(parts: Parts, seed: int) -> list[Query]:
    """The queries of a nested random design: each fidelity gets the first of the same candidates.

    Candidates that are known at several fidelities are what teaches the surrogate how these agree.
    """
    counts = parts.config.initial.n or {}
    states = distinct_random(parts, max(counts.values()), seed)
    queries = []
    for index, rung in enumerate(parts.ladder):
        rows = states[: counts.get(rung.fidelity, 0)]
        why = [{"why": "initial design"}] * len(rows)
        queries += make_queries(parts, 0, rows, [index] * len(rows), why)
    return queries


def known_design(parts: Parts, path: Path) -> tuple[list[Query], list[float]]:
    """Queries and values of the user's table; see `read_known`."""
    table = read_known(path, parts)
    states = parts.environment.from_keys(table["candidate"].tolist())
    fidelities = [parts.fidelities.index(f) for f in table["fidelity"]]
    why = [{"why": f"known, from {path.name}"}] * len(fidelities)
    return make_queries(parts, 0, states, fidelities, why), table["value"].tolist()


def read_known(path: Path, parts: Parts) -> pd.DataFrame:
    """The table of known values, checked; ConfigError names each bad line."""
    try:
        # Text as it stands: pandas would take a candidate called `NA` or `None` for a gap.
        text = {"candidate": str, "fidelity": str}
        table = pd.read_csv(path, dtype=text, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ConfigError([f"initial.file: {path} cannot be read: {error}"]) from None
    missing = {"candidate", "fidelity", "value"} - set(table.columns)
    if missing or table.empty:
        raise ConfigError(
            [
                f"initial.file: {path}: expected rows of candidate, fidelity, value; "
                f"{'missing: ' + ', '.join(sorted(missing)) if missing else 'it has no rows'}"
            ]
        )
    problems = [p for i, row in table.iterrows() for p in _row_problems(path, i, row, parts)]
    again = table.index[table.duplicated(["candidate", "fidelity"])]
    problems += [
        f"initial.file: {path} line {int(i) + 2}: `{table['candidate'][i]}` stands there again at "
        f"`{table['fidelity'][i]}`; keep one value"
        for i in again
    ]
    if problems:
        raise ConfigError(problems)
    return table


def _row_problems(path: Path, index: Any, row: Any, parts: Parts) -> list[str]:
    where = f"initial.file: {path} line {int(index) + 2}"
    problems = []
    if row["fidelity"] not in parts.fidelities:
        known = ", ".join(parts.fidelities)
        problems.append(f"{where}: no oracle has the fidelity `{row['fidelity']}`; known: {known}")
    try:
        parts.environment.from_keys([row["candidate"]])
    except ValueError as error:
        problems.append(f"{where}: {error}")
    value = pd.to_numeric(row["value"], errors="coerce")
    if not abs(value) < float("inf"):
        problems.append(f"{where}: expected a finite value, got {row['value']!r}")
    return problems

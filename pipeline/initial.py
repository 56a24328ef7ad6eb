"""The initial design: random candidates, the user's structures, or values that the user knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.assemble import Parts
from pipeline.config import ConfigError
from pipeline.known import Rows, read_rows
from pipeline.ledger import Query
from pipeline.queries import make_queries
from pipeline.streams import stream
from pipeline.structures import read_structures
from pipeline.structures_inside import inside


@dataclass(frozen=True)
class Design:
    """Queries of round 0, and their values where these are known; `notes` tell what was left out.

    Without values the queries are asked and paid for.
    """

    queries: list[Query]
    values: list[float] | None = None
    notes: tuple[str, ...] = ()


def distinct(states: Tensor, keys: Callable[[Tensor], list[str]]) -> Tensor:
    """The first of each state with equal key, in order."""
    first = {key: i for i, key in reversed(list(enumerate(keys(states))))}
    return states[torch.tensor(sorted(first.values()), dtype=torch.long)]


def distinct_random(parts: Parts, n: int, seed: int, found: Tensor | None = None) -> Tensor:
    """N different candidates, `found` first and then random ones, or all that the space has."""
    environment = parts.environment
    found = environment.initial_states(0) if found is None else found
    for attempt in range(20):
        if len(found) >= n:
            break
        drawn = parts.random(stream(seed, attempt, "random")).sample(2 * n)
        before = len(found)
        found = distinct(torch.cat([found, drawn]), environment.keys)
        if len(found) == before:
            break
    return found[:n]


def initial_design(parts: Parts, folder: Path, seed: int) -> Design:
    """Round 0 of a campaign whose files lie in `folder`; ConfigError names each bad line."""
    file = parts.config.initial.file
    if file is None:
        return Design(nested(parts, parts.environment.initial_states(0), "initial design", seed))
    path = folder / file
    if path.suffix.lower() == ".csv":
        return _of_rows(read_rows(path, parts), path, parts)
    try:
        given = read_structures(path)
    except ValueError as error:
        raise ConfigError([f"initial.file: {line}" for line in str(error).split("\n")]) from None
    kept = inside(given, path, parts)
    states = distinct(kept.states, parts.environment.keys)
    notes = kept.notes
    if len(states) < len(kept.states):
        n = len(kept.states) - len(states)
        notes = (*notes, f"initial.file: {path}: {n} are the same candidate as one before")
    return Design(nested(parts, states, f"given, from {path.name}", seed), None, notes)


def nested(parts: Parts, given: Tensor, why: str, seed: int) -> list[Query]:
    """The queries of a nested design: each fidelity gets the first of the same candidates.

    Candidates that are known at several fidelities are what teaches the surrogate how these agree.
    `initial.n` counts them; `given` `(g, w)` come first, and random ones after them. Without `n`
    all of `given` are asked at the target.
    """
    counts = parts.config.initial.n or {parts.fidelities[-1]: len(given)}
    states = distinct_random(parts, max(counts.values()), seed, given)
    queries = []
    for index, rung in enumerate(parts.ladder):
        rows = states[: counts.get(rung.fidelity, 0)]
        reasons = [{"why": why if i < len(given) else "initial design"} for i in range(len(rows))]
        queries += make_queries(parts, 0, rows, [index] * len(rows), reasons)
    return queries


def _of_rows(rows: Rows, path: Path, parts: Parts) -> Design:
    word = "given" if rows.values is None else "known"
    reasons = [{"why": f"{word}, from {path.name}"}] * len(rows.fidelities)
    queries = make_queries(parts, 0, rows.states, rows.fidelities, reasons)
    return Design(queries, rows.values, rows.notes)


def check_initial(parts: Parts, folder: Path) -> float:
    """What the initial design costs; ConfigError, before money is spent, where it cannot be."""
    if parts.config.initial.file is None:
        counts = parts.config.initial.n or {}
        return sum(counts.get(rung.fidelity, 0) * rung.cost for rung in parts.ladder)
    design = initial_design(parts, folder, seed=0)
    cost = 0.0 if design.values is not None else sum(query.cost for query in design.queries)
    budget = parts.config.budget.cost
    if cost > budget * (1 + 1e-9):
        raise ConfigError(
            [
                f"initial.file: asking its {len(design.queries)} queries costs {cost:g}, more than "
                f"budget.cost {budget:g}; raise it, or let `initial.n` say how many each "
                "fidelity gets"
            ]
        )
    return cost

# ruff: noqa: E402  (the path is set before the packages are looked for)
"""How a campaign's book-keeping grows: many quick queries, and a ledger of a million rows.

    .venv/bin/python benchmarks/scale.py queries --n 10000
    .venv/bin/python benchmarks/scale.py ledger --rows 1000000

`queries` sends n queries of an oracle that takes no time through the local runner, from reservation
to the committed outcome, and tells the time and memory a query adds. `ledger` fills a ledger, then
times `motherlode status`'s question, opening the campaign to go on, and what a round asks of it.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# benchmarks/sampler.py has the name of a package, and its folder comes first on the path.
sys.path[0] = str(Path(__file__).parent.parent)

import psutil
import torch

from flows.execution import local_runner
from pipeline import Campaign
from pipeline.ledger import Query
from pipeline.metrics import ledger_figures
from pipeline.queries import make_queries, settle
from pipeline.status import read_status


def config(n: int) -> dict[str, Any]:
    """A campaign whose oracle only looks up a formula, on a space of at least n candidates."""
    return {
        "name": "scale",
        "space": {"kind": "hyper_grid", "n_dims": 2, "length": 1200, "bounds": [[-5, 10], [0, 15]]},
        "objective": {"property": "value", "goal": "minimize"},
        "oracles": [{"kind": "branin", "fidelity": "only", "cost": 1}],
        "initial": {"n": {"only": 1}},
        "budget": {"cost": 10 * n, "rounds": 5},
        "tracking": {"kind": "none"},
    }


def queries_of(campaign: Campaign, first: int, n: int) -> list[Query]:
    """The queries of n grid points that follow the first ones."""
    numbers = torch.arange(first, first + n)
    environment = campaign.parts.environment
    coordinates = torch.stack([numbers // 1200, numbers % 1200], dim=1)
    states = environment.from_keys([f"{a},{b}" for a, b in coordinates.tolist()])
    return make_queries(campaign.parts, 1, states, [0] * n, [{"mean": 0.0, "sd": 1.0}] * n)


def measure_queries(n: int, batch: int = 500) -> None:
    """Play n queries in batches, as a round does, and print what each one costs."""
    process = psutil.Process()
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        made = Campaign.from_config(config(n), Path(scratch) / "run", runner=local_runner)
        with made as campaign:
            campaign.runner.start()
            next(campaign.runner.run(_reserve(campaign, 10**6, 1)))  # the workers are up
            each, memory = [], []
            for start in range(0, n, batch):
                began = time.perf_counter()
                _play(campaign, _reserve(campaign, start, min(batch, n - start)))
                each.append((time.perf_counter() - began) / min(batch, n - start))
                memory.append(process.memory_info().rss / 2**20)
            spent = campaign.ledger.spend()
    assert spent == n + 0, f"{n} queries cost {spent:g}"
    print(f"{n} queries through {campaign.config.execution.workers} local workers:")
    print(f"  each {1e3 * statistics.median(each):.2f} ms (median of batches of {batch}; ", end="")
    print(f"slowest {1e3 * max(each):.2f} ms)")
    print(f"  memory {memory[0]:.0f} MiB after the first batch, {memory[-1]:.0f} after the last")


def _reserve(campaign: Campaign, first: int, n: int) -> list[Any]:
    from pipeline.jobs import Job

    queries = queries_of(campaign, first, n)
    campaign.ledger.reserve(queries, "scale", campaign.config.budget.cost)
    campaign.ledger.start([query.key for query in queries])
    return [Job(query.key, query.candidate, 0) for query in queries]


def _play(campaign: Campaign, jobs: list[Any]) -> None:
    """Submit jobs and record what comes, all of a poll in one transaction."""
    rows = {job.key: {"declared_cost": 1.0} for job in jobs}
    campaign.runner.submit(jobs)
    while campaign.runner.running():
        outcomes = campaign.runner.poll(None)
        with campaign.ledger.batch():
            for outcome in outcomes:
                settle(campaign, rows[outcome.key], outcome)


FILL = """
WITH RECURSIVE number(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < :rows)
INSERT INTO queries (key, campaign, round, candidate, fidelity, oracle, state, declared_cost,
    actual_cost, value, reason, created_at, started_at, finished_at, seconds, properties, family,
    description, attempts)
SELECT printf('%016x', i), 'scale', i / 1000, printf('%d,%d', i / 1200, i % 1200),
    iif(i % 4, 'low', 'target'), 'branin', iif(i > :rows - 3, 'running', 'done'),
    iif(i % 4, 0.1, 1.0), iif(i > :rows - 3, NULL, iif(i % 4, 0.1, 1.0)),
    iif(i > :rows - 3, NULL, (i * 7919 % :rows) / 7.0),
    '{"mean": 0.5, "sd": 0.1, "log_gain": -3.2, "novelty": 0.7, "why": "highest gain"}',
    :now, :now, :now, 0.01, '{"value": 0.5}', printf('f%d', i / 3), '{"x": 0.25, "y": 1.5}', 1
FROM number
"""


def fill(path: Path, rows: int) -> None:
    """So many made-up queries in rounds of a thousand, all ended but the last three."""
    with sqlite3.connect(path) as db:
        db.execute(FILL, {"rows": rows, "now": "2026-01-01T00:00:00.000+00:00"})
    db.close()


def measure_ledger(rows: int) -> None:
    """Time the questions that must stay quick, on a ledger of so many rows."""
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        directory = Path(scratch) / "run"
        data = config(rows) | {"oracles": []}
        data["oracles"] = [
            {"kind": "branin", "fidelity": "low", "bias": 0.5, "cost": 0.1},
            {"kind": "branin", "fidelity": "target", "cost": 1},
        ]
        data["initial"] = {"n": {"low": 1}}
        data["budget"] = {"cost": 1e9, "rounds": rows}
        Campaign.from_config(data, directory).close()
        fill(directory / "ledger.sqlite", rows)
        size = (directory / "ledger.sqlite").stat().st_size / 2**20
        print(f"a ledger of {rows} rows, {size:.0f} MiB:")
        told = _timed("status", lambda: read_status(directory))
        print("  " + json.dumps(told["queries"]), f"spend {told['spend']:g}")
        resumed = _timed("resume: open", lambda: Campaign.resume(directory))
        _timed("resume: which round is next", resumed.next_round)
        _timed("resume: the open queries", resumed.ledger.open_queries)
        told = resumed.ledger.last_round() or 0, "target", resumed.goal
        _timed("the figures of a round", lambda: ledger_figures(resumed.ledger, *told))
        _timed("the best ten", lambda: resumed.ledger.top("target", resumed.goal, 10))
        memory = psutil.Process().memory_info().rss / 2**20
        print(f"  memory {memory:.0f} MiB")
        _timed("one narrow frame of all rows", lambda: resumed.ledger.to_frame(NARROW))
        _timed("the whole frame, its objects read", lambda: resumed.ledger.to_frame())
        peak = psutil.Process().memory_info().rss / 2**20
        print(f"  memory {peak:.0f} MiB after the frames")
        resumed.close()


NARROW = ("candidate", "fidelity", "state", "value")


def _timed(what: str, act: Any) -> Any:
    began, began_cpu = time.perf_counter(), time.process_time()
    result = act()
    wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    print(f"  {what}: {wall:.2f} s ({cpu:.2f} s of CPU)", flush=True)
    return result


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["queries", "ledger"])
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    measure_queries(given.n) if given.what == "queries" else measure_ledger(given.rows)


if __name__ == "__main__":
    main()

"""A rival without a model: a genetic algorithm on the true oracle, each evaluation paid for."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.campaigns_races import Config
from benchmarks.campaigns_result import ROWS, known_states, result
from pipeline.assemble import Parts, assemble
from pipeline.config import parse
from pipeline.goal import score, sign
from pipeline.jobs import ask, outcome
from sampler.genetic import Genetic


def genetic(config: Config, k: int) -> Config:
    """Breed at the target, a batch a generation, until the budget is spent; an entry.

    Never the same candidate twice. Where the race gives known values the first generation is the
    best of them, for nothing; else it is random.
    """
    parts = assemble(parse(config), Path.cwd())
    began, cpu_began = time.perf_counter(), time.process_time()
    teller = TrueOracle(parts)
    size = parts.config.selection.batch_size
    n = int(parts.config.budget.cost / parts.ladder[-1].cost + 1e-9)
    search = Genetic(parts.environment, seed=parts.config.seed)

    def stop_when_spent(step: int, loss: float) -> None:
        if len(teller.rows) >= n:
            raise Spent

    # What is known costs nothing, so that there is no telling how many generations it takes.
    with suppress(Spent):
        start = _start(config, parts, teller)
        search.train(teller, n_steps=20 * n, batch_size=size, on_step=stop_when_spent, **start)
    frame = pd.DataFrame(teller.rows[:n], columns=ROWS)
    spent = {
        "round": 0,
        "verb": "all",
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
    }
    return result(config, parts, frame, [spent], k)


def _start(config: Config, parts: Parts, teller: TrueOracle) -> dict[str, Any]:
    """The first generation: the best of what the race gives, if it gives any."""
    if "file" not in config["initial"]:
        return {}
    states = known_states(config, parts)
    table = pd.read_csv(config["initial"]["file"])
    teller.known |= dict(zip(parts.environment.keys(states), table["value"], strict=True))
    scores = score(table["value"], parts.config.objective.goal).to_numpy()
    order = torch.tensor(sign(parts.config.objective.goal) * scores).argsort(descending=True)
    best = states[order[: parts.config.selection.batch_size]]
    return {"examples": best, "example_fraction": 1.0}


class Spent(Exception):  # noqa: N818 - it ends a search, and is no mishap
    """The budget is used up."""


class TrueOracle:
    """The target oracle as a log reward; writes down each query, in the order of asking.

    Only the order of rewards counts in tournaments: the log reward is the score over
    (1 + |score|), between -1 and 1. A failed query has the least.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.rows: list[list[Any]] = []
        self.round = 0
        self.known: dict[str, float | None] = {}

    def __call__(self, states: Tensor) -> Tensor:
        """Log rewards `(n,)` of terminal states `(n, w)`."""
        keys = self.parts.environment.keys(states)
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            self._pay(states[new], [keys[i] for i in new])
        return self._log_reward([self.known[key] for key in keys])

    def _pay(self, states: Tensor, keys: list[str]) -> None:
        environment, rung = self.parts.environment, self.parts.ladder[-1]
        answers = ask(rung.oracle, environment.decode(states))
        for key, family, answer in zip(keys, environment.families(states), answers, strict=True):
            got = outcome(key, answer, 0.0)
            value = got.properties.get(self.parts.config.objective.property)
            cost, state = rung.cost if got.ran else 0.0, "failed" if value is None else "done"
            self.rows.append([self.round, key, family, rung.fidelity, value, cost, state])
            self.known[key] = value
        self.round += 1

    def _log_reward(self, values: list[float | None]) -> Tensor:
        goal = self.parts.config.objective.goal
        numbers = pd.Series([float("nan") if v is None else v for v in values], dtype=float)
        scores = sign(goal) * score(numbers, goal)
        squashed = (scores / (1 + scores.abs())).fillna(-2.0)
        return torch.tensor(squashed.to_numpy(), dtype=torch.float64)

"""Stand-ins that make a campaign run in milliseconds, and ways to break one.

This file imports nothing of `tests`, so that a test can copy it beside a config and name its
classes by "my_lab:Menu": a worker process finds them there.
"""

from __future__ import annotations

import copy
import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from oracles.oracle import NotRun
from pipeline.ledger import Query
from pipeline.progress import Progress
from sampler.environment import Environment
from surrogate.acquisition import Acquisition
from surrogate.surrogate import Surrogate

TIMES = ["created_at", "started_at", "finished_at", "seconds", "attempts", "runner_handle"]
"""The columns of the ledger that two equal campaigns may differ in: when, where, how often."""


class Menu(Environment):
    """`n_items` candidates, each one action away: the smallest space there is.

    State `(n, 2)`: the item, then 1 once chosen. A candidate is the item's number; items that
    share `item // n_variants` are one family.
    """

    def __init__(self, n_items: int = 40, n_variants: int = 1) -> None:
        if n_items < 1:
            raise ValueError(f"n_items: expected at least 1, got {n_items}")
        self.n_variants = n_variants
        self.n_actions = n_items
        self.n_policy_inputs = 1
        self.n_features = 2
        self.max_steps = 1

    def initial_states(self, n: int) -> Tensor:
        return torch.zeros(n, 2, dtype=torch.int64)

    def forward_mask(self, states: Tensor) -> Tensor:
        return (states[:, 1:] == 0).expand(-1, self.n_actions).clone()

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return torch.stack([actions, torch.ones_like(actions)], dim=1)

    def is_terminal(self, states: Tensor) -> Tensor:
        return states[:, 1] == 1

    def backward_mask(self, states: Tensor) -> Tensor:
        items = torch.arange(self.n_actions)[None, :] == states[:, :1]
        return items & (states[:, 1:] == 1)

    def step_back(self, states: Tensor, actions: Tensor) -> Tensor:
        return torch.zeros_like(states)

    def policy_inputs(self, states: Tensor) -> Tensor:
        return states[:, 1:].float()

    def features(self, states: Tensor) -> Tensor:
        items = states[:, 0].double()
        return torch.stack([items / self.n_actions, (items * 0.6180339887) % 1.0], dim=1)

    def keys(self, states: Tensor) -> list[str]:
        return [f"item {i}" for i in states[:, 0].tolist()]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        items = [self._item(key) for key in keys]
        return torch.tensor([[i, 1] for i in items], dtype=torch.int64).reshape(len(items), 2)

    def _item(self, key: str) -> int:
        word, _, number = key.partition(" ")
        if word != "item" or not number.isdecimal() or int(number) >= self.n_actions:
            raise ValueError(f"key {key!r}: expected `item 0` to `item {self.n_actions - 1}`")
        return int(number)

    def decode(self, states: Tensor) -> list[Any]:
        return [int(i) for i in states[:, 0]]

    def encode(self, candidates: Sequence[Any]) -> Tensor:
        return self.from_keys([f"item {i}" for i in candidates])

    def families(self, states: Tensor) -> list[str]:
        return [f"family {i // self.n_variants}" for i in states[:, 0].tolist()]


class Price:
    """The price of a menu's item, at a fidelity that is `bias` off; what it does can be broken.

    `log`: a file that gets one line for each evaluation that began. The lists name items:
    `fails` raises, `refuses` answers NotRun, `dies` ends its own process, `kills` does so by
    SIGKILL, `hangs` never answers. `first_only` dies or hangs only the first time.
    """

    batch_size = 1

    def __init__(
        self,
        fidelity: str,
        cost: float,
        *,
        bias: float = 0.0,
        log: str = "",
        seconds: float = 0.0,
        fails: list[int] | None = None,
        refuses: list[int] | None = None,
        dies: list[int] | None = None,
        kills: list[int] | None = None,
        hangs: list[int] | None = None,
        first_only: bool = False,
        is_loud: bool = False,
        reads_input: bool = False,
        batch_size: int = 1,
    ) -> None:
        self.fidelity, self.cost, self.bias, self.log = fidelity, cost, bias, log
        self.seconds, self.batch_size = seconds, batch_size
        self.fails, self.refuses = fails or [], refuses or []
        self.dies, self.kills, self.hangs = dies or [], kills or [], hangs or []
        self.first_only, self.is_loud, self.reads_input = first_only, is_loud, reads_input

    def query(self, candidates: Sequence[Any]) -> list[Any]:
        if self.is_loud:
            print('["not", "a reply"]\n{garbage', flush=True)
            os.write(1, b"\xff\xfe more garbage\n")
        if self.reads_input:
            sys.stdin.read()
        return [self._answer(item) for item in candidates]

    def _answer(self, item: int) -> Any:
        is_first = self._note(item)
        time.sleep(self.seconds)
        if is_first or not self.first_only:
            self._break(item)
        if item in self.fails:
            return RuntimeError(f"item {item} went wrong")
        if item in self.refuses:
            return NotRun(f"item {item} cannot be asked")
        return price(item) + self.bias * math.cos(item)

    def _break(self, item: int) -> None:
        if item in self.dies:
            os._exit(7)
        if item in self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if item in self.hangs:
            time.sleep(600)

    def _note(self, item: int) -> bool:
        if not self.log:
            return True
        line, path = f"{self.fidelity} item {item}", Path(self.log)
        is_first = not path.exists() or line not in path.read_text().splitlines()
        with path.open("a") as file:  # one short write: whole also among several processes
            file.write(line + "\n")
        return is_first


def price(item: int) -> float:
    """What an item costs, exactly."""
    return math.sin(0.7 * item) + 0.01 * item


class Smooth(Surrogate):
    """A Gaussian process with nothing to fit: one lengthscale, the same at every fidelity."""

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        self.n_fidelities, self._x, self._mean = n_fidelities, features, values.mean()
        kernel = self._kernel(features, features)
        kernel += (1e-4 + 0.1 * (fidelities < n_fidelities - 1).double()).diag()
        self._inverse = torch.linalg.inv(kernel)
        self._weights = self._inverse @ (values - self._mean)

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-0.5 * torch.cdist(a, b).square() / 0.04)

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        mean = self._mean + self._kernel(features, self._x) @ self._weights
        return mean, self._posterior(features, features).diagonal().clamp(min=1e-9).sqrt()

    def _posterior(self, a: Tensor, b: Tensor) -> Tensor:
        cross = self._kernel(a, self._x) @ self._inverse @ self._kernel(self._x, b)
        return self._kernel(a, b) - cross

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        return self._posterior(features_a, features_b)

    def fidelity_covariance(self, features: Tensor) -> Tensor:
        variance = self._posterior(features, features).diagonal().clamp(min=1e-9)
        return variance[:, None, None].expand(-1, self.n_fidelities, self.n_fidelities).clone()

    def noise_variance(self) -> Tensor:
        return torch.tensor([0.1] * (self.n_fidelities - 1) + [1e-4], dtype=torch.float64)

    def summary(self) -> dict[str, Any]:
        return {"kernel": "fixed"}


class Optimist(Acquisition):
    """Log of the softened distance above the best, the same at each fidelity."""

    def __init__(self, *, width: float = 1.0) -> None:
        self.width = width

    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        """Nothing to learn."""

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        above = (mean + self.width * sd - self._best).clamp(min=-50.0)
        gain = torch.nn.functional.softplus(above).log()
        return gain[:, None].expand(-1, log_rho2.shape[1]).clone()


class Killed(BaseException):
    """The end of the process, as far as a test can play it."""


class KillAt(Progress):
    """Raises at the k-th thing that a campaign tells; `told` counts them all."""

    def __init__(self, k: int | None = None) -> None:
        self.k = k
        self.told = 0

    def _tell(self) -> None:
        self.told += 1
        if self.told == self.k:
            raise Killed(f"at {self.k}")

    def round(self, number: int, rounds: int) -> None:
        self._tell()

    def verb(self, name: str) -> None:
        self._tell()

    def step(self, step: int, loss: float) -> None:
        self._tell()

    def queries(self, n: int) -> None:
        self._tell()

    def answered(self) -> None:
        self._tell()

    def recorded(self, number: int) -> None:
        self._tell()


def menu_config(module: str = "tests.fakes", **changes: Any) -> dict[str, Any]:
    """A campaign over a menu with only stand-ins, which runs in milliseconds."""
    config = {
        "name": "menu",
        "seed": 0,
        "space": {"kind": f"{module}:Menu", "n_items": 40},
        "objective": {"property": "value", "goal": "minimize"},
        "oracles": [
            {"kind": f"{module}:Price", "fidelity": "low", "cost": 0.1, "bias": 0.2},
            {"kind": f"{module}:Price", "fidelity": "target", "cost": 1},
        ],
        "initial": {"n": {"low": 6, "target": 2}},
        "surrogate": {"kind": f"{module}:Smooth"},
        "acquisition": {"kind": f"{module}:Optimist"},
        "sampler": {"kind": "gflownet", "n_steps": 3, "batch_size": 8, "hidden": [16]},
        "selection": {"batch_size": 4, "n_proposals": 50},
        "budget": {"cost": 9, "rounds": 3},
        "tracking": {"kind": "none"},
    }
    return merged(config, changes)


def branin_config(**changes: Any) -> dict[str, Any]:
    """A small campaign of real parts."""
    config = {
        "name": "small",
        "seed": 0,
        "space": {
            "kind": "hyper_grid",
            "n_dims": 2,
            "length": 10,
            "bounds": [[-5, 10], [0, 15]],
        },
        "objective": {"property": "value", "goal": "minimize"},
        "oracles": [
            {"kind": "branin", "fidelity": "low", "bias": 0.5, "cost": 0.1},
            {"kind": "branin", "fidelity": "target", "cost": 1},
        ],
        "initial": {"n": {"low": 6, "target": 2}},
        "surrogate": {"kind": "auto", "n_starts": 1, "max_iterations": 10},
        "sampler": {"kind": "gflownet", "n_steps": 5, "batch_size": 8, "hidden": [16]},
        "selection": {"batch_size": 4, "n_proposals": 50},
        "budget": {"cost": 8, "rounds": 2},
        "tracking": {"kind": "none"},
    }
    return merged(config, changes)


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `config` with top-level `changes`; one that is None takes the key away."""
    result = copy.deepcopy({**config, **changes})
    return {key: value for key, value in result.items() if value is not None}


def comparable(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a ledger without its times, NaN as None: equal for equal campaigns."""
    kept = frame.drop(columns=TIMES).astype(object)
    rows: list[dict[str, Any]] = kept.where(kept.notna(), None).to_dict("records")
    return rows


def a_query(key: str, cost: float = 1.0, **changes: Any) -> Query:
    """A query with every field filled in."""
    fields: dict[str, Any] = {
        "round": 0,
        "candidate": f"candidate {key}",
        "fidelity": "target",
        "oracle": "fake",
        "family": f"family {key}",
        "description": {"formula": "Fe₂O₃"},
        "reason": {"why": "test"},
    }
    return Query(key=key, cost=cost, **(fields | changes))

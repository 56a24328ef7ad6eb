"""The parts of the crystal benchmark: each measures one thing and returns what JSON can hold."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.crystal_labels import label_all, label_sampled, labelled, read_labels
from benchmarks.crystal_proxy import EnergyProxy, errors
from benchmarks.crystal_rewards import (
    ALONE,
    Goal,
    density_goal,
    energy_goal,
    gap_goal,
)
from benchmarks.crystal_spaces import dense_space, density, whole_space
from benchmarks.crystal_training import BATCH, HIDDEN, SAMPLERS, new_sampler, trained
from sampler import GFlowNet
from sampler.environments.crystal import Crystal

Result = dict[str, Any]
_TEST_SHARE = 5
_PROXY = SAMPLERS / "proxy.pt"
_N_FROM_SAMPLER = 400
_N_ROUNDS = 3


@dataclass(frozen=True)
class Sizes:
    """How much is measured: the full benchmark, or a look at whether everything runs."""

    seeds: range
    n_samples: int = 10_000
    n_random_labels: int = 3000
    n_steps: int = 4000
    n_first_steps: int = 1000
    n_guessed: int = 2000

    def goal(self, name: str) -> Goal:
        """The goal of this name; with "_alone" at its end, for R alone."""
        space = dense_space("uniform" if name.endswith(ALONE) else "per_group")
        base = name.removesuffix(ALONE)
        if base == "formation_energy":
            goal = energy_goal(space, fitted_proxy())
        else:
            goal = {"density": density_goal, "band_gap": gap_goal}[base](space)
        return replace(goal, name=name)


def _half_density(space: Crystal, states: Tensor) -> Tensor:
    return 0.5 * density(space, states).clamp(max=20.0)


def speed(sizes: Sizes) -> Result:
    """Trajectories per CPU-second in training with the density reward, batch 100, 3 × 256."""
    answer: Result = {}
    for name, space in (("any volume", whole_space()), ("volume_per_atom", dense_space())):
        rates = []
        for seed in sizes.seeds:
            net = GFlowNet(space, seed=seed, hidden=HIDDEN)
            log_reward = partial(_half_density, space)
            net.train(log_reward, 10, BATCH)
            began = time.process_time()
            net.train(log_reward, 100, BATCH)
            rates.append(100 * BATCH / (time.process_time() - began))
        answer[name] = rates
    return answer


def proxy(sizes: Sizes) -> Result:
    """Label crystals and fit the proxy; then label what a sampler finds with it, and fit again.

    Held out: a fifth of the random, decorated and sampled crystals, and all known ones.
    """
    label_all(dense_space(), sizes.n_random_labels)
    rounds = [fit_proxy(["random", "decorated"])]
    for i in range(_N_ROUNDS):
        goal = sizes.goal("formation_energy")
        net = new_sampler(goal, 100 + i, sizes.n_first_steps)
        net.train(goal.target, sizes.n_first_steps, BATCH)
        drawn = net.sample(_N_FROM_SAMPLER, seed=i)
        label_sampled(dense_space(), "sampled", drawn, read_labels())
        rounds.append(fit_proxy(["random", "decorated", "sampled"]))
        fitted_proxy.cache_clear()
    answer: Result = {"rounds": rounds}
    labels = read_labels()
    answer["labels"] = {
        source: {
            "n": len(rows),
            "failed": sum(row["energy"] is None for row in rows.values()),
            "cpu_s": sum(row["cpu_s"] for row in rows.values()),
        }
        for source, rows in labels.items()
    }
    return answer


def fit_proxy(sources: list[str]) -> Result:
    """Fit to four fifths of the labels, keep the weights, and tell the errors on the rest."""
    began = time.process_time()
    space, labels = dense_space(), read_labels()
    test, rows, weights = {}, [], []
    for source in sources:
        states, energies = labelled(space, labels, source)
        is_test = torch.arange(len(states)) % _TEST_SHARE == 0
        test[source] = states[is_test], energies[is_test]
        rows.append((states[~is_test], energies[~is_test]))
        # Real structures are few beside random ones, and closest to what is looked for.
        weights.append(torch.full((int((~is_test).sum()),), 6.0 if source == "decorated" else 1.0))
    model = EnergyProxy(space)
    states, energies = (torch.cat(parts) for parts in zip(*rows, strict=True))
    model.fit(states, energies, torch.cat(weights))
    SAMPLERS.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), _PROXY)
    test["known"] = labelled(space, labels, "known")
    answer: Result = {source: errors(model, *rows) for source, rows in test.items()}
    return {**answer, "n_train": len(states), "cpu_s": time.process_time() - began}


@cache
def fitted_proxy() -> EnergyProxy:
    """The proxy as it was fitted last."""
    if not _PROXY.exists():
        raise FileNotFoundError(f"{_PROXY}: run with --only proxy first")
    model = EnergyProxy(dense_space())
    model.load_state_dict(torch.load(_PROXY, weights_only=True))
    return model.eval()


def train(name: str, sizes: Sizes) -> Result:
    """Train samplers to a goal, and correlate log p with log R over held-out crystals.

    One that was trained before, with as many steps, is not trained again.
    """
    return {"runs": [trained(sizes.goal(name), seed, sizes.n_steps) for seed in sizes.seeds]}

"""Training to a stable loss, and how well log p(x) follows log R(x) then."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from benchmarks.crystal_known import decorated_crystals, known_crystals
from benchmarks.crystal_rewards import Goal
from sampler import GFlowNet
from sampler.baselines import Random

SAMPLERS = Path(__file__).parent / "results" / "crystal_samplers"
HIDDEN = (256, 256, 256)
BATCH = 100
_N_STAGES = 10
_N_HELD_OUT = 300


def new_sampler(goal: Goal, seed: int, n_steps: int) -> GFlowNet:
    """An untrained sampler whose learning rate and exploration fall over 4/5 of `n_steps`.

    The last fifth runs at a hundredth of the rate and without exploration: there the loss can show
    that it is stable.
    """
    return GFlowNet(
        goal.space,
        seed=seed,
        hidden=HIDDEN,
        learning_rate=3e-3,
        schedule="cosine",
        schedule_steps=max(1, n_steps * 4 // 5),
        exploration=0.05,
    )


def trained(goal: Goal, seed: int, n_steps: int) -> dict[str, Any]:
    """What `train` says, from the file that it left if it trained the same sampler before."""
    path = sampler_path(goal.name, seed).with_suffix(".json")
    if path.exists():
        told: dict[str, Any] = json.loads(path.read_text())
        if told["n_trajectories"] == n_steps * BATCH:
            return told
    net, told = train(goal, seed, n_steps)
    told["log_p"] = correlations(goal, net, held_out(goal, net))
    path.write_text(json.dumps(told))
    return told


def train(goal: Goal, seed: int, n_steps: int) -> tuple[GFlowNet, dict[str, Any]]:
    """Train in ten stages; time is that of training alone, the correlation is measured between.

    Stable: over the last tenth of the steps the mean loss is within 5 % of that of the tenth
    before, and Spearman's correlation of log p with log R has not risen by more than 0.01 since.
    """
    net = new_sampler(goal, seed, n_steps)
    losses: list[float] = []
    found, cpu_s, wall_s = [], 0.0, 0.0
    for _ in range(_N_STAGES):
        cpu, wall = time.process_time(), time.perf_counter()
        losses += net.train(goal.target, n_steps // _N_STAGES, BATCH)
        cpu_s += time.process_time() - cpu
        wall_s += time.perf_counter() - wall
        mixed = torch.cat([net.sample(_N_HELD_OUT, seed=1),
                           Random(goal.space).sample(_N_HELD_OUT, seed=2)])  # fmt: skip
        found.append(_correlation(net.log_prob(mixed), goal.target(mixed))["spearman"])
        print(f"  {goal.name}, seed {seed}: {len(losses)} steps, {cpu_s:.0f} CPU-s, loss "
              f"{_mean(losses[-n_steps // _N_STAGES :]):.3f}, Spearman {found[-1]:.3f}",
              flush=True)  # fmt: skip
    SAMPLERS.mkdir(parents=True, exist_ok=True)
    net.save(sampler_path(goal.name, seed))
    tenths = [_mean(part) for part in _parts(losses, _N_STAGES)]
    return net, {
        "seed": seed,
        "n_trajectories": n_steps * BATCH,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "losses": [_mean(part) for part in _parts(losses, 100)],
        "correlations": found,
        "is_stable": abs(tenths[-1] / tenths[-2] - 1) <= 0.05 and found[-1] - found[-2] <= 0.01,
        "stable_from_share": settled_from(losses),
        "log_z": net.log_z,
    }


def load(goal: Goal, seed: int, n_steps: int) -> GFlowNet:
    """The sampler that `train` saved; FileNotFoundError says to train it first."""
    path = sampler_path(goal.name, seed)
    if not path.exists():
        raise FileNotFoundError(f"{path}: run with --only {goal.name} first")
    net = new_sampler(goal, seed, n_steps)
    net.load(path)
    return net


def sampler_path(name: str, seed: int) -> Path:
    """Where a trained sampler is kept."""
    return SAMPLERS / f"{name}_{seed}.pt"


def settled_from(losses: list[float]) -> float:
    """Share of the steps after which the mean of 2 % of them stays within 25 % of the end's."""
    means = [_mean(part) for part in _parts(losses, 50)]
    outside = [i for i, mean in enumerate(means) if abs(mean / means[-1] - 1) > 0.25]
    return (outside[-1] + 1) / len(means) if outside else 0.0


def held_out(goal: Goal, net: GFlowNet) -> dict[str, Tensor]:
    """States that no trajectory of training has seen: drawn, random, known and decorated ones."""
    space = goal.space
    return {
        "samples": net.sample(500, seed=11),
        "random": Random(space).sample(500, seed=12),
        "known": space.from_keys(known_crystals(space)[1] + decorated_crystals(space)[1]),
    }


def correlations(goal: Goal, net: GFlowNet, held_out: dict[str, Tensor]) -> dict[str, Any]:
    """Of log p(x) with what was trained on and with log R(x) alone, over each set and all."""
    columns = {
        name: torch.stack([net.log_prob(states), goal.target(states), goal.log_reward(states)])
        for name, states in held_out.items()
    }
    columns["all"] = torch.cat(list(columns.values()), dim=1)
    return {
        name: {
            "n": rows.shape[1],
            "target": _correlation(rows[0], rows[1]),
            "reward": _correlation(rows[0], rows[2]),
        }
        for name, rows in columns.items()
    }


def _correlation(log_p: Tensor, log_reward: Tensor) -> dict[str, float]:
    return {
        "pearson": float(stats.pearsonr(log_p, log_reward)[0]),
        "spearman": float(stats.spearmanr(log_p, log_reward)[0]),
    }


def _parts(values: list[float], n: int) -> list[list[float]]:
    """N nearly equal parts in order, none empty."""
    n = min(n, len(values))
    edges = [len(values) * i // n for i in range(n + 1)]
    return [values[a:b] for a, b in itertools.pairwise(edges)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

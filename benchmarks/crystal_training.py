"""Training to a stable loss, and how well log p(x) follows log R(x) then."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.crystal_rewards import Goal
from sampler import GFlowNet
from sampler.baselines import Random
from sampler.evaluation import reward_correlation

SAMPLERS = Path(__file__).parent / "results" / "crystal_samplers"
HIDDEN = (256, 256, 256)
BATCH = 100
_N_STAGES = 10
_N_HELD_OUT = 300
_N_BACKWARD = 16
"""Backward trajectories a state: two at most differ, by which class of the space group came first.
"""


def new_sampler(goal: Goal, seed: int, n_steps: int) -> GFlowNet:
    """An untrained sampler whose learning rate and exploration fall over 4/5 of `n_steps`.

    The last fifth runs at a hundredth of the rate and without exploration: there the loss can show
    that it is stable.
    """
    return GFlowNet(
        goal.space,
        seed=seed,
        hidden=HIDDEN,
        learning_rate=1e-3,
        schedule="cosine",
        schedule_steps=max(1, n_steps * 4 // 5),
        exploration=0.05,
    )


def train(goal: Goal, seed: int, n_steps: int) -> tuple[GFlowNet, dict[str, Any]]:
    """Train in ten stages; time is that of training alone, the correlation is measured between.

    Stable: over the last tenth of the steps the mean loss is within 5 % of that of the tenth
    before, and Spearman's correlation of log p with log R has not risen by more than 0.01 since.
    """
    net = new_sampler(goal, seed, n_steps)
    losses: list[float] = []
    correlations, cpu_s, wall_s = [], 0.0, 0.0
    for _ in range(_N_STAGES):
        cpu, wall = time.process_time(), time.perf_counter()
        losses += net.train(goal.target, n_steps // _N_STAGES, BATCH)
        cpu_s += time.process_time() - cpu
        wall_s += time.perf_counter() - wall
        mixed = torch.cat([net.sample(_N_HELD_OUT, seed=1),
                           Random(goal.space).sample(_N_HELD_OUT, seed=2)])  # fmt: skip
        correlations.append(reward_correlation(net, mixed, goal.target, _N_BACKWARD).spearman)
        print(f"  {goal.name}, seed {seed}: {len(losses)} steps, {wall_s:.0f} s, loss "
              f"{_mean(losses[-n_steps // _N_STAGES :]):.3f}, Spearman {correlations[-1]:.3f}",
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
        "correlations": correlations,
        "is_stable": abs(tenths[-1] / tenths[-2] - 1) <= 0.05
        and correlations[-1] - correlations[-2] <= 0.01,
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


def correlations(goal: Goal, net: GFlowNet, held_out: dict[str, Tensor]) -> dict[str, Any]:
    """Of log p(x) with what was trained on and with log R(x) alone, over each set and all.

    Sets of equal rewards or of fewer than three states have none.
    """
    sets = {**held_out, "all": torch.cat(list(held_out.values()))}
    answer: dict[str, Any] = {}
    for name, states in sets.items():
        answer[name] = {"n": len(states)}
        for what, log_reward in (("target", goal.target), ("reward", goal.log_reward)):
            found = reward_correlation(net, states, log_reward, _N_BACKWARD)
            answer[name][what] = found._asdict()
    return answer


def _parts(values: list[float], n: int) -> list[list[float]]:
    """N nearly equal parts in order, none empty."""
    n = min(n, len(values))
    edges = [len(values) * i // n for i in range(n + 1)]
    return [values[a:b] for a, b in itertools.pairwise(edges)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

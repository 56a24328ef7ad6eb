"""What the trained samplers of the crystal benchmark are worth: validity, comparison, `where=`."""

from __future__ import annotations

import time
import warnings
from typing import Any

import torch
from torch import Tensor

from benchmarks.crystal_known import decorated_crystals, known_crystals
from benchmarks.crystal_labels import label_sampled, labelled, read_labels
from benchmarks.crystal_parts import Result, Sizes, fitted_proxy
from benchmarks.crystal_rewards import GAP, GAP_WIDTH, Goal, band_gap
from benchmarks.crystal_spaces import dense_space
from benchmarks.crystal_training import SAMPLERS, load
from benchmarks.crystal_validity import best, check, kinds, obeys, read
from sampler import GFlowNet
from sampler.baselines import Random
from sampler.evaluation import reward_correlation

RESTRICTIONS: dict[str, dict[str, Any]] = {
    "A": {"elements": ["Fe", "O"], "n_atoms_per_element": 10},
    "B": {"elements": ["Li", "Mn", "O"], "n_atoms_per_element": 16},
    "C": {"lattice_system": "cubic"},
    "D": {"lengths": [10, 20], "angles": [75, 135]},
}
LIMITS = {"element": 60, "space_group": 6, "crystal_lattice_system": 16}
"""The diversity rule of the top 100."""
_N_TRIES = 16


def validity(sizes: Sizes) -> Result:
    """What 10,000 samples of each sampler are, and its top 100 with and without diversity."""
    answer: Result = {}
    for name in ("density", "formation_energy", "band_gap"):
        goal = sizes.goal(name)
        if not (SAMPLERS / f"{name}_{sizes.seeds[0]}.pt").exists():
            continue
        began = time.process_time()
        states = load(goal, sizes.seeds[0], sizes.n_steps).sample(sizes.n_samples, seed=21)
        seconds = time.process_time() - began
        # An eighth of a second each, so of one sampler only.
        n_guessed = sizes.n_guessed if name == "formation_energy" else sizes.n_guessed // 20
        told = check(goal.space, states, n_guessed)
        crystals = [read(key) for key in goal.space.keys(states)]
        rewards, values = goal.log_reward(states), goal.value(states)
        random = Random(goal.space).sample(sizes.n_samples, seed=22)
        told["top"] = {}
        for rule, limits in (("plain", {}), ("diverse", LIMITS)):
            rows = best(rewards, crystals, 100, limits)
            told["top"][rule] = {
                "mean_value": float(values[rows].mean()),
                "mean_log_reward": float(rewards[rows].mean()),
                **kinds([crystals[row] for row in rows]),
            }
        told["mean_value"] = float(values.mean())
        told["mean_value_random"] = float(goal.value(random).mean())
        told["top_random"] = float(goal.log_reward(random).topk(100).values.mean())
        answer[name] = {**told, "sample_cpu_s": seconds}
    return answer


def comparison(sizes: Sizes) -> Result:
    """Predicted formation energies and band gaps: samples, known, decorated and random crystals."""
    goals = {name: sizes.goal(name) for name in ("formation_energy", "band_gap")}
    space = dense_space()
    sets = {
        f"{name} sampler": load(goal, sizes.seeds[0], sizes.n_steps).sample(2000, seed=31)
        for name, goal in goals.items()
    }
    sets["random"] = Random(space).sample(2000, seed=32)
    sets["known"] = space.from_keys(known_crystals(space)[1])
    sets["decorated"] = space.from_keys(decorated_crystals(space)[1])
    answer: Result = {}
    for name, states in sets.items():
        energy, gap = goals["formation_energy"].value(states), band_gap(space, states)
        answer[name] = {
            "energy": [round(x, 4) for x in energy.tolist()],
            "gap": [round(x, 4) for x in gap.tolist()],
            "share_near_gap": float(((gap - GAP).abs() <= 2 * GAP_WIDTH).double().mean()),
        }
    known = labelled(space, read_labels(), "known")[1]
    return {
        "sets": answer,
        "chgnet": chgnet_says(sets["formation_energy sampler"][:200]),
        "chgnet_known": known[known.isfinite()].tolist(),
    }


def chgnet_says(states: Tensor) -> Result:
    """What CHGNet says of a sampler's crystals in their own placement, beside the proxy."""
    space = dense_space()
    label_sampled(space, "checked", states, read_labels())
    labels = read_labels()["checked"]
    keys = space.keys(states)
    told = [labels[key]["energy"] for key in keys]
    rows = torch.tensor([energy is not None for energy in told])
    predicted = fitted_proxy()(states[rows])
    return {
        "n": len(told),
        "failed": int((~rows).sum()),
        "chgnet": [energy for energy in told if energy is not None],
        "proxy": predicted.tolist(),
    }


def where(sizes: Sizes) -> Result:
    """Restrictions A to D on one trained sampler of low formation energies."""
    goal = sizes.goal("formation_energy")
    net = load(goal, sizes.seeds[0], sizes.n_steps)
    return {name: _restricted(goal, net, wish, sizes) for name, wish in RESTRICTIONS.items()}


def _restricted(goal: Goal, net: GFlowNet, wish: dict[str, Any], sizes: Sizes) -> Result:
    began = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        n_each = min(1000, sizes.n_samples)
        parts = [net.sample(n_each, seed=40 + i, where=wish, n_tries=_N_TRIES)
                 for i in range(sizes.n_samples // n_each)]  # fmt: skip
    seconds = time.process_time() - began
    states = torch.cat(parts)
    random = Random(goal.space).sample(sizes.n_samples, seed=50, where=wish)
    keys = goal.space.keys(states)
    mixed = torch.cat([states[:300], random[:300]])
    found = reward_correlation(net, mixed, goal.target, 16)
    own = reward_correlation(net, states[:500], goal.target, 16)
    return {
        "where": wish,
        "n": len(states),
        "obey": sum(obeys(read(key), wish) for key in keys) / len(keys),
        "unique": len(set(keys)) / len(keys),
        "warnings": sorted({str(each.message) for each in caught}),
        "cpu_s": seconds,
        "value": [round(x, 4) for x in goal.value(states[:2000]).tolist()],
        "value_random": [round(x, 4) for x in goal.value(random[:2000]).tolist()],
        "log_p_mixed": found._asdict(),
        "log_p_samples": own._asdict(),
        **kinds([read(key) for key in keys]),
    }

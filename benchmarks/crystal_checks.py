"""What the trained samplers of the crystal benchmark are worth: validity, comparison, `where=`."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import torch
from torch import Tensor

from benchmarks.crystal_known import decorated_crystals, known_crystals
from benchmarks.crystal_labels import label_sampled, labelled, read_labels
from benchmarks.crystal_parts import Result, Sizes, fitted_proxy
from benchmarks.crystal_rewards import ALONE, GAP, GAP_WIDTH, Goal, band_gap
from benchmarks.crystal_spaces import dense_space
from benchmarks.crystal_top import diverse_best, plain_best
from benchmarks.crystal_training import load, trained
from benchmarks.crystal_validity import Read, check, kinds, obeys, read
from sampler import GFlowNet
from sampler.baselines import Random
from sampler.collection import forward_outputs
from sampler.evaluation import reward_correlation
from sampler.restricted_sampling import effective_size, log_weights
from sampler.rollout import Behaviour, roll_out

RESTRICTIONS: dict[str, dict[str, Any]] = {
    "A": {"elements": ["Fe", "O"], "n_atoms_per_element": 10},
    "B": {"elements": ["Li", "Mn", "O"], "n_atoms_per_element": 16},
    "C": {"lattice_system": "cubic"},
    "D": {"lengths": [10, 20], "angles": [75, 135]},
}
N_TOP = 100
_N_TRIES = 16


def validity(sizes: Sizes) -> Result:
    """What 10,000 samples of each sampler are, and its top 100: plain, and of enough kinds."""
    names = ("density", "formation_energy", "band_gap")
    return {
        name: {"runs": [_validity(name, seed, sizes) for seed in sizes.seeds]} for name in names
    }


def diversity(sizes: Sizes) -> Result:
    """Samplers trained on R alone, without the measure, and the plain top 100 of their samples."""
    answer: Result = {}
    for name in ("formation_energy", "density", "band_gap"):
        goal = sizes.goal(name + ALONE)
        answer[name] = {"runs": []}
        for seed in sizes.seeds:
            told = trained(goal, seed, sizes.n_steps)
            states = load(goal, seed, sizes.n_steps).sample(sizes.n_samples, seed=21)
            crystals = [read(key) for key in goal.space.keys(states)]
            answer[name]["runs"].append(
                {
                    **told,
                    "samples": kinds(crystals),
                    "mean_value": float(goal.value(states).mean()),
                    "top": tops(goal, states, crystals),
                }
            )
    return answer


def _validity(name: str, seed: int, sizes: Sizes) -> Result:
    goal, began = sizes.goal(name), time.process_time()
    states = load(goal, seed, sizes.n_steps).sample(sizes.n_samples, seed=21)
    seconds = time.process_time() - began
    # An eighth of a second each, so of one sampler only.
    is_first = name == "formation_energy" and seed == sizes.seeds[0]
    told = check(goal.space, states, sizes.n_guessed if is_first else sizes.n_guessed // 20)
    random = Random(goal.space).sample(sizes.n_samples, seed=22)
    return {
        **told,
        "seed": seed,
        "top": tops(goal, states, [read(key) for key in goal.space.keys(states)]),
        "mean_value": float(goal.value(states).mean()),
        "mean_value_random": float(goal.value(random).mean()),
        "top_random": float(goal.log_reward(random).topk(100).values.mean()),
        "sample_cpu_s": seconds,
    }


def tops(goal: Goal, states: Tensor, crystals: list[Read]) -> Result:
    """The plain top 100 and that of enough kinds, where there is one: mean value, reward, kinds."""
    rewards, values = goal.log_reward(states), goal.value(states)
    chosen = {"plain": plain_best(rewards.numpy(), N_TOP)}
    try:
        chosen["diverse"] = diverse_best(rewards.numpy(), crystals, N_TOP)
    except ValueError as reason:  # R alone may find too few kinds: that is an answer too
        print(f"  {goal.name}: no diverse top {N_TOP}: {reason}", file=sys.stderr)
    return {
        rule: {
            "mean_value": float(values[rows].mean()),
            "mean_log_reward": float(rewards[rows].mean()),
            **kinds([crystals[row] for row in rows]),
        }
        for rule, rows in chosen.items()
    }


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
        "effective_share": effective_share(goal, net, wish),
        **kinds([read(key) for key in keys]),
    }


def effective_share(goal: Goal, net: GFlowNet, wish: dict[str, Any], n: int = 2000) -> float:
    """Effective sample size of n trajectories drawn under the masks of `wish`, over n.

    Of so many tries a sample under `wish` costs, before it follows the trained distribution.
    """
    restricted = goal.space.restricted(wish)
    outputs = forward_outputs(goal.space, net.policy, None)
    behaviour = Behaviour(net.policy.forward_logits, net.policy.amount_outputs)
    told: list[Tensor] = []

    def recording(states: Tensor, rows: Tensor) -> Tensor:
        told.append(outputs(states, rows))
        return told[-1]

    with torch.no_grad():
        generator = torch.Generator().manual_seed(60)
        drawn = roll_out(restricted, recording, n, generator, behaviour)
        weights = log_weights(goal.space, restricted, drawn, torch.cat(told), behaviour)
    return effective_size(weights) / n

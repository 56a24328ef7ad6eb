"""The races: what is raced over, for how much, and what is known about each.

A campaign of a race is a function of the seed and of a folder for the data that it needs; all that
it leaves out is default. The same defaults run every race.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.campaigns_data import ehrlich_start, hartmann_known, tfbind8

Config = dict[str, Any]
Make = Callable[[int, Path], Config]

# Every method there is, in the order of the tables.
LADDER_METHODS = (
    "ours",
    "single_fidelity",
    "random_fidelity",
    "cheapest",
    "random",
    "genetic",
    "sampler_random",
    "sampler_genetic",
    "sampler_mcmc",
)
ONE_ORACLE_METHODS = (
    "ours",
    "random",
    "genetic",
    "sampler_random",
    "sampler_genetic",
    "sampler_mcmc",
)


@dataclass(frozen=True)
class Race:
    """One race: `make(seed, folder)` is its campaign, without name, seed and tracking.

    `k`: how many of the best count. `ceiling`: their mean in the best case, where it is known;
    `optimum`: the best value there is.
    `methods`: who runs in it unless `--methods` says otherwise. `known`: what others reached.
    """

    make: Make
    k: int
    methods: tuple[str, ...]
    ceiling: float | None = None
    optimum: float | None = None
    known: str = ""


def _grid(n_dims: int, length: int, bounds: Sequence[Sequence[float]]) -> Config:
    return {"kind": "hyper_grid", "n_dims": n_dims, "length": length, "bounds": list(bounds)}


def branin(seed: int, folder: Path) -> Config:
    """Fidelities s = 0.5, 0.75 and 1 of BoTorch's AugmentedBranin, as in arXiv 2306.11715."""
    return {
        "space": _grid(2, 100, [[-5.0, 10.0], [0.0, 15.0]]),
        "objective": {"goal": "minimize"},
        "oracles": [
            {"kind": "branin", "fidelity": "low", "bias": 0.5, "cost": 0.01},
            {"kind": "branin", "fidelity": "middle", "bias": 0.25, "cost": 0.1},
            {"kind": "branin", "fidelity": "target", "cost": 1.0},
        ],
        "initial": {"n": {"low": 20, "middle": 20, "target": 2}},
        "selection": {"batch_size": 30, "top_k": 50},
        "budget": {"cost": 300.0, "rounds": 30},
    }


def hartmann(seed: int, folder: Path) -> Config:
    """Fidelities s = 0.125, 0.25 and 1 at a cost of s; our start costs 4, none is published."""
    return {
        "space": _grid(6, 10, [[0.0, 0.9]] * 6),
        "objective": {"goal": "maximize"},
        "oracles": [
            {"kind": "hartmann", "fidelity": "low", "bias": 0.875, "cost": 0.125},
            {"kind": "hartmann", "fidelity": "middle", "bias": 0.75, "cost": 0.25},
            {"kind": "hartmann", "fidelity": "target", "cost": 1.0},
        ],
        "initial": {"n": {"low": 8, "middle": 4, "target": 2}},
        "selection": {"batch_size": 10, "top_k": 10},
        "budget": {"cost": 100.0, "rounds": 30},
    }


def tfbind8_race(rounds: int, seed: int, folder: Path) -> Config:
    """Batches of 128 DNA words of 8 letters; the lower half of all words is known."""
    table, lower_half = tfbind8(folder)
    return {
        "space": {"kind": "sequence", "alphabet": "dna", "min_length": 8, "max_length": 8},
        "objective": {"goal": "maximize"},
        "oracles": [{"kind": "tabulated", "fidelity": "target", "cost": 1.0, "file": str(table)}],
        "initial": {"file": str(lower_half)},
        "selection": {"batch_size": 128, "top_k": 128},
        "budget": {"cost": 128.0 * rounds, "rounds": rounds},
    }


def ehrlich(length: int, seed: int, folder: Path) -> Config:
    """40 rounds of 128; each seed is another function, and starts from 128 feasible sequences."""
    options = {
        "length": length,
        "n_motifs": 2,
        "motif_length": 4,
        "quantization": 4,
        "random_seed": seed,
    }
    start = ehrlich_start(folder, options)
    return {
        "space": {
            "kind": "sequence",
            "alphabet": "peptide",
            "min_length": length,
            "max_length": length,
        },
        "objective": {"goal": "maximize"},
        "oracles": [{"kind": "ehrlich", "fidelity": "target", "cost": 1.0, **options}],
        "initial": {"file": str(start)},
        "selection": {"batch_size": 128, "top_k": 10},
        "budget": {"cost": 128.0 * 40, "rounds": 40},
    }


SWEPT: dict[str, Config] = {
    "branin": {
        "space": _grid(2, 100, [[-5.0, 10.0], [0.0, 15.0]]),
        "objective": {"goal": "minimize"},
    },
    "park": {"space": _grid(4, 10, [[0.0, 1.0]] * 4), "objective": {"goal": "maximize"}},
}
RATIOS = (0.05, 0.1, 0.2, 0.5)
R2 = (1.0, 0.95, 0.8, 0.5, 0.0)


def sweep(function: str, ratio: float, r2: float, seed: int, folder: Path) -> Config:
    """One cheap oracle at `ratio` of the target's cost that explains `r2` of its variance."""
    return SWEPT[function] | {
        "oracles": [
            {"kind": function, "fidelity": "low", "r2": r2, "cost": ratio},
            {"kind": function, "fidelity": "target", "cost": 1.0},
        ],
        "initial": {"n": {"low": 10, "target": 4}},
        "selection": {"batch_size": 8, "top_k": 10},
        "budget": {"cost": 40.0, "rounds": 8},
    }


def known_points(n: int, seed: int, folder: Path) -> Config:
    """One round in 6-D when n values at the target are known: how long it takes, nothing else."""
    return hartmann(seed, folder) | {
        "initial": {"file": str(hartmann_known(folder, n, seed))},
        "budget": {"cost": 10.0, "rounds": 1},
    }


def _sweeps() -> dict[str, Race]:
    return {
        f"sweep_{function}_c{ratio:g}_r{r2:g}": Race(
            partial(sweep, function, ratio, r2), 10, ("ours", "single_fidelity")
        )
        for function in SWEPT
        for ratio in RATIOS
        for r2 in R2
    }


RACES: dict[str, Race] = {
    "branin": Race(
        branin,
        50,
        LADDER_METHODS,
        0.5304,
        0.40307,
        "MF-GFN (arXiv 2306.11715): the single-fidelity loop's end at 17–21 % of its cost",
    ),
    "hartmann": Race(
        hartmann,
        10,
        LADDER_METHODS,
        3.1674,
        3.22163,
        "MF-GFN (arXiv 2306.11715): the single-fidelity loop's end at 7–15 % of its cost",
    ),
    "tfbind8_1": Race(
        partial(tfbind8_race, 1),
        128,
        ONE_ORACLE_METHODS,
        0.9813,
        1.0,
        "GFN-AL (arXiv 2203.04115) about 0.84; mean of all words 0.464",
    ),
    "tfbind8_10": Race(
        partial(tfbind8_race, 10),
        128,
        ONE_ORACLE_METHODS,
        0.9813,
        1.0,
        "1280 random words: 0.814",
    ),
    "ehrlich_15": Race(partial(ehrlich, 15), 10, ONE_ORACLE_METHODS, 1.0, 1.0),
    "ehrlich_32": Race(partial(ehrlich, 32), 10, ONE_ORACLE_METHODS, 1.0, 1.0),
    **_sweeps(),
    **{
        f"time_{n}": Race(partial(known_points, n), 10, ("ours",))
        for n in (500, 1000, 2000, 5000, 10_000)
    },
}
"""By name, in the order in which they are told."""


def named(names: Sequence[str]) -> list[str]:
    """The races of these names, or whose names begin with one: `sweep`, `time`, `ehrlich`.

    ValueError for a name that begins none.
    """
    found: list[str] = []
    for name in names:
        own = [name] if name in RACES else [race for race in RACES if race.startswith(name)]
        if not own:
            raise ValueError(f"expected a race or the beginning of its name, got {name!r}")
        found += [race for race in own if race not in found]
    return found

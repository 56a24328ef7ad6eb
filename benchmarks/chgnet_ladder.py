# ruff: noqa: E402  (the path is set before the packages are looked for)
"""The CHGNet ladder on random crystals: CPU seconds, failures and rank correlation of each level.

`python benchmarks/chgnet_ladder.py [N] [SEED]` builds N random charge-neutral crystals (25 if not
said, at most 12 atoms), asks the three levels about each on one thread, and prints a table. Rank
correlations are Spearman's with the last level, over the crystals that both levels answered.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

# benchmarks/sampler.py has the name of a package, and its folder comes first on the path.
sys.path[0] = str(Path(__file__).parent.parent)

import numpy as np
from pymatgen.core import Structure
from scipy.stats import spearmanr

from benchmarks.random_crystals import random_crystals
from oracles.crystals import CHGNetFormationEnergy

LEVELS = [
    CHGNetFormationEnergy(fidelity="placed", cost=1),
    CHGNetFormationEnergy(fidelity="positions", cost=22, relax="positions", n_placements=4),
    CHGNetFormationEnergy(fidelity="cell", cost=99, relax="cell", n_placements=4),
]


def measure(level: CHGNetFormationEnergy, crystals: list[Structure]) -> tuple[list[float], ...]:
    """Formation energy (NaN for a failure) and CPU seconds of each crystal at one level."""
    energies, seconds = [], []
    for crystal in crystals:
        start = time.process_time()
        (answer,) = level.query([crystal])
        seconds.append(time.process_time() - start)
        if isinstance(answer, dict):
            energies.append(answer["formation_energy_per_atom"])
        else:
            energies.append(float("nan"))
            print(f"  {level.fidelity}: {crystal.formula}: {answer!r}", flush=True)
    return energies, seconds


def main(n: int, seed: int) -> None:
    """Measure and print."""
    crystals = random_crystals(n, seed)
    LEVELS[-1].query(crystals[:1])  # imports and loads
    results = [measure(level, crystals) for level in LEVELS]
    target = np.array(results[-1][0])
    print("level      CPU s   mean  median     max  failed  rank correlation")
    for level, (energies, seconds) in zip(LEVELS, results, strict=True):
        values = np.array(energies)
        both = np.isfinite(values) & np.isfinite(target)
        rank = spearmanr(values[both], target[both]).statistic
        print(
            f"{level.fidelity:10s} {np.mean(seconds):12.3f} {np.median(seconds):7.3f}"
            f" {np.max(seconds):7.2f} {np.isnan(values).mean():6.0%}  {rank:.2f} (n={both.sum()})"
        )


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:] + ["25", "0"][len(sys.argv) - 1 :])))

"""Formation energies of some thousand crystals by CHGNet, single points, kept on disk.

Random crystals of the space, each in its one deterministic placement, known ones and decorated
ones as they are. What finds no room for its atoms, or leaves CHGNet's physical window, has no
energy: its label is infinity. Each batch is kept as soon as it is done, and found again later.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pymatgen.core.structure import Structure
from torch import Tensor

from benchmarks.crystal_known import decorated_crystals, known_crystals
from oracles.crystals import CHGNetFormationEnergy
from sampler.baselines import Random
from sampler.environments.crystal import Crystal

LABELS = Path(__file__).parent / "results" / "crystal_labels.json"
_BATCH = 50

Labels = dict[str, dict[str, Any]]


def label_all(space: Crystal, n_random: int) -> Labels:
    """Label known, decorated and `n_random` random crystals."""
    labels = read_labels()
    label("known", *known_crystals(space), labels)
    label("decorated", *decorated_crystals(space), labels)
    label_sampled(space, "random", Random(space).sample(n_random, seed=0), labels)
    return labels


def label_sampled(space: Crystal, source: str, states: Tensor, labels: Labels) -> None:
    """Label sampled crystals, each in its own placement."""
    done = labels.get(source, {})
    new = torch.tensor([key not in done for key in space.keys(states)])
    for rows in torch.split(states[new], _BATCH):
        label(source, space.decode(rows), space.keys(rows), labels)


def label(
    source: str, structures: Sequence[Structure | Exception], keys: Sequence[str], labels: Labels
) -> None:
    """Label what is not labelled, in batches, each kept as soon as it is done."""
    oracle = CHGNetFormationEnergy("single_point", 1.0)
    done = labels.setdefault(source, {})
    todo = [(k, s) for k, s in zip(keys, structures, strict=True) if k not in done]
    for start in range(0, len(todo), _BATCH):
        for key, structure in todo[start : start + _BATCH]:
            began = time.process_time()
            is_placed = not isinstance(structure, Exception)
            answer = oracle.query([structure])[0] if is_placed else structure
            done[key] = {
                "energy": _energy(answer),
                "failure": str(answer) if isinstance(answer, Exception) else None,
                "cpu_s": time.process_time() - began,
            }
        LABELS.parent.mkdir(exist_ok=True)
        LABELS.write_text(json.dumps(labels))


def read_labels() -> Labels:
    """What was labelled before."""
    labels: Labels = json.loads(LABELS.read_text()) if LABELS.exists() else {}
    return labels


def labelled(space: Crystal, labels: Labels, source: str) -> tuple[Tensor, Tensor]:
    """States `(n, w)` of one source and their energies in eV/atom `(n,)`, infinite where failed."""
    rows = labels.get(source, {})
    values = [math.inf if row["energy"] is None else row["energy"] for row in rows.values()]
    return space.from_keys(list(rows)), torch.tensor(values, dtype=torch.float64)


def _energy(answer: Any) -> float | None:
    return None if isinstance(answer, Exception) else float(answer["formation_energy_per_atom"])

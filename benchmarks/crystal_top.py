"""The best 100 of many crystals: plain, and the best that are of enough kinds.

"Of enough kinds" are at least so many space groups, elements, crystal-lattice systems and point
symmetries among the 100 (`LEAST`, the numbers of issue 4), and the best mean reward that allows: an
integer program, so the price of the diversity is the least possible. Named axes: n crystals, l
labels, such as an element that occurs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from benchmarks.crystal_validity import Read
from sampler.environments.crystal_classes import crystal_lattice_system, point_symmetry

LEAST = {"space_group": 25, "element": 15, "crystal_lattice_system": 6, "point_symmetry": 5}

Floats = NDArray[np.float64]
Label = tuple[str, str | int]

_N_BEST, _N_OF_EACH = 3, 5
"""What is chosen from: the best 3 n of all, and the best 5 of each label."""


def plain_best(values: Floats, n: int) -> list[int]:
    """Rows of the n best, best first."""
    rows: list[int] = np.argsort(-values, kind="stable")[:n].tolist()
    return rows


def diverse_best(
    values: Floats, crystals: Sequence[Read], n: int, least: Mapping[str, int] = LEAST
) -> list[int]:
    """Rows of n crystals with the highest mean value among those of enough kinds, best first.

    Chosen from the best `_N_BEST` n and the `_N_OF_EACH` best of each label. ValueError says which
    kinds there are too few of among all `crystals`.
    """
    labels = [labels_of(crystal) for crystal in crystals]
    _check(labels, least)
    rows = np.array(_candidates(values, labels, n))
    chosen = _cover(values[rows], [labels[row] for row in rows], n, least)
    return sorted(rows[chosen].tolist(), key=lambda row: -values[row])


def labels_of(crystal: Read) -> set[Label]:
    """What a crystal counts as."""
    return {
        ("space_group", crystal.group),
        ("crystal_lattice_system", crystal_lattice_system(crystal.group)),
        ("point_symmetry", point_symmetry(crystal.group)),
        *(("element", symbol) for symbol in crystal.atoms),
    }


def _candidates(values: Floats, labels: Sequence[set[Label]], n: int) -> list[int]:
    order = plain_best(values, len(values))
    taken: dict[Label, int] = {}
    kept = set(order[: _N_BEST * n])
    for row in order:
        for label in labels[row]:
            if taken.get(label, 0) < _N_OF_EACH:
                taken[label] = taken.get(label, 0) + 1
                kept.add(row)
    return sorted(kept)


def _cover(
    values: Floats, labels: Sequence[set[Label]], n: int, least: Mapping[str, int]
) -> NDArray[np.int64]:
    """Maximise the sum of values over n rows x, with y <= sum of x of each label, sums of y kept.

    Each y is 0 or 1 by itself once x is, so only x has to be whole.
    """
    names = sorted(set().union(*labels), key=str)
    has = sparse.csr_matrix([[float(name in row) for row in labels] for name in names])
    kinds = np.array([[float(name[0] == kind) for name in names] for kind in least])
    n_rows, n_names = len(values), len(names)
    found = milp(
        -np.append(values, np.zeros(n_names)),
        integrality=np.append(np.ones(n_rows), np.zeros(n_names)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(sparse.hstack([has, -sparse.eye(n_names)]), 0, np.inf),
            LinearConstraint(np.append(np.ones(n_rows), np.zeros(n_names)), n, n),
            LinearConstraint(
                np.hstack([np.zeros((len(least), n_rows)), kinds]), list(least.values()), np.inf
            ),
        ],
        options={"mip_rel_gap": 1e-4},
    )
    if not found.success:
        raise ValueError(f"no {n} crystals are of enough kinds together: {found.message}")
    return np.flatnonzero(found.x[:n_rows] > 0.5)


def _check(labels: Sequence[set[Label]], least: Mapping[str, int]) -> None:
    there = set().union(*labels)
    for kind, wanted in least.items():
        n = sum(label[0] == kind for label in there)
        if n < wanted:
            raise ValueError(
                f"{kind}: expected at least {wanted} kinds among the crystals, got {n}"
            )

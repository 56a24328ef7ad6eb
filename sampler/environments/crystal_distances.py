"""How far apart atoms of a crystal are, in units of the least distance that they may have.

The least distance is pyxtal's "atomic" tolerance, half the sum of two covalent radii; the radii are
shipped in covalent_radii.json. Named axes: c candidates, n atoms, t lattice translations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymatgen.core.lattice import Lattice

Floats = NDArray[np.float64]


@lru_cache(maxsize=10_000)
def tolerance(first: str, second: str) -> float:
    """Least distance of two atoms, Å; ValueError for an element beyond Pu."""
    for symbol in (first, second):
        if symbol not in _radii():
            raise ValueError(f"{symbol}: expected an element up to Pu, no radius is tabulated")
    return 0.5 * (_radii()[first] + _radii()[second])


def clearance(lattice: Lattice, positions: Floats, tolerances: Floats) -> Floats:
    """Smallest distance of atom 0 over its tolerance in each of `positions` `(c, n, 3)`; `(c,)`.

    Fractional coordinates; `tolerances` `(n,)` Å of atom 0 and each atom. Other cells count, atom 0
    in them too. By symmetry the others of its orbit are as far from the rest as atom 0 is.
    """
    nearest: Floats = _nearest(lattice, positions, tolerances).min(axis=1)
    return nearest


def closest_pair(
    lattice: Lattice, positions: Floats, species: Sequence[str], firsts: Sequence[int]
) -> tuple[float, str, str, float]:
    """Pair of atoms that lies closest for its tolerance, among pairs with one of `firsts`.

    Returns that ratio (exact up to 1), the two elements and the distance in Å; `positions` are
    fractional `(n, 3)`.
    """
    pairs = []
    for first in firsts:
        order = [first, *(i for i in range(len(species)) if i != first)]
        tolerances = np.array([tolerance(species[first], species[i]) for i in order])
        ratios = _nearest(lattice, positions[None, order], tolerances)[0]
        nearest = int(ratios.argmin())
        ratio = float(ratios[nearest])
        pairs.append(
            (ratio, species[first], species[order[nearest]], ratio * float(tolerances[nearest]))
        )
    return min(pairs)


def _nearest(lattice: Lattice, positions: Floats, tolerances: Floats) -> Floats:
    """Distance of atom 0 to the nearest image of each atom, over its tolerance, `(c, n)`.

    Exact where it is at most 1; of itself, infinite where all its images are further than that.
    """
    images = _images(lattice, float(tolerances.max()))
    offsets = positions - positions[:, :1]
    offsets -= np.rint(offsets)
    vectors = (offsets[:, :, None] + images) @ lattice.matrix
    distances = np.linalg.norm(vectors, axis=-1)
    distances[:, 0, (images == 0).all(axis=1)] = np.inf
    nearest: Floats = distances.min(axis=2) / tolerances
    return nearest


def _images(lattice: Lattice, radius: float) -> Floats:
    """Translations `(t, 3)` that can bring an offset of at most half a cell within `radius` Å."""
    spacings = 1 / np.linalg.norm(np.linalg.inv(lattice.matrix), axis=0)
    reach = np.floor(radius / spacings + 0.5).astype(int)
    axes = [np.arange(-n, n + 1) for n in reach]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3).astype(float)


@cache
def _radii() -> dict[str, float]:
    radii: dict[str, float] = json.loads(
        Path(__file__).with_name("covalent_radii.json").read_text()
    )
    return radii

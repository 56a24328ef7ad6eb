"""Wyckoff positions and symmetry operations of the 230 space groups, in the conventional cell.

Settings are pyxtal's (unique axis b, origin 2 where there are two, hexagonal axes). The positions
come from the shipped wyckoff_sites.json, the operations from spglib's data base.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import spglib
from numpy.typing import NDArray
from pymatgen.core.operations import SymmOp

from sampler.environments.crystal_symmetry import space_group

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESOLUTION = 10_000
"""Fractional coordinates of sites are multiples of 1 / RESOLUTION."""


@dataclass(frozen=True, eq=False)
class WyckoffPosition:
    """A Wyckoff position; `point` `(3, 4)` takes free coordinates (x, y, z, 1) to one of its orbit.

    `axes` are the coordinates among x, y, z (0, 1, 2) that it leaves free.
    """

    letter: str
    multiplicity: int
    point: Floats
    axes: tuple[int, ...]

    def row(self, axis: int) -> int:
        """Return a row of `point` where the free coordinate `axis` stands alone, up to sign.

        There is one in all positions: that of x in (x, 2x, z).
        """
        matrix = self.point[:, :3]
        alone = (np.count_nonzero(matrix, axis=1) == 1) & (np.abs(matrix[:, axis]) == 1)
        return int(alone.argmax())


@cache
def wyckoff_positions(number: int) -> tuple[WyckoffPosition, ...]:
    """Wyckoff positions of a space group in the order of their letters; the general one is last."""
    space_group(number)
    return tuple(
        WyckoffPosition(letter, multiplicity, *_point(xyz))
        for letter, multiplicity, xyz in _table()[number - 1][1]
    )


@cache
def symmetry_operations(number: int) -> tuple[Ints, Floats]:
    """Rotations `(m, 3, 3)` and translations `(m, 3)` of a space group, centrings included."""
    space_group(number)
    found = spglib.get_symmetry_from_database(_table()[number - 1][0])
    return found["rotations"].astype(np.int64), found["translations"].astype(np.float64)


def orbit_operations(number: int, position: WyckoffPosition) -> Floats:
    """Affine maps `(m, 3, 4)` from (x, y, z, 1) to the m atoms of an orbit; `point` is the first.

    One map an atom, also where free coordinates are so special that atoms coincide.
    """
    rotations, translations = symmetry_operations(number)
    maps = rotations @ position.point
    maps[:, :, 3] += translations
    # Translations are multiples of 1/24, so these are exact keys of maps modulo the lattice.
    keys = np.rint(24 * maps).astype(np.int64)
    keys[:, :, 3] %= 24
    _, first = np.unique(keys.reshape(len(keys), -1), axis=0, return_index=True)
    return np.asarray(maps[np.sort(first)])


def hall_number(number: int) -> int:
    """Return which of spglib's 530 settings of space groups ours is."""
    space_group(number)
    return _table()[number - 1][0]


def _point(xyz: str) -> tuple[Floats, tuple[int, ...]]:
    affine = np.asarray(SymmOp.from_xyz_str(xyz).affine_matrix[:3], dtype=np.float64)
    return affine, tuple(axis for axis in range(3) if affine[:, axis].any())


@cache
def _table() -> list[tuple[int, list[tuple[str, int, str]]]]:
    rows = json.loads(Path(__file__).with_name("wyckoff_sites.json").read_text())
    return [(row["hall_number"], [tuple(site) for site in row["sites"]]) for row in rows]

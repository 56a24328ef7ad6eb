"""Pymatgen Structures of crystals whose Wyckoff sites are known, and Wyckoff sites of Structures.

A structure is built exactly as its sites say, or refused: where atoms come too close, or where
spglib finds another space group (more symmetric, as a rule) than the one asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from sampler.environments.crystal_distances import closest_pair
from sampler.environments.crystal_placement import PlacementError
from sampler.environments.crystal_standard import SYMMETRY_TOLERANCE, found_space_group, standard
from sampler.environments.crystal_text import NamedSite
from sampler.environments.crystal_wyckoff_positions import (
    RESOLUTION,
    WyckoffPosition,
    orbit_operations,
    symmetry_operations,
    wyckoff_positions,
)

_PARAMETER_DIGITS = 9
"""Decimals of Å and degrees: one cell in other axes differs in its last bits and is the same."""

_SLACK = 3.0
"""Distances within an orbit add up those of several atoms from their ideal places."""

Floats = NDArray[np.float64]
Point = tuple[float, float, float]


class TooCloseError(PlacementError):
    """Two atoms are nearer than they may be."""


class OtherSymmetryError(PlacementError):
    """The atoms have another space group than the one asked for."""


@dataclass(frozen=True)
class SitedCrystal:
    """A crystal with its atoms, in the conventional cell."""

    space_group: int
    lattice: tuple[float, ...]
    """a, b, c in Å, then alpha, beta, gamma in degrees."""
    sites: tuple[NamedSite, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Atoms of each element."""
        counts: Counter[str] = Counter()
        for symbol, letter, _ in self.sites:
            counts[symbol] += _position(self.space_group, letter).multiplicity
        return dict(counts)


def build(
    crystal: SitedCrystal,
    min_distance: float = 1.0,
    symmetry_tolerance: float = SYMMETRY_TOLERANCE,
    key: str = "",
) -> Structure:
    """Return the Structure of a crystal; `properties` holds `space_group` (number) and `key`.

    TooCloseError where two atoms are nearer than `min_distance` times pyxtal's atomic tolerance
    (half the sum of their covalent radii); OtherSymmetryError where spglib finds another space
    group within `symmetry_tolerance` Å.
    """
    lattice = Lattice.from_parameters(*crystal.lattice)
    species, positions, firsts = _atoms(crystal)
    ratio, one, other, distance = closest_pair(lattice, positions, species, firsts)
    if ratio < min_distance:
        raise TooCloseError(
            f"{key}: atoms too close: {one} and {other} are {distance:.3g} Å apart, "
            f"expected at least {distance / ratio * min_distance if ratio else 0:.3g} Å"
        )
    structure = Structure(
        lattice,
        species,
        positions,
        to_unit_cell=True,
        properties={"space_group": crystal.space_group, "key": key},
    )
    found = found_space_group(structure, symmetry_tolerance)
    if found != crystal.space_group:
        raise OtherSymmetryError(
            f"{key}: expected space group {crystal.space_group}, spglib finds {found}"
        )
    return structure


def read_structure(
    structure: Structure, symmetry_tolerance: float = SYMMETRY_TOLERANCE
) -> SitedCrystal:
    """Return the space group, conventional cell and Wyckoff sites of a Structure.

    See `standard` for how these are found. In one that `build` made, the first atom of each orbit
    gives the coordinates, so that this is the inverse of `build`; in any other, of the equivalent
    coordinates of an orbit, the smallest (x, then y, then z) are taken. Coordinates are rounded to
    1 / `RESOLUTION`, the cell to 1e-9 Å and degrees. ValueError where the structure is no crystal,
    or not as symmetric as it says.
    """
    number, cell, is_ours = standard(structure, symmetry_tolerance)
    sites = _sites(number, cell, symmetry_tolerance, is_ours)
    lattice = tuple(round(float(value), _PARAMETER_DIGITS) for value in cell.lattice.parameters)
    return SitedCrystal(number, lattice, tuple(sites))


def _atoms(crystal: SitedCrystal) -> tuple[list[str], Floats, list[int]]:
    """Elements, fractional coordinates `(n, 3)`, and the index of the first atom of each orbit."""
    if not crystal.sites:
        raise ValueError(f"sites: expected at least one in space group {crystal.space_group}")
    species: list[str] = []
    orbits, firsts = [], []
    for symbol, letter, point in crystal.sites:
        position = _position(crystal.space_group, letter)
        orbit = orbit_operations(crystal.space_group, position) @ np.array([*point, 1.0])
        firsts.append(len(species))
        species += [symbol] * len(orbit)
        orbits.append(orbit)
    return species, np.concatenate(orbits), firsts


def _position(number: int, letter: str) -> WyckoffPosition:
    for position in wyckoff_positions(number):
        if position.letter == letter:
            return position
    letters = ", ".join(position.letter for position in wyckoff_positions(number))
    raise ValueError(f"site {letter!r}: space group {number} has the positions {letters}")


def _sites(number: int, structure: Structure, tolerance: float, is_ours: bool) -> list[NamedSite]:
    """Wyckoff sites of a structure in our conventional cell, in the order of their first atoms."""
    symbols = [site.specie.symbol for site in structure]
    lattice, positions = structure.lattice, np.asarray(structure.frac_coords)
    left = np.ones(len(symbols), dtype=bool)
    sites = []
    while left.any():
        first = int(left.argmax())
        same = left & np.array([symbol == symbols[first] for symbol in symbols])
        orbit = _orbit(number, lattice, positions, same, first, tolerance)
        left[orbit] = False
        ticks = _canonical(number, lattice, positions[orbit], tolerance, is_ours)
        if ticks is None:
            raise ValueError(
                f"the {len(orbit)} atoms of {symbols[first]} like the one at "
                f"{np.round(positions[first], 4).tolist()} are on no Wyckoff position of space "
                f"group {number} in its conventional cell"
            )
        sites.append((symbols[first], *ticks))
    return sites


def _orbit(
    number: int,
    lattice: Lattice,
    positions: Floats,
    same: NDArray[np.bool_],
    first: int,
    tolerance: float,
) -> list[int]:
    """Indices of atom `first` and those of its kind (`same`) that are its symmetric images."""
    rotations, translations = symmetry_operations(number)
    images = rotations @ positions[first] + translations
    is_near = _distances(lattice, images[:, None], positions) < _SLACK * tolerance
    is_found = is_near[:, same].any(axis=1)
    if not is_found.all():
        missing = np.round(images[~is_found][0] % 1, 4).tolist()
        raise ValueError(
            f"expected an atom at {missing}, as space group {number} asks in its conventional "
            "cell; remove properties['key'] to have the structure analysed"
        )
    found = np.flatnonzero(is_near.any(axis=0) & same).tolist()
    return [first, *(i for i in found if i != first)]


def _canonical(
    number: int, lattice: Lattice, orbit: Floats, tolerance: float, is_ours: bool
) -> tuple[str, Point] | None:
    """Letter and free coordinates of an orbit `(m, 3)`; None when it is on no position."""
    for position in wyckoff_positions(number):
        if position.multiplicity != len(orbit):
            continue
        points = _solve(position, orbit)
        rebuilt = points @ position.point[:, :3].T + position.point[:, 3]
        is_on = _distances(lattice, rebuilt, orbit) < _SLACK * tolerance
        ticks = np.rint(points[is_on] * RESOLUTION).astype(int) % RESOLUTION
        if len(ticks):
            x, y, z = (ticks[0] if is_ours else min(ticks.tolist())) / np.float64(RESOLUTION)
            return position.letter, (float(x), float(y), float(z))
    return None


def _solve(position: WyckoffPosition, points: Floats) -> Floats:
    """Free coordinates `(m, 3)` that lead to `points` `(m, 3)` where any do, else arbitrary.

    Each free coordinate stands alone, up to sign and shift, in a row of the position: x in
    (x, 2x, z). Cell by cell, that row determines it.
    """
    solved = np.zeros_like(points)
    for axis in position.axes:
        row = position.row(axis)
        solved[:, axis] = position.point[row, axis] * (points[:, row] - position.point[row, 3])
    return solved


def _distances(lattice: Lattice, one: Floats, other: Floats) -> Floats:
    """Distance of points to the nearest image of others (for small ones), Å; they broadcast."""
    offsets = one - other
    offsets = offsets - np.rint(offsets)
    return np.asarray(np.linalg.norm(offsets @ lattice.matrix, axis=-1))

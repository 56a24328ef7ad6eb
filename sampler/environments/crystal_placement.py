"""From a crystal's symmetry, composition and cell to atoms at random on Wyckoff sites.

Wyckoff positions and distance tolerances are pyxtal's, shipped as tables, and sites are chosen by
its rule. The loop is our own, because `pyxtal.from_random` may choose sites that leave a remainder
nothing fits and then tries up to 4000 times: seconds a crystal where this takes milliseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from sampler.environments.crystal_distances import clearance, tolerance
from sampler.environments.crystal_symmetry import SpaceGroup, can_finish, space_group
from sampler.environments.crystal_wyckoff_positions import orbit_operations, wyckoff_positions

N_TRIES = 20
"""How often all atoms are placed anew before a crystal counts as impossible to place."""

_N_POINTS = 10
"""Random points tried for an orbit; the one that keeps furthest from other atoms is taken."""

Floats = NDArray[np.float64]


class PlacementError(RuntimeError):
    """No positions were found that keep the atoms apart."""


@dataclass(frozen=True)
class Blueprint:
    """A crystal without positions: what a terminal state says."""

    key: str
    space_group: int
    counts: Mapping[str, int]
    lattice: tuple[float, ...]
    """a, b, c in Å, then alpha, beta, gamma in degrees, of the conventional cell."""


@dataclass(frozen=True)
class Site:
    """A Wyckoff position; `operations` `(m, 3, 4)` take any point to an orbit of it."""

    letter: str
    multiplicity: int
    is_free: bool
    operations: Floats


def place(blueprint: Blueprint) -> Structure:
    """Put atoms on random Wyckoff sites of the conventional cell, with pyxtal's positions.

    Random numbers derive from a hash of the key, so a key has one structure. PlacementError when
    `N_TRIES` attempts fail to keep the atoms apart by pyxtal's atomic tolerances (half the sum of
    covalent radii). `properties` holds `space_group` (number) and `key`.
    """
    seed = int.from_bytes(hashlib.sha256(blueprint.key.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    lattice = Lattice.from_parameters(*blueprint.lattice)
    group = space_group(blueprint.space_group)
    for _ in range(N_TRIES):
        sites = choose_sites(group, blueprint.counts, rng)
        positions = _positions(lattice, sites, rng)
        if positions is not None:
            species = [symbol for symbol, site in sites for _ in range(site.multiplicity)]
            properties = {"space_group": group.number, "key": blueprint.key}
            return Structure(lattice, species, positions, to_unit_cell=True, properties=properties)
    raise PlacementError(f"{blueprint.key}: no room for the atoms in {N_TRIES} tries")


def choose_sites(
    group: SpaceGroup, counts: Mapping[str, int], rng: np.random.Generator
) -> list[tuple[str, Site]]:
    """Random Wyckoff sites that hold exactly these atoms: (element, site) pairs.

    As pyxtal chooses: in one of two cases among sites of the largest multiplicity that fits, else
    among all that fit. A site fits only if the rest can still be placed.
    """
    chosen: list[tuple[str, Site]] = []
    left = list(counts.values())
    for symbol in counts:
        while left[0] > 0:
            fitting = [
                site
                for site in wyckoff_sites(group.number)
                if site.multiplicity <= left[0] and _fits(group, chosen, symbol, site, left)
            ]
            if not fitting:
                raise PlacementError(f"{dict(counts)} fits no sites of space group {group.number}")
            if rng.random() > 0.5:
                largest = max(site.multiplicity for site in fitting)
                fitting = [site for site in fitting if site.multiplicity == largest]
            chosen.append((symbol, fitting[rng.integers(len(fitting))]))
            left[0] -= chosen[-1][1].multiplicity
        left.pop(0)
    return chosen


def _fits(
    group: SpaceGroup,
    chosen: Sequence[tuple[str, Site]],
    symbol: str,
    site: Site,
    left: Sequence[int],
) -> bool:
    """Whether `site` is vacant, and whether all other atoms can be placed after it."""
    after = [*(taken for _, taken in chosen), site]
    letters = [taken.letter for taken in after if not taken.is_free]
    if len(set(letters)) < len(letters):
        return False
    used = tuple(
        sum(taken.multiplicity == multiplicity for taken in after)
        for multiplicity, _ in group.fixed
    )
    return can_finish(group, used, [left[0] - site.multiplicity, *left[1:]])


def _positions(
    lattice: Lattice, sites: Sequence[tuple[str, Site]], rng: np.random.Generator
) -> Floats | None:
    """Fractional coordinates of all atoms, site by site; None when one finds no room."""
    positions = np.zeros((0, 3))
    species: list[str] = []
    for symbol, site in sites:
        species += [symbol] * site.multiplicity
        tolerances = np.array([tolerance(symbol, other) for other in species])
        points = np.ones((_N_POINTS if site.is_free else 1, 4))
        points[:, :3] = rng.random((len(points), 3))
        orbits = np.einsum("mij,cj->cmi", site.operations, points)
        earlier = np.broadcast_to(positions, (len(orbits), *positions.shape))
        # The new orbit stands first for the distances, but last in the structure.
        distances = clearance(
            lattice,
            np.concatenate([orbits, earlier], axis=1),
            np.roll(tolerances, site.multiplicity),
        )
        best = int(distances.argmax())
        if distances[best] < 1:
            return None
        positions = np.concatenate([positions, orbits[best]])
    return positions


@lru_cache(maxsize=256)
def wyckoff_sites(number: int) -> tuple[Site, ...]:
    """Wyckoff positions of a space group in its conventional cell, the general one first."""
    return tuple(
        Site(
            letter=position.letter,
            multiplicity=position.multiplicity,
            is_free=len(position.axes) > 0,
            operations=orbit_operations(number, position),
        )
        for position in reversed(wyckoff_positions(number))
    )

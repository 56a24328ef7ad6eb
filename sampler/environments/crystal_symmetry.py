"""Space groups: lattice systems, site multiplicities, and which atom counts fit their sites."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic")
"""Lattice systems; trigonal groups count as hexagonal: they are described in hexagonal axes."""

_LAST_NUMBER = (2, 15, 74, 142, 194, 230)

Uses = tuple[int, ...]
"""How many sites of each fixed multiplicity are taken."""


@dataclass(frozen=True)
class SpaceGroup:
    """A space group in its conventional cell (pyxtal's standard setting, unique axis b)."""

    number: int
    symbol: str
    point_group_order: int
    lattice_points: int
    has_inversion: bool
    free: tuple[int, ...]
    """Multiplicities of sites with a free coordinate: usable any number of times."""
    fixed: tuple[tuple[int, int], ...]
    """(multiplicity, number of sites) of sites without one: each usable once in all."""

    @property
    def system(self) -> int:
        """Index of its lattice system in `SYSTEMS`."""
        return next(i for i, last in enumerate(_LAST_NUMBER) if self.number <= last)


@cache
def space_group(number: int) -> SpaceGroup:
    """Look up one of the 230 space groups; ValueError for any other number."""
    if not 1 <= number <= 230:
        raise ValueError(f"space_groups: expected numbers from 1 to 230, got {number}")
    return _table()[number - 1]


@cache
def _table() -> list[SpaceGroup]:
    rows = json.loads(Path(__file__).with_name("wyckoff_table.json").read_text())
    return [
        SpaceGroup(
            number=row["number"],
            symbol=row["symbol"],
            point_group_order=row["point_group_order"],
            lattice_points=row["lattice_points"],
            has_inversion=row["has_inversion"],
            free=tuple(row["free"]),
            fixed=tuple((int(m), n) for m, n in row["fixed"].items()),
        )
        for row in rows
    ]


def is_compatible(group: SpaceGroup, counts: Sequence[int]) -> bool:
    """Whether atoms in these numbers, one entry an element, can fill sites of `group` exactly.

    Counts are of the conventional cell, as in Crystal-GFN (arXiv 2310.04925).
    """
    return can_finish(group, (0,) * len(group.fixed), counts)


def can_finish(group: SpaceGroup, used: Uses, counts: Sequence[int]) -> bool:
    """`is_compatible` when some of the fixed sites are taken already."""
    uses = {used}
    for count in counts:
        uses = with_element(group, uses, count)
    return len(uses) > 0


def with_element(group: SpaceGroup, before: set[Uses], count: int) -> set[Uses]:
    """Fixed sites taken once `count` atoms of one more element are placed, smallest ways only."""
    capacity = [n for _, n in group.fixed]
    after = {
        tuple(a + b for a, b in zip(old, new, strict=True))
        for old in before
        for new in _fixed_uses(group, count)
    }
    return _minimal(
        {uses for uses in after if all(u <= c for u, c in zip(uses, capacity, strict=True))}
    )


@cache
def _fixed_uses(group: SpaceGroup, count: int) -> frozenset[Uses]:
    """Ways to take fixed sites such that free sites can hold the rest of `count` atoms."""
    partial: set[tuple[Uses, int]] = {((), count)}
    for multiplicity, n_sites in group.fixed:
        partial = {
            ((*uses, n), left - n * multiplicity)
            for uses, left in partial
            for n in range(min(n_sites, left // multiplicity) + 1)
        }
    fits = _free_sums(group.free, count)
    return frozenset(_minimal({uses for uses, left in partial if fits[left]}))


@cache
def _free_sums(multiplicities: tuple[int, ...], up_to: int) -> tuple[bool, ...]:
    """Whether each of 0 … up_to is a sum of free multiplicities, each used at will."""
    fits = [True] + [False] * up_to
    for total in range(1, up_to + 1):
        fits[total] = any(m <= total and fits[total - m] for m in multiplicities)
    return tuple(fits)


def _minimal(ways: set[Uses]) -> set[Uses]:
    """Those that no other one beats everywhere: to take fewer sites is never worse."""
    return {
        way
        for way in ways
        if not any(
            other != way and all(o <= w for o, w in zip(other, way, strict=True)) for other in ways
        )
    }

"""Crystals by their space group's symbol."""

from functools import cache
from typing import Any

from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.groups import SpaceGroup


def from_spacegroup(symbol: str, lattice: Lattice, species: Any, positions: Any) -> Structure:
    """As pymatgen's, which works out a group's operations, a second, unless someone holds it."""
    _held(symbol)
    return Structure.from_spacegroup(symbol, lattice, species, positions)


@cache
def _held(symbol: str) -> SpaceGroup:
    return SpaceGroup(symbol)

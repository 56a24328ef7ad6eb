"""Which crystal a pymatgen Structure is: its space group and our conventional cell.

Sites of one atomic number count as equal, whatever charge or spin they are labelled with: Fe3O4
is one crystal, be its atoms written as Fe or as Fe2+ and Fe3+.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import spglib
from numpy.typing import NDArray
from pymatgen.core.lattice import Lattice
from pymatgen.core.periodic_table import DummySpecies, Element
from pymatgen.core.structure import Structure

from sampler.environments.crystal_wyckoff_positions import hall_number

SYMMETRY_TOLERANCE = 0.01
"""How far atoms may lie from symmetric places, Å: spglib's symprec."""

Floats = NDArray[np.float64]


class Standard(NamedTuple):
    """A structure in our conventional cell, and its space group."""

    space_group: int
    structure: Structure
    is_ours: bool
    """Whether it is as given: written by `decode`, so in our cell already."""


def standard(structure: Structure, symmetry_tolerance: float = SYMMETRY_TOLERANCE) -> Standard:
    """Space group and conventional cell of a Structure.

    One with `properties["key"]`, as only `decode` writes it, is taken at its word: its cell is
    conventional and of `properties["space_group"]`. Any other is analysed and standardised by
    spglib. ValueError for one that is no ordered crystal of elements, or whose atoms overlap.
    """
    _check(structure, symmetry_tolerance)
    properties: dict[str, Any] = structure.properties or {}
    if "key" in properties:
        number = properties.get("space_group")
        if not (isinstance(number, int | np.integer) and 1 <= number <= 230):
            raise ValueError(
                f"properties['space_group']: expected a number from 1 to 230 beside 'key', got "
                f"{number!r}; remove both to have the structure analysed"
            )
        return Standard(int(number), structure, is_ours=True)
    number = found_space_group(structure, symmetry_tolerance)
    found = None if number is None else _dataset(structure, symmetry_tolerance, hall_number(number))
    if number is None or found is None:
        raise ValueError(
            f"expected a crystal with a space group, spglib finds none within "
            f"{symmetry_tolerance:g} Å"
        )
    species = [Element.from_Z(int(z)) for z in found.std_types]
    cell = Structure(Lattice(found.std_lattice), species, found.std_positions)
    return Standard(number, cell, is_ours=False)


def found_space_group(structure: Structure, tolerance: float) -> int | None:
    """Number of the space group that spglib finds within `tolerance` Å; None: it fails."""
    found = _dataset(structure, tolerance)
    return None if found is None else int(found.number)


def _check(structure: Structure, tolerance: float) -> None:
    """ValueError says why a structure is no crystal that has a space group."""
    if len(structure) == 0:
        raise ValueError("expected at least one atom, got an empty structure")
    if not structure.is_ordered:
        raise ValueError("expected whole atoms, got a disordered structure")
    for site in structure:
        if isinstance(site.specie, DummySpecies):
            raise ValueError(f"expected elements, got the dummy species {site.specie}")
    numbers = [structure.lattice.matrix, structure.frac_coords]
    if not all(np.isfinite(x).all() for x in numbers) or structure.volume < 1e-6:
        raise ValueError("expected a cell with a volume and finite coordinates")
    _check_overlap(structure, tolerance)


def _check_overlap(structure: Structure, tolerance: float) -> None:
    distances = np.array(structure.distance_matrix)
    np.fill_diagonal(distances, np.inf)
    one, other = np.unravel_index(distances.argmin(), distances.shape)
    if distances[one, other] <= tolerance:
        raise ValueError(
            f"expected atoms apart, got {structure[int(one)].specie} (atom {one}) and "
            f"{structure[int(other)].specie} (atom {other}) {distances[one, other]:.2g} Å from "
            "each other"
        )


def _dataset(structure: Structure, tolerance: float, hall: int = 0) -> Any:
    """Spglib's answer, by atomic numbers, in the setting `hall` (0: its own); None: it fails."""
    numbers = [site.specie.Z for site in structure]
    cell = structure.lattice.matrix, structure.frac_coords, numbers
    try:
        return spglib.get_symmetry_dataset(cell, symprec=tolerance, hall_number=hall)
    except spglib.SpglibError:
        return None

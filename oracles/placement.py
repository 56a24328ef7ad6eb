"""Placements: other atomic positions for the same composition, cell and space group."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from pyxtal import pyxtal
from pyxtal.lattice import Lattice
from pyxtal.msg import Comp_CompatibilityError, VolumeError
from pyxtal.symmetry import Group

SYMMETRY_PRECISION = 0.01
"""A; how far atoms may lie from their symmetric positions when a space group must be found."""


def with_space_group(structure: Structure) -> Structure:
    """The conventional cell of a structure, with its number in `properties["space_group"]`.

    One with `properties["key"]`, as only a space's `decode` writes it, is taken at its word. Of
    any other the space group is found anew, by elements whatever their charges and spins, for what
    a file or an earlier cell says of it may not hold for these atoms. ValueError when a stated
    space group is none, or the cell cannot have it.
    """
    if "key" not in structure.properties:
        return _analysed(structure)
    number = structure.properties.get("space_group")
    if not (isinstance(number, int | np.integer) and 1 <= number <= 230):
        raise ValueError(
            f"properties['space_group'] must be a number from 1 to 230 beside 'key', not "
            f"{number!r}; remove both to have the structure analysed"
        )
    lattice = _symmetric_lattice(structure, int(number), seed=0)
    if not np.allclose(lattice.get_para(degree=True), structure.lattice.parameters, atol=0.01):
        raise ValueError(
            f"the cell {np.round(structure.lattice.parameters, 2).tolist()} cannot have the"
            f" {lattice.ltype} space group {number}; give the conventional cell"
        )
    return structure


def _analysed(structure: Structure) -> Structure:
    elements = [Element.from_Z(site.specie.Z) for site in structure]
    neutral = Structure(structure.lattice, elements, structure.frac_coords)
    analyzer = SpacegroupAnalyzer(neutral, symprec=SYMMETRY_PRECISION)
    refined = analyzer.get_refined_structure()
    refined.properties["space_group"] = int(analyzer.get_space_group_number())
    return refined


def placements(structure: Structure, n: int) -> Iterator[Structure]:
    """The structure itself and up to n - 1 others like it, the same ones in every process.

    `structure` is a conventional cell as from `with_space_group`. A draw that pyxtal cannot place
    is left out.
    """
    yield structure
    seeds = (placement_seed(structure, row) for row in itertools.count())
    for seed in itertools.islice(seeds, n - 1):
        placed = place_again(structure, seed)
        if placed is not None:
            yield placed


def placement_seed(structure: Structure, row: int) -> int:
    """A seed in [0, 2^32) out of the content of a structure, rounded to 0.0001 A, and `row`."""
    content = (
        np.round(structure.lattice.parameters, 4).tolist(),
        [str(site.specie) for site in structure],
        (np.round(structure.frac_coords, 4) + 0.0).tolist(),  # + 0.0 turns -0.0 into 0.0
        int(structure.properties["space_group"]),
        row,
    )
    return int.from_bytes(hashlib.sha256(repr(content).encode()).digest()[:4], "big")


def place_again(structure: Structure, seed: int) -> Structure | None:
    """Draw new positions with pyxtal; None when it finds none without overlaps."""
    counts = structure.composition.get_el_amt_dict()
    group = int(structure.properties["space_group"])
    crystal = pyxtal()
    try:
        crystal.from_random(
            3,
            group,
            list(counts),
            [int(count) for count in counts.values()],
            lattice=_symmetric_lattice(structure, group, seed),
            random_state=seed,
            max_count=1,
        )
    except (Comp_CompatibilityError, VolumeError, RuntimeError):
        return None
    placed: Structure = crystal.to_pymatgen(resort=False)
    return placed


def _symmetric_lattice(structure: Structure, group: int, seed: int) -> Lattice:
    # The seed matters: pyxtal draws positions from the lattice's own random state.
    return Lattice.from_matrix(
        structure.lattice.matrix, ltype=Group(group).lattice_type, random_state=seed
    )

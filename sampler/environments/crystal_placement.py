"""From a crystal's symmetry, composition and cell to atoms, and back from a pymatgen Structure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

N_TRIES = 4


class PlacementError(RuntimeError):
    """pyxtal found no positions for the atoms that keep them apart."""


@dataclass(frozen=True)
class Blueprint:
    """A crystal without positions: what a terminal state says."""

    key: str
    space_group: int
    counts: Mapping[str, int]
    lattice: tuple[float, ...]
    """a, b, c in Å, then alpha, beta, gamma in degrees, of the conventional cell."""


def place(blueprint: Blueprint) -> Structure:
    """Put atoms on random Wyckoff sites of the conventional cell with pyxtal.

    Random numbers derive from a hash of the key, so a key has one structure. Up to `N_TRIES`
    attempts; PlacementError when none keeps the atoms apart (pyxtal's atomic tolerances).
    `properties` holds `space_group` (number) and `key`.
    """
    seed = int.from_bytes(hashlib.sha256(blueprint.key.encode()).digest()[:8], "big")
    reason = "no attempt was made"
    for rng in np.random.default_rng(seed).spawn(N_TRIES):
        try:
            return _placed(blueprint, rng)
        except (RuntimeError, ValueError) as error:
            reason = str(error)
    raise PlacementError(f"{blueprint.key}: no room for the atoms in {N_TRIES} tries ({reason})")


def _placed(blueprint: Blueprint, rng: np.random.Generator) -> Structure:
    from pyxtal.crystal import random_crystal
    from pyxtal.lattice import Lattice as PyxtalLattice

    group = _pyxtal_group(blueprint.space_group)
    lattice = PyxtalLattice.from_para(
        *blueprint.lattice, ltype=group.lattice_type, random_state=rng
    )
    crystal = random_crystal(
        dim=3,
        group=group,
        species=list(blueprint.counts),
        numIons=list(blueprint.counts.values()),
        lattice=lattice,
        conventional=True,
        random_state=rng,
    )
    if not crystal.valid:
        raise RuntimeError("atoms too close")
    if not np.allclose(crystal.lattice.get_para(degree=True), blueprint.lattice, atol=1e-6):
        raise RuntimeError("pyxtal changed the cell")
    species: list[str] = []
    positions: list[Any] = []
    for site in crystal.atom_sites:
        species += [site.specie] * site.multiplicity
        positions.append(site.coords)
    return Structure(
        Lattice.from_parameters(*blueprint.lattice),
        species,
        np.concatenate(positions),
        to_unit_cell=True,
        properties={"space_group": blueprint.space_group, "key": blueprint.key},
    )


def read(structure: Structure, symmetry_tolerance: float = 0.01) -> Blueprint:
    """What a Structure's space group, conventional cell and composition are; the key is empty.

    A structure that says its space group in `properties["space_group"]` is taken to be in the
    conventional cell already; any other is analysed and standardised by spglib.
    """
    number = (structure.properties or {}).get("space_group")
    if number is None:
        analyzer = SpacegroupAnalyzer(structure, symprec=symmetry_tolerance)
        number = analyzer.get_space_group_number()
        structure = analyzer.get_refined_structure()
    if not structure.is_ordered:
        raise ValueError(f"{structure.formula}: expected whole atoms, got a disordered structure")
    counts = {symbol: round(n) for symbol, n in structure.composition.get_el_amt_dict().items()}
    return Blueprint("", int(number), counts, tuple(structure.lattice.parameters))


@lru_cache(maxsize=256)
def _pyxtal_group(number: int) -> Any:
    from pyxtal.symmetry import Group

    return Group(number)

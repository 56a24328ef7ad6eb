"""Are sampled crystals what they should be? Asked of pymatgen and pyxtal, from the key's text."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from pymatgen.core.composition import Composition
from pymatgen.core.lattice import Lattice
from pymatgen.core.periodic_table import Element
from torch import Tensor

from benchmarks.crystal_spaces import REFERENCE, VOLUME_PER_ATOM
from sampler.environments.crystal import Crystal
from sampler.environments.crystal_classes import (
    crystal_lattice_system,
    lattice_system,
    point_symmetry,
)

_SHOWN = 0.02
"""Keys show four digits of lengths and two of angles: what that may add to a ratio."""


@dataclass(frozen=True)
class Read:
    """What a key says: atoms by symbol, space group, lengths in Å, angles in degrees."""

    atoms: Mapping[str, int]
    group: int
    lengths: tuple[float, ...]
    angles: tuple[float, ...]

    @property
    def volume_per_atom(self) -> float:
        """Å³, by pymatgen."""
        lattice = Lattice.from_parameters(*self.lengths, *self.angles)
        return float(lattice.volume) / sum(self.atoms.values())


def read(key: str) -> Read:
    """Read a key of the crystal space."""
    atoms, group, lengths, angles = key.split(" | ")[:4]
    counts = {str(e): round(n) for e, n in Composition(atoms).get_el_amt_dict().items()}
    return Read(counts, int(group), *(tuple(map(float, p.split())) for p in (lengths, angles)))


def check(space: Crystal, states: Tensor, n_by_pymatgen: int) -> dict[str, Any]:
    """Shares of `states` `(n, w)` that pass each check, and how many kinds of things they have.

    Neutrality is asked of pymatgen's `oxi_state_guesses` for the first `n_by_pymatgen`, and of its
    table of ICSD states for all: one non-zero state an element, exactly.
    """
    keys = space.keys(states)
    crystals = [read(key) for key in keys]
    n = len(crystals)
    guessed = [is_neutral_by_guess(each) for each in crystals[:n_by_pymatgen]]
    passed = {
        "inside the ranges": sum(map(is_inside, crystals)) / n,
        "lattice of its system": sum(map(has_its_lattice, crystals)) / n,
        "positive volume": sum(each.volume_per_atom > 0 for each in crystals) / n,
        "fits Wyckoff sites (pyxtal)": sum(map(is_compatible, crystals)) / n,
        "neutral (pymatgen's states)": sum(map(is_neutral, crystals)) / n,
        "neutral (oxi_state_guesses)": sum(guessed) / len(guessed),
    }
    return {
        "n": n,
        "passed": passed,
        "n_guessed": len(guessed),
        "unique": len(set(keys)) / n,
        **kinds(crystals),
    }


def kinds(crystals: list[Read]) -> dict[str, Any]:
    """How many space groups, elements, lattice systems and point symmetries there are."""
    groups = [each.group for each in crystals]
    sizes = Counter(len(each.atoms) for each in crystals)
    return {
        "n_kinds_of": len(crystals),
        "space_groups": len(set(groups)),
        "elements": len({symbol for each in crystals for symbol in each.atoms}),
        "crystal_lattice_systems": len({crystal_lattice_system(g) for g in groups}),
        "point_symmetries": len({point_symmetry(g) for g in groups}),
        "n_elements": {str(k): sizes[k] / len(crystals) for k in sorted(sizes)},
    }


def is_inside(crystal: Read) -> bool:
    """Whether all numbers are in the ranges of the reference set."""
    counts = list(crystal.atoms.values())
    checks = (
        (len(counts), "n_elements"),
        (sum(counts), "n_atoms"),
        *((n, "n_atoms_per_element") for n in counts),
        *((x, "lengths") for x in crystal.lengths),
        *((x, "angles") for x in crystal.angles),
    )
    low, high = VOLUME_PER_ATOM
    return (
        all(REFERENCE[key][0] <= value <= REFERENCE[key][1] for value, key in checks)
        and set(crystal.atoms) <= set(REFERENCE["elements"])
        and crystal.group in REFERENCE["space_groups"]
        and low * (1 - _SHOWN) <= crystal.volume_per_atom <= high * (1 + _SHOWN)
    )


def has_its_lattice(crystal: Read) -> bool:
    """Whether lengths and angles are tied as the lattice system demands."""
    (a, b, c), (alpha, beta, gamma) = crystal.lengths, crystal.angles
    right = alpha == beta == gamma == 90.0
    return {
        "triclinic": True,
        "monoclinic": alpha == gamma == 90.0,
        "orthorhombic": right,
        "tetragonal": right and a == b,
        "rhombohedral": a == b and alpha == beta == 90.0 and gamma == 120.0,
        "hexagonal": a == b and alpha == beta == 90.0 and gamma == 120.0,
        "cubic": right and a == b == c,
    }[lattice_system(crystal.group)]


def is_compatible(crystal: Read) -> bool:
    """Whether the atoms fit Wyckoff sites, says pyxtal."""
    return _compatible(crystal.group, tuple(sorted(crystal.atoms.values())))


def is_neutral(crystal: Read) -> bool:
    """Whether one non-zero ICSD state an element makes the charges sum to zero."""
    states = [
        [q for q in Element(symbol).icsd_oxidation_states if q != 0] for symbol in crystal.atoms
    ]
    counts = np.array(list(crystal.atoms.values()))
    return any(int(counts @ choice) == 0 for choice in itertools.product(*states))


def is_neutral_by_guess(crystal: Read) -> bool:
    """Whether pymatgen guesses oxidation states, on the reduced formula."""
    return len(Composition(crystal.atoms).oxi_state_guesses(max_sites=-1)) > 0


def obeys(crystal: Read, where: Mapping[str, Any]) -> bool:
    """Whether a crystal satisfies the restrictions that the benchmark uses."""
    ranges = {"lengths": crystal.lengths, "angles": crystal.angles}
    most = where.get("n_atoms_per_element", math.inf)
    return (
        set(crystal.atoms) <= set(where.get("elements", crystal.atoms))
        and max(crystal.atoms.values()) <= most
        and where.get("lattice_system", lattice_system(crystal.group))
        == lattice_system(crystal.group)
        and all(
            where[key][0] <= value <= where[key][1]
            for key, values in ranges.items()
            if key in where
            for value in values
        )
    )


@cache
def _compatible(group: int, counts: tuple[int, ...]) -> bool:
    return bool(_group(group).check_compatible(list(counts))[0])


@cache
def _group(number: int) -> Any:
    from pyxtal.symmetry import Group

    return Group(number)

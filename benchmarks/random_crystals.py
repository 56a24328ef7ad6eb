"""Random charge-neutral crystals, straight from pyxtal: ordinary queries for the ladder."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
from pymatgen.core import Structure
from pyxtal import pyxtal
from pyxtal.lattice import Lattice
from pyxtal.symmetry import Group

OXIDATION_STATES = {
    "Li": 1, "Na": 1, "K": 1, "Mg": 2, "Ca": 2, "Al": 3, "Ti": 4, "Si": 4,
    "O": -2, "F": -1, "S": -2, "Cl": -1,
}  # fmt: skip
CATIONS = [element for element, state in OXIDATION_STATES.items() if state > 0]
ANIONS = [element for element, state in OXIDATION_STATES.items() if state < 0]


def random_crystals(n: int, seed: int, max_atoms: int = 12) -> list[Structure]:
    """Draw n placements with 2 or 3 elements, at most `max_atoms` in the conventional cell."""
    rng = np.random.default_rng(seed)
    crystals: list[Structure] = []
    while len(crystals) < n:
        composition = neutral_composition(rng, max_atoms)
        group = int(rng.integers(2, 231))
        counts = list(composition.values())
        if not Group(group).check_compatible(counts)[0]:
            continue
        volume = float(rng.uniform(8, 30)) * sum(counts)
        crystal = place(group, composition, volume, int(rng.integers(2**31)))
        if crystal is not None:
            crystals.append(crystal)
    return crystals


def neutral_composition(rng: np.random.Generator, max_atoms: int) -> dict[str, int]:
    """Element -> count of a random neutral cell of one or two cations and one anion."""
    while True:
        cations = rng.choice(CATIONS, size=int(rng.integers(1, 3)), replace=False).tolist()
        anion = str(rng.choice(ANIONS))
        counts = {cation: int(rng.integers(1, 5)) for cation in cations}
        charge = sum(OXIDATION_STATES[cation] * count for cation, count in counts.items())
        n_anions, rest = divmod(charge, -OXIDATION_STATES[anion])
        if rest == 0 and sum(counts.values()) + n_anions <= max_atoms:
            return {**counts, anion: n_anions}


def place(group: int, composition: dict[str, int], volume: float, seed: int) -> Structure | None:
    """One pyxtal placement in a random cell of `volume` (A^3), or None when it finds none."""
    crystal = pyxtal()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            lattice = Lattice(Group(group).lattice_type, volume, random_state=seed)
            lattice.random = False
            crystal.from_random(
                3, group, list(composition), list(composition.values()),
                lattice=lattice, random_state=seed, max_count=1,
            )  # fmt: skip
        except (RuntimeError, ValueError):
            return None
    if not crystal.valid:
        return None
    structure = crystal.to_pymatgen(resort=False)
    structure.properties["space_group"] = group
    return structure

"""The physical window: where the answer of a machine-learned potential means something.

A potential is trained near equilibrium and returns nonsense elsewhere, some of it splendid, and a
sampler that maximises its answers finds exactly that. So what lies outside the window is a failure
with a reason, never a victory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure


class Unphysical(Exception):  # noqa: N818 - it is an answer, not a mishap
    """A crystal outside the physical window; the one-line reason is its only argument."""


@dataclass(frozen=True)
class PhysicalWindow:
    """Bounds that a crystal must keep before, during and after its relaxation.

    `min_distance_ratio`: shortest distance between two atoms of a placement over the sum of their
    covalent radii (Cordero et al. 2008, doi 10.1039/b801115j). pyxtal draws down to 0.5.
    `min_relaxed_distance_ratio`: the same once positions and cell are relaxed. Bonds in known
    crystals are not below 0.7.
    `volume_per_atom`: A^3. Diamond has 5.7, caesium 117.
    `formation_energy`: eV/atom. The most stable known compounds, the fluorides of Ca, Sc, Y and La,
    reach -4.5. A placement that is not relaxed may lie far above 0.
    """

    min_distance_ratio: float
    min_relaxed_distance_ratio: float
    volume_per_atom: tuple[float, float]
    formation_energy: tuple[float, float]

    def __post_init__(self) -> None:
        """ValueError for a window that nothing, or nothing sensible, can pass."""
        for name in ("min_distance_ratio", "min_relaxed_distance_ratio"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")
        for name in ("volume_per_atom", "formation_energy"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"{name} must be (low, high) with low < high, not {(low, high)}")
        if self.volume_per_atom[0] <= 0:
            raise ValueError(f"volume_per_atom must be positive, not {self.volume_per_atom}")

    def check_volume(self, volume_per_atom: float) -> None:
        """Raise `Unphysical` for a cell that is too dense, too empty, or not a number."""
        low, high = self.volume_per_atom
        if not low <= volume_per_atom <= high:
            raise Unphysical(
                f"volume {volume_per_atom:.4g} A^3/atom is outside [{low:g}, {high:g}]"
            )

    def check_energy(self, formation_energy: float) -> None:
        """Raise `Unphysical` for an energy no crystal has, or that is not a number."""
        low, high = self.formation_energy
        if not low <= formation_energy <= high:
            raise Unphysical(
                f"formation energy {formation_energy:.4g} eV/atom is outside [{low:g}, {high:g}]"
            )

    def check_floor(self, formation_energy: float) -> None:
        """Like `check_energy`, for a crystal still to be relaxed: it may start from high up."""
        # min keeps NaN here, since NaN compares False with everything.
        self.check_energy(min(formation_energy, self.formation_energy[1]))

    def check_finite(self, structure: Structure) -> None:
        """Raise `Unphysical` for a cell or a position that is not a number."""
        numbers = (structure.lattice.matrix, structure.frac_coords)
        if not all(np.isfinite(array).all() for array in numbers):
            raise Unphysical("the cell or the coordinates are not finite numbers")

    def check_placement(self, structure: Structure) -> None:
        """Raise `Unphysical` for a wrong volume or overlapping atoms."""
        # The volume first: a neighbour search in a collapsed cell would never end.
        self.check_volume(structure.volume / len(structure))
        _check_distances(structure, self.min_distance_ratio)

    def check_relaxed(
        self, structure: Structure, formation_energy: float, cell_is_relaxed: bool
    ) -> None:
        """Raise `Unphysical` for a wrong volume, overlapping atoms or an impossible energy."""
        self.check_volume(structure.volume / len(structure))
        self.check_energy(formation_energy)
        # A cell that was given small keeps its atoms close, however they move.
        ratio = self.min_relaxed_distance_ratio if cell_is_relaxed else self.min_distance_ratio
        _check_distances(structure, ratio)


def _check_distances(structure: Structure, min_ratio: float) -> None:
    ratio, pair, distance = closest_pair(structure)
    if ratio < min_ratio:
        raise Unphysical(
            f"{pair} are {distance:.2f} A apart, {ratio:.2f} times their covalent radii;"
            f" at least {min_ratio:g} times is expected"
        )


def closest_pair(structure: Structure) -> tuple[float, str, float]:
    """The pair with the smallest distance over summed covalent radii: ratio, names, distance (A).

    The ratio is infinite when no two atoms (nor images) are within 4 A.
    """
    from ase.data import covalent_radii

    # 4 A: more than 0.7 of the longest sum of radii, 5.2 A for Fr-Fr.
    first, second, _, distances = structure.get_neighbor_list(4.0)
    if len(distances) == 0:
        return math.inf, "", math.inf
    radii = covalent_radii[np.array(structure.atomic_numbers)]
    ratios = distances / (radii[first] + radii[second])
    row = int(np.argmin(ratios))
    names = f"{structure[int(first[row])].specie} and {structure[int(second[row])].specie}"
    return float(ratios[row]), names, float(distances[row])

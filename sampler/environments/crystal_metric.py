"""How far apart two crystals are: by composition, cell and symmetry, before any atom is placed."""

from __future__ import annotations

import torch
from torch import Tensor

from sampler.distances import euclidean

_ANGLE_SCALE = 57.29577951308232
"""Degrees in a radian: an angle changed by one counts like a length changed by a factor of e."""


def crystal_distances(a: CrystalParts, b: CrystalParts) -> Tensor:
    """Mean of the distances of composition, cell and space group, each a metric in [0, 1].

    Named axes: a and b crystals of the two batches; returns `(a, b)` float64.

    - composition: half the sum of the differences of the atomic fractions: the share of the
      atoms that would have to be exchanged;
    - cell: 1 - exp(-r), where r is the root mean square difference of the logarithms of the three
      lengths and of the number of atoms, and of the three angles in radians;
    - space group: 0 for the same one, 1/2 in the same lattice system, else 1.
    """
    fractions = torch.cdist(a.fractions, b.fractions, p=1) / 2
    cells = -torch.expm1(-euclidean(a.cell, b.cell))
    is_same = a.group[:, None] == b.group[None, :]
    shares_system = a.system[:, None] == b.system[None, :]
    symmetry = 1.0 - 0.5 * shares_system.double() - 0.5 * is_same.double()
    return (fractions + cells + symmetry) / 3


class CrystalParts:
    """What `crystal_distances` compares: `fractions (n, e)`, `cell (n, 7)`, `group`, `system`."""

    def __init__(self, counts: Tensor, lattice: Tensor, group: Tensor, system: Tensor) -> None:
        """From atoms `counts (n, e)`, `lattice (n, 6)` (a, b, c in Å, angles in degrees)."""
        counts = counts.double()
        n_atoms = counts.sum(dim=1, keepdim=True)
        self.fractions = counts / n_atoms
        sizes = torch.cat([lattice[:, :3], n_atoms], dim=1).log()
        self.cell = torch.cat([sizes, lattice[:, 3:] / _ANGLE_SCALE], dim=1)
        self.group, self.system = group, system

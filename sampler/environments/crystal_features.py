"""What a surrogate sees of a crystal before any atom is placed: composition, cell and symmetry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pymatgen.core.periodic_table import Element
from torch import Tensor

from sampler.environments.crystal_elements import atomic_volumes, property_table, valences
from sampler.environments.crystal_symmetry import SYSTEMS, SpaceGroup

_ELECTRONEGATIVITY = 0


class CrystalFeatures:
    """Features of complete crystals, each scaled to about [0, 1], `(n, e + 30)` float64.

    Element fractions (e); composition-weighted mean and range of electronegativity, atomic radius,
    group, row and Mendeleev number (10); mean deviation of electronegativity, a measure of ionic
    bonding (1); number and Pauling energy of the bonds an atom has by its valences (2); atoms in
    the cell, volume an atom, share of the cell that atomic spheres fill (3, logarithms); log b/a
    and log c/a (2); cosines of the angles (3); lattice system (6); order of the point group,
    lattice points, inversion centre (3).
    """

    def __init__(self, elements: Sequence[Element], groups: Sequence[SpaceGroup]) -> None:
        self._properties = torch.from_numpy(property_table(elements))
        self._valences = torch.from_numpy(valences(elements))
        self._atomic_volumes = torch.from_numpy(atomic_volumes(elements))
        self._groups = torch.stack([group_features(group) for group in groups])
        self.width = len(elements) + 30

    def __call__(self, counts: Tensor, groups: Tensor, lattice: Tensor, volumes: Tensor) -> Tensor:
        """Features from atoms `(n, e)`, indices of space groups `(n,)`, a … gamma `(n, 6)`, Å³."""
        counts = counts.double()
        return torch.cat(
            [
                self._composition(counts),
                self._cell(counts, lattice, volumes),
                self._groups[groups],
            ],
            dim=1,
        )

    def _composition(self, counts: Tensor) -> Tensor:
        fractions = counts / counts.sum(dim=1, keepdim=True)
        mean = fractions @ self._properties
        present = (counts > 0)[:, :, None]
        high = self._properties.where(present, -torch.inf).amax(dim=1)
        low = self._properties.where(present, torch.inf).amin(dim=1)
        electronegativity = self._properties[:, _ELECTRONEGATIVITY]
        deviation = (electronegativity - mean[:, _ELECTRONEGATIVITY, None]).abs()
        ionicity = (fractions * deviation).sum(dim=1, keepdim=True)
        bonds = ionic_bonds(fractions, electronegativity * 4.0, self._valences)
        scaled = bonds / torch.tensor([2.0, 6.0], dtype=torch.float64)
        return torch.cat([fractions, mean, high - low, 2 * ionicity, scaled], dim=1)

    def _cell(self, counts: Tensor, lattice: Tensor, volumes: Tensor) -> Tensor:
        n_atoms = counts.sum(dim=1)
        packing = (counts @ self._atomic_volumes / volumes).log10()
        sizes = [
            n_atoms.log() / 4,  # 1 at 55 atoms
            (volumes / n_atoms).log10() - 0.5,  # 0 at 3 Å³ an atom, 1 at 32
            0.5 + packing / 2,
        ]
        axes = 0.5 + (lattice[:, 1:3] / lattice[:, :1]).log() / 4
        cosines = 0.5 + lattice[:, 3:].deg2rad().cos()
        return _squashed(torch.cat([torch.stack(sizes, dim=1), axes, cosines], dim=1))


def _squashed(features: Tensor) -> Tensor:
    """The same inside [0, 1], and bent to stay within (-0.5, 1.5) outside: cells may be absurd."""
    inside = features.clamp(0, 1)
    return inside + (2 * (features - inside)).tanh() / 2


def ionic_bonds(fractions: Tensor, electronegativity: Tensor, valences: Tensor) -> Tensor:
    """Bonds an atom and their ionic energy in eV/atom, `(n, 2)`, from `fractions (n, e)`.

        Σ over pairs of b_ij, and of b_ij (χ_j − χ_i)²

    (Pauling 1932, doi 10.1021/ja01348a011, equation 7: extra energy of a bond in eV.) An atom forms
    as many bonds to less electronegative ones as its negative valence says, `valences (e, 2)` of
    positive and negative ones; they share them by their positive valences, and have no more.
    """
    given = fractions * valences[:, 0]
    wanted = fractions * valences[:, 1]
    difference = electronegativity[None, :] - electronegativity[:, None]  # [i, j] = χ_j − χ_i
    share = given[:, :, None] * (difference > 0)
    total = share.sum(dim=1, keepdim=True)
    bonds = share * (wanted[:, None, :] / total.clamp(min=1e-12))
    used = bonds.sum(dim=2, keepdim=True)
    bonds = bonds * (given[:, :, None] / used.clamp(min=1e-12)).clamp(max=1.0)
    return torch.stack([bonds.sum(dim=(1, 2)), (bonds * difference**2).sum(dim=(1, 2))], dim=1)


def group_features(group: SpaceGroup) -> Tensor:
    """Lattice system one-hot, then logarithms of orders and inversion, `(9,)` float64."""
    system = [float(i == group.system) for i in range(len(SYSTEMS))]
    order = torch.tensor([group.point_group_order / 48, float(group.lattice_points)]).double()
    log_order = [1 + float(order[0].log()) / 3.9, float(order[1].log()) / 1.4]
    return torch.tensor([*system, *log_order, float(group.has_inversion)], dtype=torch.float64)

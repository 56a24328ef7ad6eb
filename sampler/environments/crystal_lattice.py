"""Lattices on a grid: free parameters of each lattice system, and which ones can still be reached.

Lengths are log-spaced, so the logarithm of a cell's volume is a whole number of steps plus a
constant: log V = 3 log a_min + step · Σ weight · bin + log f(angles). Whether a volume window can
be reached is then a test on integers, and exact. Slots of the parameters: alpha, beta, gamma, a,
b, c. Named axes: n rows, b bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sampler.environments.crystal_symmetry import SYSTEMS

PARAMETERS = ("a", "b", "c", "alpha", "beta", "gamma")
FREE_SLOTS: dict[str, tuple[int, ...]] = {
    "triclinic": (0, 1, 2, 3, 4, 5),
    "monoclinic": (1, 3, 4, 5),
    "orthorhombic": (3, 4, 5),
    "tetragonal": (3, 5),
    "hexagonal": (3, 5),
    "cubic": (3,),
}
"""Free parameters in the order in which they are chosen: angles first, then lengths."""

MIN_VOLUME_FACTOR = 0.1
"""Cells flatter than this (volume over a·b·c) are left out: they are no crystals."""

_TIED_TO_A = {"cubic": (4, 5), "tetragonal": (4,), "hexagonal": (4,)}
_SLACK = 1e-9


@dataclass(frozen=True)
class LatticeOptions:
    """Inclusive ranges: lengths in Å, angles in degrees, volume of an atom in Å³."""

    lengths: tuple[float, float]
    angles: tuple[float, float]
    n_bins: int
    volume_per_atom: tuple[float, float]


class LatticeGrid:
    """Bins of lattice parameters, with masks that keep the volume of an atom in its window.

    `bins` `(n, 6)` int64 everywhere: the bin of each slot plus one, 0 while it is not chosen.
    `systems` `(n,)` indexes `SYSTEMS`.
    """

    def __init__(self, options: LatticeOptions, max_atoms: int) -> None:
        self.options = options
        self.max_atoms = max_atoms
        self.n_bins = n_bins = options.n_bins
        self._log_shortest = math.log(options.lengths[0])
        self._log_step = math.log(options.lengths[1] / options.lengths[0]) / (n_bins - 1)
        bins = torch.arange(n_bins, dtype=torch.float64)
        self.lengths = (self._log_shortest + self._log_step * bins).exp()
        self.angles = torch.linspace(*options.angles, n_bins, dtype=torch.float64)
        self.n_free = torch.tensor([len(FREE_SLOTS[name]) for name in SYSTEMS])
        self.slot = torch.zeros(len(SYSTEMS), 7, dtype=torch.int64)
        self.weight = torch.zeros(len(SYSTEMS), 6, dtype=torch.int64)
        for i, name in enumerate(SYSTEMS):
            self.slot[i, : len(FREE_SLOTS[name])] = torch.tensor(FREE_SLOTS[name])
            self.weight[i, [s for s in FREE_SLOTS[name] if s >= 3]] = 1
            self.weight[i, 3] += len(_TIED_TO_A.get(name, ()))
        self._log_factors = {name: self._all_log_factors(name) for name in SYSTEMS}
        self._flat_log_factors = torch.cat([self._log_factors[name].view(-1) for name in SYSTEMS])
        self._first_factor, self._factor_stride = self._factor_index()
        self._angle_masks: dict[str, list[Tensor]] = {}

    def has_lattice(self, system: int) -> Tensor:
        """Whether a system has a lattice within the window for each number of atoms, bool."""
        by_atoms = self._has_lengths(SYSTEMS[system]).reshape(self.max_atoms + 1, -1)
        return by_atoms.any(dim=1)

    def allowed_bins(self, systems: Tensor, bins: Tensor, n_set: Tensor, n_atoms: Tensor) -> Tensor:
        """Bins that the next parameter may take, `(n, b)` bool; `n_set` `(n,)` are chosen."""
        slot = self.slot[systems, n_set]
        allowed = self._allowed_lengths(systems, bins, slot, n_atoms)
        if bool((slot >= 3).all()):
            return allowed
        for i, name in enumerate(SYSTEMS):
            free = [s for s in FREE_SLOTS[name] if s < 3]
            for n_chosen, next_slot in enumerate(free):
                rows = ((systems == i) & (slot == next_slot)).nonzero()[:, 0]
                if len(rows) > 0:
                    chosen = bins[rows][:, free[:n_chosen]] - 1
                    table = self._angle_tables(name)[n_chosen]
                    allowed[rows] = table[n_atoms[rows], *chosen.unbind(dim=1)]
        return allowed

    def parameters(self, systems: Tensor, bins: Tensor) -> Tensor:
        """Complete lattices as a, b, c (Å), alpha, beta, gamma (degrees), `(n, 6)` float64."""
        index = (bins - 1).clamp_min(0)
        angles, lengths = self.angles[index[:, :3]], self.lengths[index[:, 3:]]
        angles[bins[:, :3] == 0] = 90.0
        angles[systems == SYSTEMS.index("hexagonal"), 2] = 120.0
        for column in (1, 2):
            is_tied = bins[:, 3 + column] == 0
            lengths[is_tied, column] = lengths[is_tied, 0]
        return torch.cat([lengths, angles], dim=1)

    def log_volumes(self, systems: Tensor, bins: Tensor) -> Tensor:
        """Log of the volume (Å³) of complete lattices, `(n,)` float64."""
        total = self._length_sum(systems, bins)
        return 3 * self._log_shortest + self._log_step * total + self._log_factor(systems, bins)

    def room(self, systems: Tensor, bins: Tensor, n_atoms: Tensor) -> Tensor:
        """How far the summed length bins lie below both ends of the volume window, `(n, 2)`."""
        low, high = self._window(n_atoms, self._log_factor(systems, bins))
        total = self._length_sum(systems, bins)
        return torch.stack([low - total, high - total], dim=1)

    def nearest_bins(self, system: int, lattice: Sequence[float], snap: float) -> list[int]:
        """Bins `(6)` nearest to a, b, c (Å), alpha, beta, gamma (degrees).

        ValueError when a parameter, a tied or a fixed one included, is more than `snap` bins away
        from the lattice that the bins stand for.
        """
        given = torch.tensor(lattice, dtype=torch.float64)
        bins = torch.zeros(1, 6, dtype=torch.int64)
        for slot in FREE_SLOTS[SYSTEMS[system]]:
            grid, value = (
                (self.angles, given[3 + slot]) if slot < 3 else (self.lengths, given[slot - 3])
            )
            bins[0, slot] = 1 + (grid.log() - value.log()).abs().argmin()
        nearest = self.parameters(torch.tensor([system]), bins)[0]
        miss = torch.cat(
            [
                (nearest[:3] / given[:3]).log().abs() / self._log_step,
                (nearest[3:] - given[3:]).abs() / (self.angles[1] - self.angles[0]),
            ]
        )
        if not bool(miss.max() <= snap + _SLACK):
            worst = int(miss.argmax())
            raise ValueError(
                f"{PARAMETERS[worst]} = {given[worst].item():g} fits no {SYSTEMS[system]} lattice "
                f"of the grid; the nearest has {nearest[worst].item():g}"
            )
        return [int(b) for b in bins[0]]

    def _allowed_lengths(
        self, systems: Tensor, bins: Tensor, slot: Tensor, n_atoms: Tensor
    ) -> Tensor:
        room = self.room(systems, bins, n_atoms)
        weight = self.weight[systems, slot]
        taken = (self.weight[systems] * (bins > 0)).sum(dim=1)
        # What comes after has weight 1 each, so that every whole number up to this is reached.
        reach = (3 - taken - weight) * (self.n_bins - 1)
        step = weight[:, None] * torch.arange(self.n_bins)
        return (step <= room[:, 1:]) & (step + reach[:, None] >= room[:, :1])

    def _length_sum(self, systems: Tensor, bins: Tensor) -> Tensor:
        return (self.weight[systems] * (bins - 1).clamp_min(0)).sum(dim=1)

    def _window(self, n_atoms: Tensor, log_factor: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest sum of length bins whose volume lies in the window, int64."""
        log_volume = n_atoms.double().log() - log_factor - 3 * self._log_shortest
        smallest, largest = map(math.log, self.options.volume_per_atom)
        low = (log_volume + smallest) / self._log_step - _SLACK
        high = (log_volume + largest) / self._log_step + _SLACK
        return low.ceil().long(), high.floor().long()

    def _log_factor(self, systems: Tensor, bins: Tensor) -> Tensor:
        """Return log f(angles) of each row, `(n,)`; of meaning once its angles are chosen."""
        chosen = (bins[:, :3] - 1).clamp_min(0)
        index = self._first_factor[systems] + (self._factor_stride[systems] * chosen).sum(dim=1)
        return self._flat_log_factors[index]

    def _factor_index(self) -> tuple[Tensor, Tensor]:
        """Where a system's log f begin in the flat table `(s,)`, and each angle's stride there."""
        sizes = torch.tensor([self._log_factors[name].numel() for name in SYSTEMS])
        strides = torch.zeros(len(SYSTEMS), 3, dtype=torch.int64)
        for i, name in enumerate(SYSTEMS):
            free = [slot for slot in FREE_SLOTS[name] if slot < 3]
            strides[i, free] = torch.tensor(self._log_factors[name].stride(), dtype=torch.int64)
        return sizes.cumsum(0) - sizes, strides

    def _all_log_factors(self, name: str) -> Tensor:
        """Log f over the grid of a system's free angles, one axis each; -inf for flat cells."""
        constant = [90.0, 90.0, 120.0 if name == "hexagonal" else 90.0]
        free = [slot for slot in FREE_SLOTS[name] if slot < 3]
        grids = torch.meshgrid([self.angles] * len(free), indexing="ij") if free else ()
        angles = [torch.tensor(value, dtype=torch.float64) for value in constant]
        for slot, grid in zip(free, grids, strict=True):
            angles[slot] = grid
        factor = volume_factor(*angles)
        return factor.log().masked_fill(factor < MIN_VOLUME_FACTOR, -torch.inf).contiguous()

    def _has_lengths(self, name: str) -> Tensor:
        """Whether the window can be met, for 0 … max_atoms atoms and each choice of free angles."""
        log_factor = self._log_factors[name]
        is_flat = log_factor.isinf()
        n_atoms = torch.arange(self.max_atoms + 1).view(-1, *[1] * log_factor.ndim)
        # No atoms have no volume; the infinite logarithm must not reach the integers.
        low, high = self._window(n_atoms.clamp_min(1), log_factor.masked_fill(is_flat, 0.0))
        low, high = low.clamp_min(0), high.clamp_max(3 * (self.n_bins - 1))
        if name == "cubic":  # all three lengths are one, so only multiples of 3 are reached
            low, high = -(-low // 3), high // 3
        return (low <= high) & ~is_flat & (n_atoms > 0)

    def _angle_tables(self, name: str) -> list[Tensor]:
        """For each angle in turn: the bins that some completion needs, by atoms and past bins."""
        if name not in self._angle_masks:
            masks = [self._has_lengths(name)]
            while masks[0].ndim > 2:
                masks.insert(0, masks[0].any(dim=-1))
            self._angle_masks[name] = masks
        return self._angle_masks[name]


def volume_factor(alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """Volume of a cell over a·b·c from its angles in degrees; 0 where no such cell exists."""
    x, y, z = (angle.deg2rad().cos() for angle in (alpha, beta, gamma))
    return (1 - x**2 - y**2 - z**2 + 2 * x * y * z).clamp_min(0).sqrt()

"""Unit cells with continuous parameters: the range of each that still leads to a real cell.

Parameters are alpha, beta, gamma (degrees), a, b, c (Å) of the conventional cell, chosen in this
order, those that the lattice system leaves free. A cell is real when its volume is at least
`min_volume_factor` · abc; on request an atom's volume also lies in a range. `bounds` gives exactly
the values of the next parameter from which such a cell inside all ranges can be completed, so that
there is no dead end and nothing to reject.

`values` `(n, 6)` float64 hold the free parameters that are set; 0: not set, tied or fixed
(`complete` fills in those). They are multiples of 0.01 degrees and 0.0001 Å. Bounds are rounded
inward to these; where they leave no multiple, because the angles before were rounded, the nearest
one is taken. So lengths and angles keep their ranges exactly, volumes to within about 0.5 % in one
of some thousand cells. Where a largest volume per atom asks for flat cells, an angle has a gap.

An amount u of 0 … 1 is stretched over the range linearly for angles and in log a for lengths, each
multiple standing for the interval of values that round to it. `log_width` measures that stretch
against the whole range of the option: the reference measure is then uniform on the unit cube of
the free parameters, as in Crystal-GFN (arXiv 2310.04925), and a system with six of them does not
outweigh one with a single one. Named axes: n rows, s lattice systems.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sampler.environments.crystal_bounds import Bounds, Stretch, rounded_inward
from sampler.environments.crystal_parameters import (
    PARAMETERS,
    CellParameters,
    Ranges,
    check_volume_per_atom,
    conflict_of,
    lattice_of,
    read_ranges,
)
from sampler.environments.crystal_symmetry import SYSTEMS
from sampler.environments.crystal_volume import (
    angle_bounds,
    angle_bounds_or_nearest,
    determinant,
    length_bounds,
)

MIN_VOLUME_FACTOR = 0.1
"""Least volume over abc. Every lattice has a reduced cell with at least 1/√2, so this leaves out
lopsided descriptions, not crystals: it keeps the axes well apart from one plane."""

_SLACK = 1e-9  # what arithmetic may add to a limit of D, relative, or of an angle, degrees


class Cell(CellParameters):
    """Ranges of lattice parameters, and what they leave of each while a cell is built.

    `lengths` in Å and `angles` in degrees: [low, high], or one such range for each of a, b, c
    (alpha, beta, gamma). `volume_per_atom` in Å³. ValueError for ranges that are none, and where
    no lattice system has a cell.

    A value stands for the interval of 0.01 degrees or 0.0001 Å that rounds to it, and a sampler's
    density of it is the one at the middle of that interval, not the mean over it: near enough
    unless a range has a few values only (of a single value, 0.994 where it should be 1).
    """

    def __init__(
        self,
        lengths: Ranges,
        angles: Ranges,
        volume_per_atom: tuple[float, float] | None = None,
        min_volume_factor: float = MIN_VOLUME_FACTOR,
    ) -> None:
        if not 0 < min_volume_factor < 1:
            raise ValueError(f"min_volume_factor: expected 0 < f < 1, got {min_volume_factor:g}")
        check_volume_per_atom(volume_per_atom)
        self.min_volume_factor = min_volume_factor
        self.volume_per_atom = volume_per_atom
        super().__init__([*read_ranges("angles", angles), *read_ranges("lengths", lengths)])
        self.is_possible = torch.tensor([self.conflict(s) is None for s in range(len(SYSTEMS))])
        if not bool(self.is_possible.any()):
            reason = self.conflict(SYSTEMS.index("triclinic"))  # the least demanding one
            raise ValueError(f"lengths, angles: no lattice system has a cell: {reason}")

    def bounds(
        self, values: Tensor, systems: Tensor, parameter: Tensor, n_atoms: Tensor | None = None
    ) -> Bounds:
        """What `parameter` `(n,)`, not yet set, may be, given those before it in `values`.

        `n_atoms` `(n,)` are needed where the volume of an atom has a range. Rows whose parameter
        is 6 (complete) or -1 have bounds of no meaning, finite all the same.
        """
        if self.volume_per_atom is not None and n_atoms is None:
            raise ValueError("bounds: n_atoms are needed where volume_per_atom is given")
        parameter = parameter.clamp(0, 5)
        own = self._low[systems, parameter], self._high[systems, parameter]
        low, high = own
        done = self.complete(values, systems)
        if self.volume_per_atom is not None and n_atoms is not None:
            low, high = self._length_bounds(done, systems, parameter, n_atoms)
            low, high = torch.maximum(low, own[0]), torch.minimum(high, own[1])
        gap = None
        rows = (parameter < 3).nonzero()[:, 0]
        if len(rows) > 0:
            atoms = None if n_atoms is None else n_atoms[rows]
            first, last, gap = self._angle_bounds(done[rows], systems[rows], parameter[rows], atoms)
            low, high = low.index_put((rows,), first), high.index_put((rows,), last)
            if gap is not None:
                gap = (high.index_put((rows,), gap[0]), high.index_put((rows,), gap[1]))
        return rounded_inward(low, high, gap, self.per_unit[parameter], own)

    def is_possible_for(self, systems: Tensor, n_atoms: Tensor | None = None) -> Tensor:
        """Whether lattice systems `(n,)` have a cell for `n_atoms` `(n,)` in all, `(n,)` bool."""
        alpha = torch.zeros_like(systems)
        low, high = self._low[systems, :3], self._high[systems, :3]
        least, most = self._limits(systems, n_atoms)
        first, last, *_ = angle_bounds(low, high, alpha, least, most)
        is_possible = self._fits[systems] & (first <= last + _SLACK)
        if most is not None:
            is_possible &= least <= most
        return is_possible if n_atoms is None else is_possible & (n_atoms > 0)

    def possible_n_atoms(self, max_atoms: int) -> Tensor:
        """`is_possible_for` each system and 0 … max_atoms atoms, `(s, max_atoms + 1)` bool."""
        numbers = torch.arange(max(len(SYSTEMS), max_atoms + 1), device=self.free.device)
        systems = numbers[: len(SYSTEMS)].repeat_interleave(max_atoms + 1)
        n_atoms = numbers[: max_atoms + 1].repeat(len(SYSTEMS))
        return self.is_possible_for(systems, n_atoms).view(len(SYSTEMS), -1)

    def contains(self, values: Tensor, systems: Tensor, n_atoms: Tensor | None = None) -> Tensor:
        """Rows that are complete cells of this space, in whole multiples, `(n,)` bool.

        Without `n_atoms` the volume of an atom is not looked at.
        """
        if n_atoms is None and self.volume_per_atom is not None:
            of_any_volume = copy.copy(self)
            of_any_volume.volume_per_atom = None
            return of_any_volume.contains(values, systems)
        is_inside = self.is_possible_for(systems, n_atoms)
        is_inside &= ((values != 0) == self.free[systems]).all(dim=1)
        is_inside &= ((values * self.per_unit).round() / self.per_unit == values).all(dim=1)
        partial = torch.zeros_like(values)
        for p in range(len(PARAMETERS)):
            bounds = self.bounds(partial, systems, torch.full_like(systems, p), n_atoms)
            is_inside &= bounds.contain(values[:, p]) | ~self.free[systems, p]
            partial[:, p] = values[:, p]
        return is_inside

    def value(self, amounts: Tensor, bounds: Bounds, parameter: Tensor) -> Tensor:
        """Values at `amounts` `(n,)` of 0 … 1 within `bounds`, rounded, `(n,)`."""
        return self._stretch(bounds, parameter).value(amounts)

    def amount(self, values: Tensor, bounds: Bounds, parameter: Tensor) -> Tensor:
        """Amounts, 0 < u < 1, at which `value` gives `values` `(n,)`, which lie in `bounds`."""
        return self._stretch(bounds, parameter).amount(values)

    def amounts_inside(
        self, inner: Bounds, bounds: Bounds, parameter: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Smallest and largest amount in `bounds` whose value lies in a narrowed cell's `inner`.

        `(n,)` each. Where `inner` has a gap that `bounds` lack, on the wider side of it.
        """
        return self._stretch(bounds, parameter).amounts_inside(inner)

    def log_width(self, bounds: Bounds, parameter: Tensor) -> Tensor:
        """Log of the share of the option's range (log Å, degrees) that `bounds` leave, `(n,)`."""
        width = self._stretch(bounds, parameter).width
        return width.log() - self._log_whole[parameter.clamp(0, 5)]

    def nearest(
        self,
        lattice: Sequence[float],
        system: Tensor | int,
        n_atoms: int | None = None,
        tolerances: tuple[float, float] = (0.1, 0.01),
    ) -> Tensor:
        """`values` `(1, 6)` of a conventional cell a, b, c (Å), alpha, beta, gamma (degrees).

        ValueError where fixed angles or tied lengths are off by more than `tolerances` (degrees,
        Å), or the cell lies outside this space; without `n_atoms`, that is apart from its volume.
        """
        number, device = int(system), self.free.device
        row = lattice_of(number, lattice, tolerances)
        for p, (low, high) in enumerate(self.limits):
            if bool(self.free[number, p]) and not low <= row[p] <= high:
                raise ValueError(f"{PARAMETERS[p]} = {row[p]:g}: expected {low:g} to {high:g}")
        values = torch.tensor([row], dtype=torch.float64, device=device)
        systems = torch.tensor([number], device=device)
        atoms = None if n_atoms is None else torch.tensor([n_atoms], device=device)
        if bool(self.contains(values, systems, atoms)[0]):
            return values
        reason = self.conflict(number, n_atoms)
        if reason is None:
            limit = f"at least {self.min_volume_factor:g} · abc"
            if self.volume_per_atom is not None and n_atoms is not None:
                limit += " and {:g} to {:g} Å³ an atom".format(*self.volume_per_atom)
            volume = self.volume(values, systems).item()
            reason = f"lattice: its volume is {volume:g} Å³, expected {limit}"
        raise ValueError(reason)

    def conflict(self, system: int, n_atoms: int | None = None) -> str | None:
        """Say why a lattice system has no cell (of `n_atoms` atoms) in the ranges; None: it has."""
        low, high = zip(*self.limits, strict=True)
        reason = conflict_of(SYSTEMS[system], low, high)
        if reason is not None:
            return reason
        systems = torch.tensor([system], device=self.free.device)
        if not bool(self.is_possible_for(systems)[0]):
            return (
                f"angles {self._shown(0)}: no {SYSTEMS[system]} cell has a volume of at least "
                f"{self.min_volume_factor:g} · abc; bring the angles nearer to 90 degrees"
            )
        if n_atoms is None or bool(
            self.is_possible_for(systems, torch.full_like(systems, n_atoms))[0]
        ):
            return None
        return (
            f"volume_per_atom {list(self.volume_per_atom or ())}: no {SYSTEMS[system]} cell of "
            f"{n_atoms} atom{'s' * (n_atoms != 1)} has it with lengths {self._shown(3)} Å; widen "
            "one of the two"
        )

    def narrowed(
        self,
        lengths: Ranges | None = None,
        angles: Ranges | None = None,
    ) -> Cell:
        """This space cut down to inner ranges; a mapping may name some parameters only.

        ValueError where they lie outside, or no lattice system has a cell in them.
        """
        inner = [
            *read_ranges("angles", angles or {}, self.limits),
            *read_ranges("lengths", lengths or {}, self.limits),
        ]
        named = dict(zip(PARAMETERS, inner, strict=True))
        return Cell(
            {name: named[name] for name in PARAMETERS[3:]},
            {name: named[name] for name in PARAMETERS[:3]},
            self.volume_per_atom,
            self.min_volume_factor,
        )

    def ranges(self) -> str:
        """What this cell was asked for, as text."""
        text = f"lengths {self._shown(3)} Å, angles {self._shown(0)} degrees"
        if self.volume_per_atom is not None:
            text += ", volume_per_atom [{:g}, {:g}] Å³".format(*self.volume_per_atom)
        return text

    def _stretch(self, bounds: Bounds, parameter: Tensor) -> Stretch:
        parameter = parameter.clamp(0, 5)
        return Stretch(bounds, parameter >= 3, self.per_unit[parameter])

    def _limits(self, systems: Tensor, n_atoms: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Least and most D of which some lengths make an allowed volume, `(n,)`; None: 1."""
        least = torch.full_like(self._low[systems, 0], self.min_volume_factor**2)
        if n_atoms is None or self.volume_per_atom is None:
            return least, None
        log_low, log_high = self._log_volumes(n_atoms)
        shortest, longest = self._log_abc[:, systems]
        least = torch.maximum(least, (2 * (log_low - longest)).exp() * (1 - _SLACK))
        most = (2 * (log_high - shortest)).exp() * (1 + _SLACK)
        return least, most if bool((most < 1).any()) else None

    def _log_volumes(self, n_atoms: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the smallest and largest volume in Å³ of so many atoms, `(n,)` each."""
        smallest, largest = self.volume_per_atom or (0.0, math.inf)
        log_atoms = n_atoms.clamp_min(1).double().log()
        return log_atoms + math.log(smallest), log_atoms + math.log(largest)

    def _angle_bounds(
        self, done: Tensor, systems: Tensor, parameter: Tensor, n_atoms: Tensor | None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Low, high and gap (None: in no row) of angles, `(n,)` each."""
        is_set = done[:, :3] > 0
        low = torch.where(is_set, done[:, :3], self._low[systems, :3])
        high = torch.where(is_set, done[:, :3], self._high[systems, :3])
        least, most = self._limits(systems, n_atoms)
        first, last, *gap = angle_bounds_or_nearest(low, high, parameter, least, most)
        return first, last, None if most is None else (gap[0], gap[1])

    def _length_bounds(
        self, done: Tensor, systems: Tensor, parameter: Tensor, n_atoms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Low and high of lengths, for the sake of the volume alone, `(n,)` each."""
        own = parameter[:, None]
        weight, log_done = self.weight[systems], done.log()
        log_others = [
            (weight * torch.where(done > 0, log_done, table[systems]).scatter(1, own, 0.0)).sum(1)
            for table in (self._log_low, self._log_high)
        ]
        return length_bounds(
            self._log_volumes(n_atoms),
            determinant(done[:, :3]).clamp_min(1e-12).log() / 2,
            (log_others[0], log_others[1]),
            weight.gather(1, own)[:, 0].clamp_min(1),
        )

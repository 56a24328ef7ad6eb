"""Parameters of unit cells in each lattice system: which are free, tied or fixed, and their order.

`values` `(n, 6)` float64 hold alpha, beta, gamma (degrees), a, b, c (Å), those that the lattice
system leaves free; 0: not set, tied or fixed. `systems` `(n,)` index `SYSTEMS`. Named axes: n
rows, s lattice systems.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sampler.environments.crystal_ranges import (
    FREE,
    PER_UNIT,
    TIED_TO_A,
    Range,
    conflict_of,
    fixed_angle,
)
from sampler.environments.crystal_symmetry import SYSTEMS
from sampler.environments.crystal_volume import determinant


class CellParameters:
    """Tables of the six parameters inside their ranges, and what needs no more than these."""

    n_inputs = 18
    """Width of `inputs`."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self.limits = list(ranges)
        """[low, high] of each parameter that the options give, rounded inward."""
        low, high = torch.tensor(self.limits, dtype=torch.float64).unbind(dim=1)
        self.per_unit = torch.tensor(PER_UNIT, dtype=torch.float64)
        start, stop = low - 0.5 / self.per_unit, high + 0.5 / self.per_unit
        start, stop = (torch.cat([x[:3], x[3:].log()]) for x in (start, stop))
        self._centre, self._half_width = (start + stop) / 2, (stop - start) / 2
        self._log_whole = (stop - start).log()
        self.free = torch.zeros(len(SYSTEMS), 6, dtype=torch.bool)
        """Which parameters each lattice system leaves free, `(s, 6)` bool."""
        self.weight = torch.zeros(len(SYSTEMS), 6, dtype=torch.float64)
        """Power with which each free length enters the volume, `(s, 6)`."""
        self._low, self._high = low.repeat(len(SYSTEMS), 1), high.repeat(len(SYSTEMS), 1)
        self._fixed = torch.zeros(len(SYSTEMS), 6, dtype=torch.float64)
        self._source = torch.arange(6).repeat(len(SYSTEMS), 1)
        for s, name in enumerate(SYSTEMS):
            self.free[s, list(FREE[name])] = True
            tied = [3, *TIED_TO_A.get(name, ())]
            self._source[s, tied] = 3
            self._low[s, tied], self._high[s, tied] = low[tied].max(), high[tied].min()
            self._fixed[s, :3] = torch.tensor([fixed_angle(name, i) for i in range(3)])
            self.weight[s, 3:] = self._source[s, 3:].bincount(minlength=6)[3:].double()
        is_fixed = self._fixed > 0
        self._low = torch.where(is_fixed, self._fixed, self._low)
        self._high = torch.where(is_fixed, self._fixed, self._high)
        ends = list(zip(*self.limits, strict=True))
        self._fits = torch.tensor([conflict_of(name, *ends) is None for name in SYSTEMS])
        self.n_free = self.free.sum(dim=1)
        self._countdown = self.free * torch.arange(6, 0, -1)
        self._order = torch.arange(1, 7)
        self._log_low, self._log_high = self._low.log(), self._high.log()
        self._log_abc = torch.stack(
            [(self.weight * logs).sum(dim=1) for logs in (self._log_low, self._log_high)]
        )

    def next_parameter(self, values: Tensor, systems: Tensor) -> Tensor:
        """The parameter to set next, `(n,)` int64; 6: the cell is complete."""
        return 6 - ((values == 0) * self._countdown[systems]).amax(dim=1)

    def last_parameter(self, values: Tensor, systems: Tensor) -> Tensor:
        """The parameter that was set last, `(n,)` int64; -1: none is."""
        return ((values != 0) * self.free[systems] * self._order).amax(dim=1) - 1

    def complete(self, values: Tensor, systems: Tensor) -> Tensor:
        """`values` with tied and fixed parameters filled in, `(n, 6)`; 0 is left where not set."""
        return values.gather(1, self._source[systems]) + self._fixed[systems]

    def volume(self, values: Tensor, systems: Tensor) -> Tensor:
        """Volume of complete cells in Å³, `(n,)`."""
        done = self.complete(values, systems)
        return determinant(done[:, :3]).clamp_min(0).sqrt() * done[:, 3:].prod(dim=1)

    def inputs(self, values: Tensor, systems: Tensor) -> Tensor:
        """For the policy `(n, 18)` float32: parameters in [-1, 1], which are set, which is next."""
        done = self.complete(values, systems)
        is_set = done > 0
        drawn = torch.cat([done[:, :3], done[:, 3:].clamp_min(1e-9).log()], dim=1)
        scaled = ((drawn - self._centre) / self._half_width) * is_set
        is_next = self.next_parameter(values, systems)[:, None] == self._order - 1
        return torch.cat([scaled.float(), is_set.float(), is_next.float()], dim=1)

    def _shown(self, first: int) -> str:
        """Three ranges, from column `first`, as text."""
        pairs = [f"[{low:g}, {high:g}]" for low, high in self.limits[first : first + 3]]
        return pairs[0] if len(set(pairs)) == 1 else ", ".join(pairs)

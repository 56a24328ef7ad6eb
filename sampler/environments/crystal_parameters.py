"""Parameters of unit cells in each lattice system: which are free, tied or fixed, and their order.

`values` `(n, 6)` float64 hold alpha, beta, gamma (degrees), a, b, c (Å), those that the lattice
system leaves free; 0: not set, tied or fixed. `systems` `(n,)` index `SYSTEMS`. Named axes: n
rows, s lattice systems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, TypeGuard

import torch
from torch import Tensor

from sampler.environments.crystal_symmetry import SYSTEMS
from sampler.environments.crystal_volume import determinant

PARAMETERS = ("alpha", "beta", "gamma", "a", "b", "c")
"""The order in which parameters are chosen and stored: degrees, then Å."""
PER_UNIT = (100, 100, 100, 10_000, 10_000, 10_000)
"""Parameters are whole multiples of 1 / this: 0.01 degrees, 0.0001 Å. Keys print just that."""

FREE: dict[str, tuple[int, ...]] = {
    "triclinic": (0, 1, 2, 3, 4, 5),
    "monoclinic": (1, 3, 4, 5),
    "orthorhombic": (3, 4, 5),
    "tetragonal": (3, 5),
    "hexagonal": (3, 5),
    "cubic": (3,),
}
"""Parameters that a lattice system leaves free (monoclinic: unique axis b)."""
TIED_TO_A: dict[str, tuple[int, ...]] = {"tetragonal": (4,), "hexagonal": (4,), "cubic": (4, 5)}

Range = tuple[float, float]
Ranges = Sequence[float] | Mapping[str, Sequence[float]]
"""One [low, high] for all, or one for each of a, b, c (alpha, beta, gamma)."""

_GROUPS = {"angles": (0, 1, 2), "lengths": (3, 4, 5)}
_UNITS = {"angles": "degrees", "lengths": "Å"}
_SLACK = 1e-6


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

    def are_inside(self, complete: Tensor) -> Tensor:
        """Whether all six parameters of `complete` cells `(n, 6)` are in their ranges, `(n,)`."""
        low, high = torch.tensor(self.limits, dtype=torch.float64).to(complete.device).unbind(1)
        return ((low <= complete) & (complete <= high)).all(dim=1)

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


def fixed_angle(system: str, parameter: int) -> float:
    """The value in degrees that a lattice system gives to an angle; 0 for a free one."""
    if parameter in FREE[system]:
        return 0.0
    return 120.0 if (system, parameter) == ("hexagonal", 2) else 90.0


def read_ranges(name: str, given: Ranges, outer: Sequence[Range] | None = None) -> list[Range]:
    """Read `given`, the option `name` ("lengths" or "angles"), as three ranges of stored values.

    They are cut down to `outer`, the ranges of the space, which also stand for parameters that a
    mapping leaves out. ValueError for an unknown name, a range that is none, or one outside.
    """
    columns = _GROUPS[name]
    names = [PARAMETERS[column] for column in columns]
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(names))
        missing = [key for key in names if key not in given] if outer is None else []
        if unknown or missing:
            what = f"got {unknown}" if unknown else f"{missing} missing"
            raise ValueError(f"{name}: expected [low, high] for each of {names}, {what}")
        pairs = [given.get(key) for key in names]
    else:
        pairs = [given] * 3
    ranges = []
    for column, key, pair in zip(columns, names, pairs, strict=True):
        label = f"{name}: {key}" if isinstance(given, Mapping) else name
        whole = None if outer is None else outer[column]
        if pair is None and whole is not None:
            ranges.append(whole)
        else:
            ranges.append(_read_range(name, label, column, pair, whole))
    return ranges


def check_volume_per_atom(given: Any) -> None:
    """ValueError where `given` is neither None nor a range in Å³."""
    if given is not None and not (_is_pair(given) and 0 < given[0] < given[1] < math.inf):
        raise ValueError(
            f"volume_per_atom: expected [low, high] with 0 < low < high, in Å³, got {given!r}"
        )


def conflict_of(system: str, low: Sequence[float], high: Sequence[float]) -> str | None:
    """Say why ranges of the six parameters fit no cell of a system, flatness aside; or None."""
    for column in range(3):
        value = fixed_angle(system, column)
        if value > 0 and not low[column] <= value <= high[column]:
            return (
                f"{PARAMETERS[column]} [{low[column]:g}, {high[column]:g}]: {system} needs "
                f"{value:g} degrees; widen the range of angles"
            )
    for column in TIED_TO_A.get(system, ()):
        if max(low[3], low[column]) > min(high[3], high[column]):
            return (
                f"a [{low[3]:g}, {high[3]:g}] and {PARAMETERS[column]} [{low[column]:g}, "
                f"{high[column]:g}]: {system} needs equal lengths; let the ranges overlap"
            )
    return None


def lattice_of(
    system: int, lattice: Sequence[float], tolerances: tuple[float, float]
) -> list[float]:
    """Free parameters (0 for the rest, as states store them) of a, b, c, alpha, beta, gamma.

    `tolerances` in degrees and Å: how far fixed angles and tied lengths may be off. ValueError
    where they are further off, or no lattice was given.
    """
    if len(lattice) != 6 or not all(math.isfinite(x) and x > 0 for x in lattice):
        raise ValueError(
            f"lattice: expected a, b, c (Å) and alpha, beta, gamma (degrees), all positive, "
            f"got {list(lattice)}"
        )
    name = SYSTEMS[system]
    given = [float(x) for x in (*lattice[3:], *lattice[:3])]
    values = [given[column] if column in FREE[name] else 0.0 for column in range(6)]
    for column in range(3):
        needed = fixed_angle(name, column)
        if needed > 0 and abs(given[column] - needed) > tolerances[0]:
            raise ValueError(
                f"{PARAMETERS[column]} = {given[column]:g}: {name} needs {needed:g} degrees in the "
                f"conventional cell (to within {tolerances[0]:g})"
            )
    tied = (3, *TIED_TO_A.get(name, ()))
    lengths = [given[column] for column in tied]
    if max(lengths) - min(lengths) > tolerances[1]:
        shown = ", ".join(f"{PARAMETERS[column]} = {given[column]:g}" for column in tied)
        raise ValueError(
            f"{shown}: {name} needs equal lengths in the conventional cell (to within "
            f"{tolerances[1]:g} Å)"
        )
    values[3] = sum(lengths) / len(lengths)
    return [round(x * unit) / unit for x, unit in zip(values, PER_UNIT, strict=True)]


def _is_pair(given: Any) -> TypeGuard[Sequence[float]]:
    are_numbers = isinstance(given, list | tuple) and all(
        isinstance(x, Real) and not isinstance(x, bool) for x in given
    )
    return are_numbers and len(given) == 2


def _read_range(
    name: str, label: str, column: int, pair: Sequence[float] | None, outer: Range | None
) -> Range:
    unit, per_unit = _UNITS[name], PER_UNIT[column]
    if not _is_pair(pair):
        raise ValueError(f"{label}: expected [low, high] in {unit}, got {pair!r}")
    low, high = (float(end) for end in pair)
    least, most = (0.0, 180.0) if name == "angles" else (0.0, math.inf)
    if not least < low <= high < most:
        limits = "0 < low ≤ high < 180" if name == "angles" else "0 < low ≤ high, both finite"
        raise ValueError(f"{label}: expected [low, high] with {limits}, got [{low:g}, {high:g}]")
    if outer is not None:
        if high < outer[0] or low > outer[1]:
            raise ValueError(
                f"{label}: [{low:g}, {high:g}] lies outside [{outer[0]:g}, {outer[1]:g}] {unit}, "
                "the range of the space"
            )
        low, high = max(low, outer[0]), min(high, outer[1])
    first, last = math.ceil(low * per_unit - _SLACK), math.floor(high * per_unit + _SLACK)
    if not 1 <= first <= last:
        raise ValueError(
            f"{label}: [{low:g}, {high:g}] holds no multiple of {1 / per_unit:g} {unit}; widen it"
        )
    return first / per_unit, last / per_unit

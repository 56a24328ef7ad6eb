"""Ranges of lattice parameters: reading, narrowing and rounding them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sampler.environments.crystal_symmetry import SYSTEMS

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
            ranges.append(_read_range(name, label, column, pair or (), whole))
    return ranges


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


def _read_range(
    name: str, label: str, column: int, pair: Sequence[float], outer: Range | None
) -> Range:
    unit, per_unit = _UNITS[name], PER_UNIT[column]
    try:
        low, high = (float(end) for end in pair)
    except (TypeError, ValueError):
        raise ValueError(f"{label}: expected [low, high] in {unit}, got {pair!r}") from None
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

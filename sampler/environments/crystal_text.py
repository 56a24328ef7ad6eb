"""The key of a crystal as text, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sampler.environments.crystal_placement import Blueprint
from sampler.environments.crystal_wyckoff_positions import wyckoff_positions

_ATOMS = re.compile(r"([A-Z][a-z]?)([1-9][0-9]*)")
_SITE = re.compile(r"([A-Z][a-z]?):([a-zA])(?:\(([0-9.,]+)\))?")

NamedSite = tuple[str, str, tuple[float, float, float]]
"""Symbol of the element, letter of the Wyckoff position, free coordinates (0 where not free)."""


def format_key(space_group: int, counts: Mapping[str, int], lattice: Sequence[float]) -> str:
    """Text such as `Mg4 O4 | 225 | 4.2100 4.2100 4.2100 | 90.00 90.00 90.00`.

    Four digits of a length and two of an angle are all that a state has.
    """
    atoms = " ".join(f"{symbol}{n}" for symbol, n in counts.items())
    lengths = " ".join(f"{length:.4f}" for length in lattice[:3])
    angles = " ".join(f"{angle:.2f}" for angle in lattice[3:])
    return f"{atoms} | {space_group} | {lengths} | {angles}"


def format_sites(space_group: int, sites: Sequence[NamedSite]) -> str:
    """Text such as `Mg:c(0.2500) O:a`: sites with the coordinates that they leave free."""
    axes = {position.letter: position.axes for position in wyckoff_positions(space_group)}
    words = []
    for symbol, letter, point in sites:
        free = ",".join(f"{point[axis]:.4f}" for axis in axes[letter])
        words.append(f"{symbol}:{letter}({free})" if free else f"{symbol}:{letter}")
    return " ".join(words)


def parse_key(key: str) -> Blueprint:
    """Read what `format_key` wrote; ValueError shows the form that was expected."""
    parts = [part.split() for part in key.split("|")]
    if len(parts) != 4 or [len(part) for part in parts[1:]] != [1, 3, 3]:
        raise _malformed(key)
    atoms = [_ATOMS.fullmatch(word) for word in parts[0]]
    counts = {match[1]: int(match[2]) for match in atoms if match is not None}
    if len(counts) != len(parts[0]):
        raise _malformed(key)
    try:
        lattice = tuple(float(word) for word in [*parts[2], *parts[3]])
        return Blueprint(key, int(parts[1][0]), counts, lattice)
    except ValueError as error:
        raise _malformed(key) from error


def parse_key_with_sites(key: str) -> tuple[Blueprint, list[NamedSite]]:
    """Read `format_key`, ` | ` and `format_sites`; ValueError says what is wrong."""
    if key.count("|") != 4:
        raise _malformed(key)
    head, _, tail = key.rpartition("|")
    blueprint = parse_key(head)
    try:
        return blueprint, _parsed_sites(blueprint.space_group, tail)
    except ValueError as error:
        raise ValueError(f"key {key!r}: {error}") from error


def _parsed_sites(space_group: int, text: str) -> list[NamedSite]:
    axes = {position.letter: position.axes for position in wyckoff_positions(space_group)}
    return [_parsed_site(word, axes, space_group) for word in text.split()]


def _parsed_site(word: str, axes: Mapping[str, tuple[int, ...]], space_group: int) -> NamedSite:
    match = _SITE.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r}: expected a site such as O:a or O:e(0.2500)")
    symbol, letter, numbers = match.groups()
    if letter not in axes:
        raise ValueError(f"{word!r}: space group {space_group} has no Wyckoff position {letter}")
    free = [float(number) for number in numbers.split(",")] if numbers else []
    if len(free) != len(axes[letter]):
        raise ValueError(
            f"{word!r}: position {letter} of space group {space_group} has {len(axes[letter])} "
            f"free coordinates, got {len(free)}"
        )
    point = [0.0, 0.0, 0.0]
    for axis, value in zip(axes[letter], free, strict=True):
        point[axis] = value
    return symbol, letter, (point[0], point[1], point[2])


def _malformed(key: str) -> ValueError:
    return ValueError(
        f"key {key!r}: expected text such as 'Mg4 O4 | 225 | 4.2100 4.2100 4.2100 | 90.00 90.00 "
        "90.00', and ' | Mg:a O:b' where the space has positions"
    )

"""The key of a crystal as text, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sampler.environments.crystal_placement import Blueprint

_ATOMS = re.compile(r"([A-Z][a-z]?)([1-9][0-9]*)")


def format_key(space_group: int, counts: Mapping[str, int], lattice: Sequence[float]) -> str:
    """Text such as `Mg4 O4 | 225 | 4.2100 4.2100 4.2100 | 90.00 90.00 90.00`.

    Four digits of a length and two of an angle tell the bins of any allowed grid apart.
    """
    atoms = " ".join(f"{symbol}{n}" for symbol, n in counts.items())
    lengths = " ".join(f"{length:.4f}" for length in lattice[:3])
    angles = " ".join(f"{angle:.2f}" for angle in lattice[3:])
    return f"{atoms} | {space_group} | {lengths} | {angles}"


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


def _malformed(key: str) -> ValueError:
    return ValueError(
        f"key {key!r}: expected text such as 'Mg4 O4 | 225 | 4.2100 4.2100 4.2100 | 90.00 90.00 "
        "90.00'"
    )

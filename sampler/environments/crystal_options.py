"""Checks of the crystal space's options, before anything is enumerated."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sampler.environments.crystal_lattice import LatticeOptions

_MAX_BINS = 100
_MAX_ATOMS = 200


def check_options(
    elements: Sequence[str],
    space_groups: Sequence[int],
    n_elements: tuple[int, int],
    n_atoms: tuple[int, int],
    n_atoms_per_element: tuple[int, int],
    lattice: LatticeOptions,
) -> None:
    """Raise a ValueError that names the first impossible option."""
    if len(elements) == 0:
        raise ValueError("elements: expected at least one symbol")
    if len(space_groups) == 0 or len(set(space_groups)) < len(space_groups):
        raise ValueError("space_groups: expected at least one number, none of them twice")
    for name, (low, high) in {
        "n_elements": n_elements,
        "n_atoms": n_atoms,
        "n_atoms_per_element": n_atoms_per_element,
    }.items():
        if not 1 <= low <= high:
            raise ValueError(f"{name}: expected 1 <= low <= high, got [{low}, {high}]")
    if n_elements[0] > len(elements):
        raise ValueError(f"n_elements: at least {n_elements[0]} asked, {len(elements)} listed")
    if n_atoms[1] > _MAX_ATOMS:
        raise ValueError(f"n_atoms: expected at most {_MAX_ATOMS}, got {n_atoms[1]}")
    _check_lattice(lattice)


def _check_lattice(options: LatticeOptions) -> None:
    for name, (low, high) in {
        "lengths": options.lengths,
        "angles": options.angles,
        "volume_per_atom": options.volume_per_atom,
    }.items():
        if not (math.isfinite(high) and 0 < low < high):
            raise ValueError(f"{name}: expected 0 < low < high, got [{low:g}, {high:g}]")
    if options.angles[1] >= 180:
        raise ValueError(f"angles: expected less than 180 degrees, got {options.angles[1]:g}")
    if not 2 <= options.n_bins <= _MAX_BINS:
        raise ValueError(f"n_bins: expected from 2 to {_MAX_BINS}, got {options.n_bins}")
    # Keys write lengths with four digits and angles with two; bins must differ in them.
    ratio = (options.lengths[1] / options.lengths[0]) ** (1 / (options.n_bins - 1))
    angle_step = (options.angles[1] - options.angles[0]) / (options.n_bins - 1)
    if options.lengths[0] * (ratio - 1) < 1e-3 or angle_step < 0.1:
        raise ValueError(
            f"n_bins: {options.n_bins} bins are closer than 0.001 Å or 0.1 degrees; "
            "take fewer, or wider lengths and angles"
        )

"""Density of a crystal: exact, and free of any model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from oracles.oracle import Answer, NotRun


class Density:
    """Density of a crystal in g/cm³, exactly: the mass of a cell's atoms over its volume.

        density = (sum over sites of the atomic mass) / volume,  1 amu/A^3 = 1.66053907 g/cm^3

    with pymatgen's atomic masses (IUPAC standard weights). Answers also have `volume_per_atom`
    (A^3). A candidate is a pymatgen `Structure`; what is none, has no atoms or whose cell is flat
    or not finite is a `NotRun` answer, each for its own row alone.
    """

    properties = ("density", "volume_per_atom")
    batch_size = 256
    version = "1"

    def __init__(self, fidelity: str, cost: float) -> None:
        if not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost must be a number >= 0, not {cost}")
        self.fidelity = fidelity
        self.cost = cost

    def query(self, candidates: Sequence[Any]) -> list[Answer]:
        """`{"density": …, "volume_per_atom": …}` of each candidate, in order, or a `NotRun`."""
        return [_density(candidate) for candidate in candidates]


def _density(candidate: Any) -> Answer:
    from pymatgen.core.structure import Structure

    if not isinstance(candidate, Structure):
        return NotRun(f"expected a pymatgen Structure, got {type(candidate).__name__}")
    if len(candidate) == 0:
        return NotRun("expected at least one atom, got an empty structure")
    volume = float(candidate.volume)
    if not (math.isfinite(volume) and volume > 0):
        return NotRun(f"expected a cell with a volume, got {volume:g} A^3")
    return {
        "density": float(candidate.density),
        "volume_per_atom": volume / len(candidate),
    }

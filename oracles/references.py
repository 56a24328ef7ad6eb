"""The shipped table of elemental reference energies: `chgnet_references.json`."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core.composition import Composition


@cache
def reference_text() -> str:
    """The table as it lies on disk."""
    return files("oracles").joinpath("chgnet_references.json").read_text(encoding="utf-8")


@cache
def reference_energies() -> dict[str, float]:
    """Element -> CHGNet 0.3.0 energy of its most stable prototype, eV/atom."""
    table = json.loads(reference_text())["elements"]
    return {element: float(entry["energy_ev_per_atom"]) for element, entry in table.items()}


def elemental_energy(composition: Composition) -> float:
    """Energy of the elements that a crystal is made of, eV per atom of the crystal.

    ValueError names an element that the table lacks.
    """
    energies = reference_energies()
    missing = sorted({element.symbol for element in composition.elements} - set(energies))
    if missing:
        raise ValueError(
            f"no CHGNet reference energy for {', '.join(missing)}; there is one for"
            f" {' '.join(energies)}"
        )
    return sum(
        composition.get_atomic_fraction(element) * energies[element.symbol]
        for element in composition.elements
    )

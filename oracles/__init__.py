"""Oracles: programs, models and people that answer queries at one fidelity and cost."""

from __future__ import annotations

from oracles.oracle import Answer, NotRun, Oracle

ORACLES: dict[str, str] = {
    "band_gap": "oracles.band_gap:BandGap",
    "branin": "oracles.branin:Branin",
    "chgnet": "oracles.crystals:CHGNetFormationEnergy",
    "density": "oracles.density:Density",
    "ehrlich": "oracles.sequences:Ehrlich",
    "hartmann": "oracles.hartmann:Hartmann",
    "park": "oracles.park:Park",
    "tabulated": "oracles.tabulated:Tabulated",
}
"""Kind -> "module:Class". Modules are named, not imported: some of them load heavy libraries."""

__all__ = ["ORACLES", "Answer", "NotRun", "Oracle"]

"""Band gap of a crystal, as its composition tells it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from oracles.band_gap_model import REFERENCES, GapModel, Reference, gap_model
from oracles.oracle import Answer, NotRun


class BandGap:
    """Band gap of a crystal in eV, estimated from its composition alone.

    An ensemble of eight small networks (`band_gap_model.npz`, made by
    `python -m oracles.make_band_gap_model`) over Magpie-like statistics of the elements' properties
    (Ward et al. 2016, doi 10.1038/npjcompumats.2016.28) and the balance of ionic charges. It
    learned from 106 113 PBE gaps of the Materials Project and 4992 measured ones (see the script
    for both), and answers like either:

    - `reference="experiment"`: measured gaps. Over compositions that a network has not seen the
      mean absolute error is 0.34 eV (0.51 eV over those with a gap) and the root mean square
      0.73 eV; metal or not is right for 88 %.
    - `reference="pbe"`: PBE gaps, which lie below measured ones by a third or more. Mean absolute
      error 0.37 eV over compositions not seen; polymorphs of one composition are part of that.

    Neither position nor cell counts: polymorphs share an answer, so it cannot rank structures of
    one composition, and says nothing of whether a crystal is stable. Trained without any of them,
    it gave (measured in brackets) MgO 6.8 (7.8), NaCl 8.5 (8.5), GaAs 1.1 (1.4), ZnS 3.3 (3.7),
    Si 1.3 (1.1), LiF 12.9 (14.2), CaF2 10.9 (11.8), TiO2 3.0 (3.0), but SiO2 2.7 (8.9),
    NiO 0.0 (4.3), Fe2O3 0.9 (2.2): silica, and oxides of open shells, are its weakness.

    `band_gap_sd` is the spread of the networks: less than the error.
    Compositions with elements above plutonium, and what is no pymatgen `Structure` or has no atoms,
    are `NotRun` answers, each for its own row alone. Milliseconds a candidate.
    """

    properties = ("band_gap", "band_gap_sd")
    batch_size = 256

    def __init__(self, fidelity: str, cost: float, reference: Reference = "experiment") -> None:
        if reference not in REFERENCES:
            raise ValueError(f"reference must be experiment or pbe, not {reference!r}")
        if not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost must be a number >= 0, not {cost}")
        self.fidelity = fidelity
        self.cost = cost
        self.reference = reference
        self.version = f"1 {reference} {gap_model().digest}"

    def query(self, candidates: Sequence[Any]) -> list[Answer]:
        """`{"band_gap": …, "band_gap_sd": …}` of each candidate, in order, or a `NotRun`."""
        model, output = gap_model(), REFERENCES.index(self.reference)
        return [_gap(model, output, candidate) for candidate in candidates]


def _gap(model: GapModel, output: int, candidate: Any) -> Answer:
    from pymatgen.core.structure import Structure

    if not isinstance(candidate, Structure):
        return NotRun(f"expected a pymatgen Structure, got {type(candidate).__name__}")
    if len(candidate) == 0:
        return NotRun("expected at least one atom, got an empty structure")
    composition = candidate.composition.element_composition.fractional_composition
    try:
        mean, sd = model.predict(composition.get_el_amt_dict())
    except ValueError as reason:
        return NotRun(str(reason))
    return {"band_gap": float(mean[output]), "band_gap_sd": float(sd[output])}

"""Formation energy of one crystal with CHGNet, step by step; see `oracles.crystals`."""

from __future__ import annotations

from typing import Literal

from pymatgen.core.structure import Structure

from oracles.oracle import NotRun
from oracles.physical_window import PhysicalWindow, Unphysical
from oracles.placement import placements, with_space_group
from oracles.potential import Relaxed, limited_threads, relax, single_point
from oracles.references import elemental_energy

PRIMITIVE_TOLERANCE = 0.01
"""A; how far atoms may lie from a lattice translation that makes the cell smaller."""


def formation_energy(
    structure: Structure,
    *,
    relaxation: Literal["none", "positions", "cell"],
    n_placements: int,
    max_steps: int,
    fmax: float,
    window: PhysicalWindow,
    threads: int,
) -> dict[str, float]:
    """The properties `CHGNetFormationEnergy` answers with.

    `NotRun` when the potential was not asked, `Unphysical` when its answer means nothing.
    """
    try:
        elements = elemental_energy(structure.composition)
        possible = possible_placements(structure, n_placements, window)
    except (ValueError, Unphysical) as reason:
        raise NotRun(str(reason)) from reason
    with limited_threads(threads):
        best = lowest(possible, elements, window, relaxed_later=relaxation != "none")
        if relaxation != "none":
            best = relaxed(best, elements, relaxation, fmax, max_steps, window)
    return {
        "formation_energy_per_atom": best.energy - elements,
        "volume_per_atom": best.structure.volume / len(best.structure),
        "n_relax_steps": float(best.n_steps),
        "n_placements": float(len(possible)),
    }


def possible_placements(
    structure: Structure, n_placements: int, window: PhysicalWindow
) -> list[Structure]:
    """Primitive cells of the placements inside the window; the first one's reason if none is."""
    if not structure.is_ordered:
        raise ValueError("expected an ordered structure: one element on each site")
    window.check_finite(structure)
    if n_placements > 1:
        structure = with_space_group(structure)
    possible, reasons = [], []
    for placement in placements(structure, n_placements):
        try:
            window.check_placement(placement)
        except Unphysical as reason:
            reasons.append(reason)
        else:
            possible.append(placement.get_primitive_structure(tolerance=PRIMITIVE_TOLERANCE))
    if not possible:
        raise reasons[0]
    return possible


def lowest(
    structures: list[Structure], elements: float, window: PhysicalWindow, relaxed_later: bool
) -> Relaxed:
    """The structure of lowest energy inside the window, as it is."""
    answers, reasons = [], []
    for structure in structures:
        try:
            energy = single_point(structure)
            check = window.check_floor if relaxed_later else window.check_energy
            check(energy - elements)
        except Unphysical as reason:
            reasons.append(reason)
        else:
            answers.append(Relaxed(structure, energy, 0, True))
    if not answers:
        raise reasons[0]
    return min(answers, key=lambda answer: answer.energy)


def relaxed(
    start: Relaxed,
    elements: float,
    relaxation: Literal["positions", "cell"],
    fmax: float,
    max_steps: int,
    window: PhysicalWindow,
) -> Relaxed:
    """Relax the positions, then (`cell`) positions and cell together, inside the window."""

    def watch(volume_per_atom: float, energy: float) -> None:
        window.check_volume(volume_per_atom)
        window.check_floor(energy - elements)

    end, n_steps = start, 0
    for relax_cell in (False, True) if relaxation == "cell" else (False,):
        end = relax(
            end.structure, relax_cell=relax_cell, fmax=fmax, max_steps=max_steps, watch=watch
        )
        n_steps += end.n_steps
    if not end.is_converged:
        raise Unphysical(f"forces above {fmax:g} eV/A after {max_steps} relaxation steps")
    window.check_relaxed(end.structure, end.energy - elements, relaxation == "cell")
    return Relaxed(end.structure, end.energy, n_steps, True)

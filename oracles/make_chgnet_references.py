"""Makes `chgnet_references.json`: the energy of each element with CHGNet 0.3.0.

`python -m oracles.make_chgnet_references [ELEMENT …]` relaxes every plausible crystal of every
element (or of those named, keeping the others), keeps the lowest, prints it, and writes the table
after each element, so that it may be stopped at any time. About 15 minutes on one core.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from ase.data import atomic_numbers, covalent_radii
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from oracles.physical_window import Unphysical, closest_pair
from oracles.potential import MODEL_VERSION, Relaxed, limited_threads, relax

TABLE = Path(__file__).with_name("chgnet_references.json")
FMAX = 0.02
MAX_STEPS = 400

COVALENT = ["B", "C", "Si", "P", "Ge", "As", "Se", "Sb", "Te"]
METALS = [
    *("Li", "Na", "K", "Rb", "Cs", "Be", "Mg", "Ca", "Sr", "Ba"),
    *("Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Al", "Ga", "In", "Sn"),
    *("Y", "Zr", "Nb", "Mo", "Ag", "Cd", "La", "Hf", "Ta", "W", "Pb", "Bi"),
]
MOLECULAR = ["H", "N", "O", "F", "S", "Cl", "Br", "I"]
"""Held at the measured cell, only positions relaxed: PBE, and so CHGNet, has no dispersion, which
binds these crystals, and their cells drift off to dilute phases that the potential overbinds."""


def packed(element: str) -> Iterator[tuple[str, Structure]]:
    """Packings of a metal: fcc, bcc, hcp and double hcp, neighbours at two covalent radii."""
    d = 2.1 * covalent_radii[atomic_numbers[element]]
    a, c = d, d * math.sqrt(8 / 3)
    cubic = Lattice.cubic
    yield "fcc", _crystal("Fm-3m", cubic(d * math.sqrt(2)), element, [(0, 0, 0)])
    yield "bcc", _crystal("Im-3m", cubic(d * 2 / math.sqrt(3)), element, [(0, 0, 0)])
    yield "hcp", _crystal("P6_3/mmc", Lattice.hexagonal(a, c), element, [(1 / 3, 2 / 3, 1 / 4)])
    yield (
        "double hcp",
        _crystal(
            "P6_3/mmc", Lattice.hexagonal(a, 2 * c), element, [(0, 0, 0), (1 / 3, 2 / 3, 1 / 4)]
        ),
    )


def special(element: str) -> Iterator[tuple[str, Structure]]:
    """Structures of elements that do not pack simply, in the cells of their own crystals."""
    hexagonal = Lattice.hexagonal
    cells: dict[str, tuple[list[str], str, Lattice, list[tuple[float, float, float]]]] = {
        "alpha-B12": (["B"], "R-3m", hexagonal(4.91, 12.57),
                      [(0.1187, -0.1187, 0.8912), (0.1968, -0.1968, 0.0243)]),
        "graphite": (["C"], "P6_3/mmc", hexagonal(2.46, 6.71),
                     [(0, 0, 1 / 4), (1 / 3, 2 / 3, 1 / 4)]),
        "black P": (["P", "As"], "Cmce", Lattice.orthorhombic(3.31, 10.48, 4.38),
                    [(0, 0.1017, 0.0806)]),
        "alpha-Ga": (["Ga"], "Cmce", Lattice.orthorhombic(4.52, 7.66, 4.53), [(0, 0.1549, 0.081)]),
        "alpha-Mn": (["Mn"], "I-43m", Lattice.cubic(8.91),
                     [(0, 0, 0), (0.317, 0.317, 0.317), (0.357, 0.357, 0.035),
                      (0.089, 0.089, 0.282)]),
        "beta-Sn": (["Sn", "Ga", "In"], "I4_1/amd", Lattice.tetragonal(5.83, 3.18), [(0, 0, 0)]),
    }  # fmt: skip
    for name, (elements, group, lattice, sites) in cells.items():
        if element in elements:
            yield name, _crystal(group, lattice, element, sites)
    if element in ("C", "Si", "Ge", "Sn"):
        a = 2 * covalent_radii[atomic_numbers[element]] * 4 / math.sqrt(3)
        yield "diamond", _crystal("Fd-3m", Lattice.cubic(a), element, [(0, 0, 0)])
    if element in ("P", "As", "Sb", "Bi"):
        size = covalent_radii[atomic_numbers[element]] / covalent_radii[atomic_numbers["As"]]
        cell = hexagonal(3.76 * size, 10.55 * size)
        yield "alpha-As", _crystal("R-3m", cell, element, [(0, 0, 0.227)])
    if element in ("Se", "Te"):
        size = covalent_radii[atomic_numbers[element]] / covalent_radii[atomic_numbers["Se"]]
        cell = hexagonal(4.37 * size, 4.96 * size)
        yield "gray Se", _crystal("P3_121", cell, element, [(0.2254, 0, 1 / 3)])


def molecular(element: str) -> tuple[str, Structure]:
    """The crystal of molecules that an element is at low temperature, in its measured cell."""
    orthorhombic = Lattice.orthorhombic
    crystals = {
        # Molecules of H2 and F2 really lie in P6_3/mmc and C2/c; as dense, and as loosely bound.
        "H": ("alpha-N2", "Pa-3", Lattice.cubic(5.31), (0.0407, 0.0407, 0.0407)),
        "N": ("alpha-N2", "Pa-3", Lattice.cubic(5.66), (0.0566, 0.0566, 0.0566)),
        "O": (
            "alpha-O2",
            "C2/m",
            Lattice.monoclinic(5.403, 3.429, 5.086, 132.5),
            (0.111, 0, 0.161),
        ),
        "F": ("alpha-N2", "Pa-3", Lattice.cubic(5.05), (0.0812, 0.0812, 0.0812)),
        "S": ("S6", "R-3", Lattice.hexagonal(10.82, 4.28), (0.1454, 0.1882, 0.1055)),
        "Cl": ("Cl2", "Cmce", orthorhombic(6.15, 4.46, 8.15), (0, 0.1175, 0.1015)),
        "Br": ("Cl2", "Cmce", orthorhombic(6.57, 4.47, 8.69), (0, 0.1410, 0.1100)),
        "I": ("Cl2", "Cmce", orthorhombic(7.14, 4.69, 9.78), (0, 0.1543, 0.1174)),
    }
    name, group, lattice, site = crystals[element]
    return name, _crystal(group, lattice, element, [site])


def prototypes(element: str) -> list[tuple[str, Structure]]:
    """Names and starting crystals of everything an element is tried in."""
    if element in MOLECULAR:
        return [molecular(element)]
    return [*(packed(element) if element in METALS else ()), *special(element)]


def lowest_prototype(element: str) -> tuple[str, Relaxed]:
    """Name and relaxed crystal of lowest energy; RuntimeError when none converges."""
    found: list[tuple[str, Relaxed]] = []
    is_molecular = element in MOLECULAR
    for name, structure in prototypes(element):
        try:
            end = relax(
                structure,
                relax_cell=not is_molecular,
                fmax=FMAX,
                max_steps=MAX_STEPS,
                watch=_stay_finite,
            )
        except (Unphysical, ValueError) as reason:
            print(f"  {element} {name}: {reason}")
            continue
        if end.is_converged and closest_pair(end.structure)[0] > 0.65:
            found.append((name, end))
    if not found:
        raise RuntimeError(f"no prototype of {element} converged")
    return min(found, key=lambda item: item[1].energy)


def _stay_finite(volume_per_atom: float, energy: float) -> None:
    if not (3 < volume_per_atom < 200 and math.isfinite(energy)):
        raise Unphysical(f"{volume_per_atom:.3g} A^3/atom, {energy:.3g} eV/atom")


def _crystal(
    group: str, lattice: Lattice, element: str, sites: list[tuple[float, float, float]]
) -> Structure:
    structure = Structure.from_spacegroup(group, lattice, [element] * len(sites), sites)
    return structure.get_primitive_structure(tolerance=0.01)


def write(elements: dict[str, dict[str, str | float]]) -> None:
    """Write the table, sorted by atomic number."""
    table = {
        "about": "Energies of the elements with CHGNet; made by oracles.make_chgnet_references",
        "chgnet": version("chgnet"),
        "model": MODEL_VERSION,
        "fmax_ev_per_angstrom": FMAX,
        "elements": {name: elements[name] for name in sorted(elements, key=atomic_numbers.get)},
    }
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def main(names: list[str]) -> None:
    """Make the table, or renew the elements named."""
    elements: dict[str, dict[str, str | float]] = (
        json.loads(TABLE.read_text(encoding="utf-8"))["elements"] if names else {}
    )
    for name in names or [*MOLECULAR, *COVALENT, *METALS]:
        prototype, end = lowest_prototype(name)
        elements[name] = {
            "energy_ev_per_atom": round(end.energy, 6),
            "prototype": prototype,
            "volume_per_atom": round(end.structure.volume / len(end.structure), 3),
        }
        write(elements)
        print(name, *elements[name].values(), flush=True)


if __name__ == "__main__":
    with limited_threads(1):
        main(sys.argv[1:])

"""Writes wyckoff_table.json, wyckoff_sites.json and covalent_radii.json from pyxtal's data.

Run `python -m sampler.environments.make_wyckoff_table` after a change of pyxtal; the tables are
shipped, so that a campaign does not need pyxtal to know which crystals are possible.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pymatgen.core.periodic_table import Element
from pyxtal.symmetry import Group
from pyxtal.tolerance import Tol_matrix

TABLE = Path(__file__).with_name("wyckoff_table.json")
SITES = Path(__file__).with_name("wyckoff_sites.json")
RADII = Path(__file__).with_name("covalent_radii.json")
_LATTICE_POINTS = {"P": 1, "A": 2, "C": 2, "I": 2, "R": 3, "F": 4}


def row(number: int) -> dict[str, Any]:
    """Symbol, point group and site multiplicities (conventional cell) of one space group.

    `free`: multiplicities of sites with a free coordinate, which may be used again and again;
    `fixed`: multiplicity → how many sites without one, each of which holds one orbit only.
    """
    group = Group(number)
    free = {site.multiplicity for site in group if site.get_dof() > 0}
    fixed = Counter(site.multiplicity for site in group if site.get_dof() == 0)
    lattice_points = _LATTICE_POINTS[group.symbol[0]]
    return {
        "number": number,
        "symbol": group.symbol,
        "point_group_order": max(site.multiplicity for site in group) // lattice_points,
        "lattice_points": lattice_points,
        "has_inversion": bool(group.inversion),
        "free": sorted(free),
        # A free site of the same multiplicity makes the fixed ones redundant.
        "fixed": {str(m): n for m, n in sorted(fixed.items()) if m not in free},
    }


def sites_row(number: int) -> dict[str, Any]:
    """Wyckoff positions of one space group, a first: letter, multiplicity, a point of the orbit.

    `hall_number` names pyxtal's setting among spglib's 530: the symmetry operations that make an
    orbit of the point come from there.
    """
    group = Group(number)
    sites = [
        [site.letter, site.multiplicity, site.ops[0].as_xyz_str().replace(" ", "")]
        for site in reversed(list(group))
    ]
    return {"number": number, "hall_number": int(group.hall_number), "sites": sites}


def radii() -> dict[str, float]:
    """Covalent radii of all elements up to Pu, Å; pyxtal's "atomic" tolerance is half their sum."""
    tolerances = Tol_matrix(prototype="atomic")
    symbols = [Element.from_Z(z).symbol for z in range(1, 95)]
    return {symbol: round(float(tolerances.get_tol(symbol, symbol)), 6) for symbol in symbols}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSON list, one space group a line."""
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    write(TABLE, [row(number) for number in range(1, 231)])
    write(SITES, [sites_row(number) for number in range(1, 231)])
    RADII.write_text(json.dumps(radii(), indent=0) + "\n")

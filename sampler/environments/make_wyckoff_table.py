"""Writes wyckoff_table.json: of each of the 230 space groups, what the crystal space needs.

Run `python -m sampler.environments.make_wyckoff_table` after a change of pyxtal; the table is
shipped, so that a campaign does not read pyxtal's data base to know which crystals are possible.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pyxtal.symmetry import Group

TABLE = Path(__file__).with_name("wyckoff_table.json")
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


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(row(number)) for number in range(1, 231))
    TABLE.write_text(f"[\n{lines}\n]\n")

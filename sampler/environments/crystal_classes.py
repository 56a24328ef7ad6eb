"""Classes of space groups: crystal-lattice systems and point symmetries (Crystal-GFN's two).

Source: Mila AI4Science et al. 2023, Crystal-GFN (arXiv 2310.04925), section 3.1: a space group is
reached through its crystal-lattice system and its point symmetry, each of which narrows the other.
"""

from __future__ import annotations

from bisect import bisect_left

CRYSTAL_LATTICE_SYSTEMS = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "trigonal_rhombohedral",
    "trigonal_hexagonal",
    "hexagonal",
    "cubic",
)
"""Crystal systems, the trigonal one split by its lattice (R or P)."""

LATTICE_SYSTEMS = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "rhombohedral",
    "hexagonal",
    "cubic",
)
CRYSTAL_SYSTEMS = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "trigonal",
    "hexagonal",
    "cubic",
)

POINT_SYMMETRIES = ("centrosymmetric", "enantiomorphic", "polar", "enantiomorphic_polar", "none")
"""What a point group has: an inversion centre; only rotations; a polar axis; the last two; none."""

_LAST_OF_CRYSTAL_SYSTEM = (2, 15, 74, 142, 167, 194, 230)
_RHOMBOHEDRAL = (146, 148, 155, 160, 161, 166, 167)

# Last space group of each of the 32 point groups, in the order of the International Tables.
_LAST_OF_POINT_GROUP = (
    (1, "enantiomorphic_polar"),  # 1
    (2, "centrosymmetric"),  # -1
    (5, "enantiomorphic_polar"),  # 2
    (9, "polar"),  # m
    (15, "centrosymmetric"),  # 2/m
    (24, "enantiomorphic"),  # 222
    (46, "polar"),  # mm2
    (74, "centrosymmetric"),  # mmm
    (80, "enantiomorphic_polar"),  # 4
    (82, "none"),  # -4
    (88, "centrosymmetric"),  # 4/m
    (98, "enantiomorphic"),  # 422
    (110, "polar"),  # 4mm
    (122, "none"),  # -42m
    (142, "centrosymmetric"),  # 4/mmm
    (146, "enantiomorphic_polar"),  # 3
    (148, "centrosymmetric"),  # -3
    (155, "enantiomorphic"),  # 32
    (161, "polar"),  # 3m
    (167, "centrosymmetric"),  # -3m
    (173, "enantiomorphic_polar"),  # 6
    (174, "none"),  # -6
    (176, "centrosymmetric"),  # 6/m
    (182, "enantiomorphic"),  # 622
    (186, "polar"),  # 6mm
    (190, "none"),  # -6m2
    (194, "centrosymmetric"),  # 6/mmm
    (199, "enantiomorphic"),  # 23
    (206, "centrosymmetric"),  # m-3
    (214, "enantiomorphic"),  # 432
    (220, "none"),  # -43m
    (230, "centrosymmetric"),  # m-3m
)


def crystal_system(number: int) -> str:
    """One of `CRYSTAL_SYSTEMS` for a space group 1 … 230."""
    return CRYSTAL_SYSTEMS[bisect_left(_LAST_OF_CRYSTAL_SYSTEM, number)]


def lattice_system(number: int) -> str:
    """One of `LATTICE_SYSTEMS`: trigonal groups are rhombohedral (R) or hexagonal (P)."""
    if crystal_system(number) == "trigonal":
        return "rhombohedral" if number in _RHOMBOHEDRAL else "hexagonal"
    return crystal_system(number)


def crystal_lattice_system(number: int) -> str:
    """One of `CRYSTAL_LATTICE_SYSTEMS`."""
    if crystal_system(number) == "trigonal":
        return f"trigonal_{lattice_system(number)}"
    return crystal_system(number)


def point_symmetry(number: int) -> str:
    """One of `POINT_SYMMETRIES`."""
    return next(symmetry for last, symmetry in _LAST_OF_POINT_GROUP if number <= last)

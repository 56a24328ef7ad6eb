"""Checks of the crystal space's options, before anything is tabulated."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_ATOMS = 400
_MAX_ELEMENTS = 7
PARTS = ("space_group", "composition", "lattice")


def check_options(
    elements: Sequence[str],
    space_groups: Sequence[int],
    n_elements: tuple[int, int],
    n_atoms: tuple[int, int],
    n_atoms_per_element: tuple[int, int],
    volume_per_atom: tuple[float, float] | None,
    order: Sequence[str],
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
    for name, high, most in (
        ("n_atoms", n_atoms[1], _MAX_ATOMS),
        ("n_elements", n_elements[1], _MAX_ELEMENTS),
    ):
        if high > most:
            raise ValueError(f"{name}: expected at most {most}, got {high}")
    _check_order(order, volume_per_atom is not None)


def _check_order(order: Sequence[str], has_volume: bool) -> None:
    if sorted(order) != sorted(PARTS):
        raise ValueError(f"order: expected {', '.join(PARTS)} in some order, got {list(order)}")
    if order.index("lattice") < order.index("space_group"):
        raise ValueError("order: the lattice comes after the space_group, which says what is free")
    if has_volume and order[-1] != "lattice":
        raise ValueError(
            f"order: with volume_per_atom the lattice comes last, got {list(order)}: which cells "
            "are allowed then depends on the number of atoms"
        )

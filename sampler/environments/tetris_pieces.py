"""The seven tetrominoes, and every way to put one over the columns of a board."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

PIECES: dict[str, list[str]] = {
    "I": ["#", "#", "#", "#"],
    "J": [".#", ".#", "##"],
    "L": ["#.", "#.", "##"],
    "O": ["##", "##"],
    "S": [".##", "##."],
    "T": ["###", ".#."],
    "Z": ["##.", ".##"],
}
"""Shapes before rotation, numbered 1 … 7 in this order, as in the package gflownet."""


class Placement(NamedTuple):
    """A piece in one rotation over certain columns; cells count from the lowest one it can have."""

    name: str  # letter, degrees unless 0, @, leftmost column: `L90@2`
    piece: int  # 1 … 7
    height: int
    cells: tuple[tuple[int, int], ...]  # (column, row), lowest row first, from the left
    bottoms: tuple[tuple[int, int, int], ...]  # (column, lowest row, row above the highest)


def placements(piece: str, width: int, height: int, rotations: bool) -> Iterator[Placement]:
    """Distinct rotations of `piece`, 0 to 270 degrees, over all columns that hold them."""
    shape = np.array([[cell == "#" for cell in row] for row in PIECES[piece]])
    seen: list[list[list[bool]]] = []
    for turn in range(4 if rotations else 1):
        turned = np.rot90(shape, turn)
        if turned.tolist() in seen:
            continue
        seen.append(turned.tolist())
        cells = [(x, y) for y, x in np.argwhere(turned[::-1]).tolist()]
        n_rows, n_columns = turned.shape
        for left in range(width - n_columns + 1 if n_rows <= height else 0):
            yield Placement(
                name=f"{piece}{90 * turn or ''}@{left}",
                piece=1 + list(PIECES).index(piece),
                height=n_rows,
                cells=tuple((left + x, y) for x, y in cells),
                bottoms=tuple((left + x, *_span(cells, x)) for x in range(n_columns)),
            )


def _span(cells: list[tuple[int, int]], column: int) -> tuple[int, int]:
    rows = [y for x, y in cells if x == column]
    return min(rows), max(rows) + 1


def checked_pieces(pieces: Any, known: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The pieces in the order of `known`, each once."""
    chosen = list(pieces) if isinstance(pieces, str | list | tuple) else None
    if not chosen or not set(chosen) <= set(known):
        raise ValueError(f"{name}: expected some of {', '.join(known)}, got {pieces!r}")
    return tuple(piece for piece in known if piece in chosen)

"""Full boards: which stacks can still be filled, and all of them by exhaustive search."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sampler.environments.tetris_pieces import PIECES, Placement

if TYPE_CHECKING:
    from sampler.environments.tetris import Tetris

MAX_PROFILES = 1_000_000


class CanSatisfy:
    """Whether a board has only allowed pieces and, if wished, can still be filled with them."""

    def __init__(self, space: Tetris, pieces: tuple[str, ...], is_full: bool) -> None:
        numbers = torch.tensor([0] + [1 + list(PIECES).index(piece) for piece in pieces])
        self.width, self.height, self.is_full = space.width, space.height, is_full
        self.is_allowed = torch.isin(space.piece_of, numbers)
        if is_full:
            allowed = [p for p in space.placements if p.piece in numbers.tolist()]
            self.can_fill = torch.from_numpy(_fillable(space.width, space.height, allowed))
            self.digits = (space.height + 1) ** torch.arange(space.width)

    def __call__(self, states: Tensor) -> Tensor:
        """Whether each state can, `(n,)` bool."""
        cells, heights = states[:, self.width : -1], states[:, : self.width]
        satisfies = self.is_allowed[cells].all(1)
        if self.is_full:
            n_filled = (cells > 0).sum(1)
            satisfies &= n_filled == heights.sum(1)  # what an overhang covers stays empty
            satisfies &= self.can_fill[(heights * self.digits).sum(1)]
            satisfies &= (n_filled == self.width * self.height) | (states[:, -1] == 0)
        return satisfies


def full_boards(environment: Tetris, max_boards: int = 1_000_000) -> Tensor:
    """Every full board of a space, once each: terminal states `(n, w)`.

    All tilings, by filling the first empty cell in every way that fits, less those that no order
    of drops makes. Uses nothing of the space's masks to find tilings. ValueError above
    `max_boards` tilings.
    """
    codes: list[list[int]] = []
    for tiling in _tilings(environment):
        if len(codes) == max_boards:
            raise ValueError(f"full_boards: more than max_boards = {max_boards} tilings")
        cells = [0] * (environment.width * environment.height)
        for action, row in tiling:
            for which, (x, y) in enumerate(environment.placements[action].cells):
                cells[(row + y) * environment.width + x] = 1 + 4 * action + which
        codes.append(cells)
    states = environment.initial_states(len(codes))
    states[:, environment.width : -1] = torch.tensor(codes, dtype=torch.int64).reshape(
        len(codes), environment.width * environment.height
    )
    states[:, : environment.width] = environment.height
    states[:, -1] = 1
    is_buildable = environment.lifted(states.to(environment.piece_of.device))[1]
    return states[is_buildable.cpu()]


def _tilings(space: Tetris) -> Iterator[list[tuple[int, int]]]:
    """All tilings of the board, as (action, lowest row) of their pieces."""
    by_first: dict[int, list[tuple[int, int, int]]] = {}
    for action, placement in enumerate(space.placements):
        for row in range(space.height - placement.height + 1):
            bits = [1 << (row + y) * space.width + x for x, y in placement.cells]
            by_first.setdefault(bits[0], []).append((sum(bits), action, row))
    full = (1 << space.width * space.height) - 1

    @cache
    def choices(filled: int) -> list[tuple[int, int, int]]:
        """Ways to cover the first empty cell after which the rest can be covered."""
        ways = by_first.get(~filled & (filled + 1), [])
        open_ways = [way for way in ways if not way[0] & filled]
        return [way for way in open_ways if filled | way[0] == full or choices(filled | way[0])]

    def extended(filled: int) -> Iterator[list[tuple[int, int]]]:
        if filled == full:
            yield []
            return
        for bits, action, row in choices(filled):
            for rest in extended(filled | bits):
                yield [(action, row), *rest]

    yield from extended(0)


def _fillable(width: int, height: int, placements: list[Placement]) -> np.ndarray[Any, Any]:
    """For stacks without holes, by heights as digits of a number: can drops fill the board?

    Exact: a full board never had a hole, and without holes what fits depends on heights alone.
    """
    n_profiles = (height + 1) ** width
    if n_profiles > MAX_PROFILES:
        raise ValueError(
            f"where: full: a board of {width} x {height} has {n_profiles} stack outlines; "
            f"the exact search takes at most {MAX_PROFILES} (6 x 6 has 117649)"
        )
    if width * height % 4:
        raise ValueError(
            f"where: full: {width} x {height} cells are no multiple of four: no board is full"
        )
    digits = (height + 1) ** np.arange(width)
    heights = np.arange(n_profiles)[:, None] // digits % (height + 1)
    n_filled = heights.sum(1)
    can_fill: np.ndarray[Any, Any] = n_filled == width * height
    for n in range(width * height - 4, -1, -4):
        profiles = np.flatnonzero(n_filled == n)
        for placement in placements:
            columns, bottoms, tops = np.array(placement.bottoms).T
            rows = heights[np.ix_(profiles, columns)] - bottoms
            fits = (rows == rows[:, :1]).all(1) & (rows[:, 0] >= 0)
            fits &= rows[:, 0] + placement.height <= height
            gain = int(((tops - bottoms) * digits[columns]).sum())
            can_fill[profiles[fits]] |= can_fill[profiles[fits] + gain]
    return can_fill

"""Boards filled with tetrominoes that drop straight down, as in Tetris."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sampler.distances import hamming
from sampler.environment import Candidate, Environment
from sampler.environments.tetris_full import CanSatisfy, full_boards
from sampler.environments.tetris_pieces import PIECES, checked_pieces, placements
from sampler.restriction import Restricted, check_keys

__all__ = ["Tetris", "full_boards"]


class Tetris(Environment):
    """Drop pieces anywhere, stop at any time.

    An action is a piece, in one of its distinct rotations, over a leftmost column: it comes to
    lie on the first thing below it, so what an overhang covers stays as it is. It is allowed
    unless the piece would stick out at the top. The last action stops. State
    `(width + height · width + 1)`: heights of the columns; the cells row by row from the bottom,
    1 + 4 · action + (which of the piece's four cells) or 0; then 1 once stopped. Cells know their
    piece, so a board is the same in whichever order it was built, two stacks of equal outline are
    not, and the pieces that may have come last are those with nothing above them.

    A candidate is an int32 array `(height, width)`, top row first: 0 where empty, else the number
    of the piece 1 … 7 plus ten times a serial number that tells pieces apart (counted from the
    bottom left). Piece numbers alone would leave open how a block of equal numbers is cut.
    `where` keys: `pieces` (the only ones allowed), `full` (true: no cell stays empty).
    Source: the Tetris environment of the package gflownet (Alex Hernández-García).
    """

    def __init__(
        self,
        width: int,
        height: int,
        pieces: Sequence[str] = tuple(PIECES),
        rotations: bool = True,
    ) -> None:
        if width < 1 or height < 1:
            raise ValueError(f"width, height: expected at least 1, got {width} and {height}")
        self.width, self.height = width, height
        self.pieces = checked_pieces(pieces, tuple(PIECES), "pieces")
        self.placements = [
            placement
            for piece in self.pieces
            for placement in placements(piece, width, height, rotations)
        ]
        if not self.placements:
            raise ValueError(f"pieces: none of {self.pieces} fits a board of {width} x {height}")
        self.n_actions = len(self.placements) + 1
        self.n_policy_inputs = 3 * width * height + width + 1
        self.n_features = 3 * width * height + len(self.pieces)
        self.max_steps = width * height // 4 + 1
        self._make_action_tables()
        self._make_fit_tables()
        self._make_code_tables()

    def _make_action_tables(self) -> None:
        """`_moves` (a, 6, 4): columns, their lowest rows, rows above their highest, and for the
        four cells their places in the lowest row, the size of a row, and their codes.

        Columns of narrow pieces are repeated, which changes no maximum. Stopping is a piece of
        nothing that sets the last column of the state wherever it comes to lie.
        """
        width, stop = self.width, self.width * (self.height + 1)
        moves = [
            [
                *zip(*_repeated(placement.bottoms), strict=True),
                [width * (1 + y) + x for x, y in placement.cells],
                [width] * 4,
                range(1 + 4 * action, 5 + 4 * action),
            ]
            for action, placement in enumerate(self.placements)
        ]
        moves.append([[0] * 4, [0] * 4, [0] * 4, [stop] * 4, [0] * 4, [1] * 4])
        self._moves = torch.tensor([[list(part) for part in move] for move in moves])
        self._n_columns = torch.tensor([len(p.bottoms) for p in self.placements] + [-1])
        self._ordinals = torch.arange(1, self.n_actions + 1)
        self._across, self._up = torch.arange(width), torch.arange(1, self.height + 1)

    def _make_fit_tables(self) -> None:
        """What blocks actions: a column above height - 1 … height - 4, and having stopped.

        `_watched` state columns above their `_highest` block the actions of their row of `_blocks`.
        """
        pairs = [(column, depth) for column in range(self.width) for depth in (1, 2, 3, 4)]
        stop = self.width * (self.height + 1)
        self._watched = torch.tensor([*(column for column, _ in pairs), stop])
        self._highest = torch.tensor([*(self.height - depth for _, depth in pairs), 0])
        self._blocks = torch.zeros(len(self._watched), self.n_actions)
        self._blocks[-1] = 1
        for action, placement in enumerate(self.placements):
            for column, bottom, _ in placement.bottoms:
                self._blocks[4 * column + placement.height - bottom - 1, action] = 1

    def _make_code_tables(self) -> None:
        """Tables by cell code: action, piece, what the policy sees; and the code's own cell."""
        cells = [(p, x, y) for p in self.placements for x, y in p.cells]
        actions = torch.arange(len(self.placements)).repeat_interleave(4)
        # An empty column counts for stopping, whose count is never looked at.
        self._action_of = torch.cat([torch.tensor([len(self.placements)]), actions])
        self.piece_of = torch.tensor([0] + [p.piece for p, _, _ in cells])
        joints = [(1, (x - 1, y) in p.cells, (x, y - 1) in p.cells) for p, x, y in cells]
        self._sight_of = torch.tensor([(0, 0, 0), *joints]).float()

    def initial_states(self, n: int) -> Tensor:
        """The empty board."""
        return torch.zeros(n, self.width * (self.height + 1) + 1, dtype=torch.int64)

    def forward_mask(self, states: Tensor) -> Tensor:
        """Pieces that come to lie below the top, and stopping."""
        is_blocked = (states[:, self._watched] > self._highest).float()
        return is_blocked @ self._blocks == 0

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Drop a piece, or stop."""
        moves = self._moves.index_select(0, actions)
        columns, bottoms, tops, offsets, sizes, codes = moves.unbind(1)
        rows = (states.gather(1, columns) - bottoms).amax(1, keepdim=True)
        children = states.scatter(1, columns, rows + tops)
        return children.scatter_(1, offsets.addcmul_(rows, sizes), codes)

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once stopped."""
        return states[:, -1] == 1

    def backward_mask(self, states: Tensor) -> Tensor:
        """Pieces that are the highest in all their columns; after stopping, only to go on."""
        # The cell below the height of an empty column would be the height itself, which is 0.
        tops = states.gather(1, states[:, : self.width] * self.width + self._across)
        counts = states.new_zeros(len(states), self.n_actions)
        counts.scatter_add_(1, self._action_of[tops], torch.ones_like(tops))
        is_stopped = states[:, -1:] == 1
        mask = (counts == self._n_columns) & ~is_stopped
        mask[:, -1:] = is_stopped
        return mask

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Lift the highest piece of this action off, or go on."""
        columns, _, tops, offsets, sizes, _ = self._moves.index_select(0, actions).unbind(1)
        rows = (states.gather(1, columns) - tops)[:, :1]
        return self._with_heights(states.scatter(1, offsets.addcmul_(rows, sizes), 0))

    def policy_inputs(self, states: Tensor) -> Tensor:
        """For each cell whether it is filled, joined to its left, joined to below; heights; stop.

        Which neighbours belong together says where each piece lies.
        """
        sights = self._sights(self._cells(states))
        return torch.cat([sights, states[:, : self.width] / self.height, states[:, -1:]], dim=1)

    @property
    def feature_blocks(self) -> tuple[tuple[str, int], ...]:
        """What each cell shows, as a set; then the shares."""
        return (("set", self.n_features - len(self.pieces)), ("continuous", len(self.pieces)))

    def features(self, states: Tensor) -> Tensor:
        """The same of each cell, then the share of the cells that each piece fills; float64."""
        cells = self._cells(states)
        pieces = self.piece_of[cells]
        shares = [(pieces == 1 + list(PIECES).index(p)).double().mean(1) for p in self.pieces]
        sights = self._sights(cells).double()
        return torch.cat([sights, torch.stack(shares, dim=1)], dim=1)

    def keys(self, states: Tensor) -> list[str]:
        """Pieces in an order in which they may drop, such as `O@0 L90@2`; `empty` for none."""
        recipes = self.lifted(states)[0].T.flip(1).tolist()
        names = [placement.name for placement in self.placements]
        return [" ".join(names[i] for i in recipe if i >= 0) or "empty" for recipe in recipes]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Drop what `keys` wrote, in that order."""
        states = self.initial_states(len(keys)).to(self._moves.device)
        recipes = [self._actions_of_key(key) for key in keys]
        for i in range(max(map(len, recipes), default=0)):
            rows = [row for row, recipe in enumerate(recipes) if len(recipe) > i]
            actions = states.new_tensor([recipes[row][i] for row in rows])
            fits = self.forward_mask(states[rows]).gather(1, actions[:, None])[:, 0]
            if not fits.all():
                key = keys[rows[int(fits.int().argmin())]]
                raise ValueError(f"key {key!r}: piece {i + 1} sticks out at the top of the board")
            states[rows] = self.step(states[rows], actions)
        states[:, -1] = 1
        return states.cpu()

    def decode(self, states: Tensor) -> list[Candidate]:
        """Boards `(height, width)` of piece numbers plus ten times serial numbers."""
        return [self._board(cells) for cells in self._cells(states).numpy(force=True)]

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of boards; any numbers that end in the piece's number tell pieces apart."""
        states = self.initial_states(len(candidates))
        states[:, -1] = 1
        for row, candidate in enumerate(candidates):
            states[row, self.width : -1] = torch.from_numpy(self._codes_of_board(candidate))
        states = self._with_heights(states.to(self._moves.device))
        is_buildable = self.lifted(states)[1]
        if not is_buildable.all():
            row = int(is_buildable.int().argmin())
            raise ValueError(
                f"board {row}: a piece hangs in the air, or no order of drops makes it"
            )
        return states.cpu()

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Share of the cells that are not the same cell of the same piece."""
        return hamming(self._cells(a), self._cells(b))

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns `board` (piece letters, top row first), `n_pieces` and `filled` (a share)."""
        letters = np.array([".", *PIECES])
        rows = letters[self.piece_of[self._cells(states)].numpy(force=True)]
        rows = rows.reshape(-1, self.height, self.width)[:, ::-1]
        boards = ["/".join("".join(row) for row in board) for board in rows]
        n_cells = (self._cells(states) > 0).sum(1).tolist()
        return [
            {"board": board, "n_pieces": n // 4, "filled": n / (self.width * self.height)}
            for board, n in zip(boards, n_cells, strict=True)
        ]

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Keys `pieces` and `full`. `full` needs a small board: ValueError says how small."""
        check_keys(where, ("pieces", "full"))
        pieces = checked_pieces(where.get("pieces", self.pieces), self.pieces, "where: pieces")
        is_full = where.get("full", False)
        if not isinstance(is_full, bool):
            raise ValueError(f"where: full: expected true or false, got {is_full!r}")
        wish = f"{'full: true with ' if is_full else ''}pieces: {', '.join(pieces)}"
        return Restricted(self, CanSatisfy(self, pieces, is_full), wish)

    def _cells(self, states: Tensor) -> Tensor:
        return states[:, self.width : -1]

    def _sights(self, cells: Tensor) -> Tensor:
        return self._sight_of.index_select(0, cells.flatten()).reshape(
            len(cells), 3 * cells.shape[1]
        )

    def _with_heights(self, states: Tensor) -> Tensor:
        """Set the heights of the columns to those of the cells, in place."""
        filled = self._cells(states).reshape(-1, self.height, self.width) > 0
        states[:, : self.width] = (filled * self._up[:, None]).amax(1)
        return states

    def lifted(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Actions undone one by one, `(max_steps - 1, n)`, -1 at the end; whether all could be.

        Of the pieces that can be lifted, the one of the largest action goes first.
        """
        states = states.clone()
        states[:, -1] = 0
        is_buildable = states[:, -1] == 0
        undone = states.new_full((self.max_steps - 1, len(states)), -1)
        for actions in undone:
            actions.copy_((self.backward_mask(states) * self._ordinals).amax(1) - 1)
            rows = (actions >= 0).nonzero()[:, 0]
            parents = self.step_back(states[rows], actions[rows])
            is_buildable[rows] &= (self.step(parents, actions[rows]) == states[rows]).all(1)
            states[rows] = parents
        return undone, is_buildable & (states == 0).all(1)

    def _board(self, cells: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Number the pieces by their first cell."""
        filled = cells.nonzero()[0]
        codes = cells[filled]
        offsets = self._moves[:, 3].flatten().numpy(force=True)
        firsts = filled - (offsets[codes - 1] - offsets[(codes - 1) // 4 * 4])
        board = np.zeros(self.height * self.width, dtype=np.int32)
        serials = np.unique(firsts, return_inverse=True)[1] + 1
        board[filled] = 10 * serials + self.piece_of.numpy(force=True)[codes]
        return board.reshape(self.height, self.width)[::-1]

    def _codes_of_board(self, candidate: Candidate) -> np.ndarray[Any, Any]:
        board = np.asarray(candidate)
        if (
            board.shape != (self.height, self.width)
            or board.dtype.kind not in "iu"
            or board.min() < 0
        ):
            raise ValueError(
                f"board: expected whole numbers >= 0, ({self.height}, {self.width}), got "
                f"{board.dtype} {board.shape}"
            )
        board = board[::-1]
        codes = np.zeros(board.shape, dtype=np.int64)
        known = {(p.piece, p.cells): i for i, p in enumerate(self.placements)}
        for number in np.unique(board[board != 0]).tolist():
            cells = [(x, y) for y, x in np.argwhere(board == number).tolist()]
            lowest = cells[0][1]
            action = known.get((number % 10, tuple((x, y - lowest) for x, y in cells)))
            if action is None:
                raise ValueError(
                    f"board: the cells {number} are no piece of this space: expected four "
                    f"connected cells of one of {''.join(self.pieces)}, numbered 1 to 7 in the "
                    "last digit"
                )
            for which, (x, y) in enumerate(cells):
                codes[y, x] = 1 + 4 * action + which
        return codes.flatten()

    def _actions_of_key(self, key: str) -> list[int]:
        known = {placement.name: i for i, placement in enumerate(self.placements)}
        names = [] if key == "empty" else key.split(" ")
        for name in names:
            if name not in known:
                raise ValueError(
                    f"key {key!r}: {name!r} is no piece of this space; expected names such as "
                    f"{self.placements[0].name!r}, or 'empty'"
                )
        return [known[name] for name in names]


def _repeated(bottoms: tuple[tuple[int, int, int], ...]) -> list[tuple[int, int, int]]:
    return [*bottoms, *[bottoms[0]] * (4 - len(bottoms))]

import re
from typing import Any

import numpy as np
import pytest
import torch

from sampler.environment import Environment
from sampler.environments.tetris import Tetris, full_boards
from tests.sampler.walks import all_states, check_discrete_laws, random_walks

SPACES: dict[str, dict[str, Any]] = {
    "4 x 4, I O L": {"width": 4, "height": 4, "pieces": ["I", "O", "L"]},
    "3 x 4, all": {"width": 3, "height": 4},
    "4 x 3, S T Z": {"width": 4, "height": 3, "pieces": "STZ"},
    "5 x 3, unrotated": {"width": 5, "height": 3, "rotations": False},
    "1 x 8": {"width": 1, "height": 8},
    "4 x 1": {"width": 4, "height": 1, "pieces": ["I"]},
}


@pytest.fixture(params=sorted(SPACES))
def space(request: pytest.FixtureRequest) -> Tetris:
    return Tetris(**SPACES[request.param])


def finished(space: Environment) -> torch.Tensor:
    states = all_states(space)
    return states[space.is_terminal(states)]


def dropped(board: np.ndarray, cells: list[tuple[int, int]]) -> np.ndarray | None:
    """Let cells (column, row) fall into a board (row 0 at the bottom) as a game would: slowly."""
    height = len(board)
    roomy = np.vstack([board, np.zeros((height + 4, board.shape[1]), dtype=int)])
    level = height
    while all(level + y - 1 >= 0 and not roomy[level + y - 1, x] for x, y in cells):
        level -= 1
    if any(level + y >= height for _, y in cells):
        return None
    after = board.copy()
    for x, y in cells:
        after[level + y, x] = 1
    return after


def outline(space: Tetris, state: torch.Tensor) -> np.ndarray:
    cells = state[space.width : -1].numpy().reshape(space.height, space.width)
    return (cells > 0).astype(int)


def test_the_laws_hold_at_every_state(space: Tetris) -> None:
    check_discrete_laws(space)


def test_the_laws_hold_on_a_large_board() -> None:
    space = Tetris(10, 20)
    terminal_states, steps = random_walks(space, 60)
    for parents, actions, _, children in steps:
        assert torch.equal(space.step_back(children, actions), parents)
        rows, undone = space.backward_mask(children).nonzero(as_tuple=True)
        earlier = space.step_back(children[rows], undone)
        assert bool(space.forward_mask(earlier).gather(1, undone[:, None]).all())
        assert torch.equal(space.step(earlier, undone), children[rows])
    assert torch.equal(space.from_keys(space.keys(terminal_states)), terminal_states)
    assert torch.equal(space.encode(space.decode(terminal_states)), terminal_states)


def test_pieces_fall_as_in_a_game_played_cell_by_cell() -> None:
    space = Tetris(5, 6)
    _, steps = random_walks(space, 40, seed=3)
    for parents, _, _, _ in steps:
        mask = space.forward_mask(parents)
        for row, parent in enumerate(parents[:6]):
            board = outline(space, parent)
            for action, placement in enumerate(space.placements):
                after = dropped(board, list(placement.cells))
                assert (after is not None) == bool(mask[row, action])
                if after is not None:
                    child = space.step(parent[None], torch.tensor([action]))[0]
                    assert np.array_equal(outline(space, child), after)


def test_all_seven_pieces_have_their_distinct_rotations() -> None:
    names = {p.name.split("@")[0] for p in Tetris(10, 20).placements}
    n_rotations = {piece: sum(name[0] == piece for name in names) for piece in "IJLOSTZ"}
    assert n_rotations == {"I": 2, "J": 4, "L": 4, "O": 1, "S": 2, "T": 4, "Z": 2}
    assert len(Tetris(10, 20).placements) == 17 + 9 + 2 * 17 + 3 * 34
    assert {p.name for p in Tetris(4, 4, ["I", "O"], rotations=False).placements} == {
        *(f"I@{column}" for column in range(4)),
        *(f"O@{column}" for column in range(3)),
    }


def test_an_overhang_leaves_a_hole() -> None:
    space = Tetris(4, 4)
    (board,) = space.decode(space.from_keys(["S@0 I90@0"]))
    assert board.tolist() == [
        [0, 0, 0, 0],
        [21, 21, 21, 21],
        [0, 15, 15, 0],
        [15, 15, 0, 0],
    ]


def test_boards_of_equal_outline_and_numbers_are_told_apart() -> None:
    space = Tetris(4, 4, ["I"])
    states = space.from_keys(["I@0 I@1 I@2 I@3", "I90@0 I90@0 I90@0 I90@0"])
    upright, flat = space.decode(states)
    assert np.array_equal(upright % 10, flat % 10)
    assert upright[:, 0].tolist() == [11, 11, 11, 11]
    assert flat[0].tolist() == [41, 41, 41, 41]
    assert len(torch.unique(space.features(states), dim=0)) == 2
    assert len(torch.unique(space.policy_inputs(states), dim=0)) == 2


def test_the_order_of_drops_is_forgotten() -> None:
    space = Tetris(6, 4)
    states = space.from_keys(["O@0 O@4 O@0", "O@4 O@0 O@0", "O@0 O@0 O@4"])
    assert len(torch.unique(states, dim=0)) == 1
    assert len(set(space.keys(states))) == 1


def test_what_lies_below_another_piece_cannot_be_lifted() -> None:
    space = Tetris(4, 4, ["O", "I"])
    states = space.from_keys(["O@0 O@2 I90@0"])
    stop = torch.tensor([space.n_actions - 1])
    running = space.step_back(states, stop)
    names = [space.placements[i].name for i in space.backward_mask(running)[0].nonzero()[:, 0]]
    assert names == ["I90@0"]
    under = space.step_back(running, space.backward_mask(running).int().argmax(1))
    names = [space.placements[i].name for i in space.backward_mask(under)[0].nonzero()[:, 0]]
    assert names == ["O@0", "O@2"]


def test_candidates_may_number_their_pieces_freely() -> None:
    space = Tetris(4, 2, ["O"])
    states = space.encode([np.array([[94, 94, 4, 4], [94, 94, 4, 4]])])
    assert space.keys(states) == ["O@0 O@2"]
    assert space.decode(states)[0].tolist() == [[14, 14, 24, 24], [14, 14, 24, 24]]
    assert space.describe(states) == [{"board": "OOOO/OOOO", "n_pieces": 2, "filled": 1.0}]


@pytest.mark.parametrize(
    ("board", "message"),
    [
        (np.zeros((3, 4), dtype=int), r"expected whole numbers >= 0, \(4, 4\)"),
        (np.array([[0] * 4] * 2 + [[-6, -6, 0, 0]] * 2), "expected whole numbers >= 0"),
        (np.zeros((4, 4)), "expected whole numbers"),
        (np.array([[0] * 4, [14, 14, 0, 0], [14, 14, 0, 0], [0] * 4]), "hangs in the air"),
        (np.array([[0] * 4, [0] * 4, [0] * 4, [14] * 4]), "cells 14 are no piece"),
        (np.array([[0] * 4, [0] * 4, [17, 17, 0, 0], [0, 17, 17, 0]]), "cells 17 are no piece"),
    ],
)
def test_boards_that_no_drops_make_are_refused(board: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tetris(4, 4, ["I", "O"]).encode([board])


@pytest.mark.parametrize("key", ["", "X@0", "O@3", "O@0  O@2", "O@0 O@0 O@0", "J@0"])
def test_keys_outside_the_space_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"key {key!r}")):
        Tetris(4, 4, ["I", "O"]).from_keys(["empty", key])


# The numbers of tilings of a rectangle by the fixed tetrominoes: brute force agrees below.
@pytest.mark.parametrize(
    ("options", "n"),
    [
        ({"width": 4, "height": 4, "pieces": ["I", "O", "L", "J"]}, 63),
        ({"width": 4, "height": 4}, 117),
        ({"width": 3, "height": 4}, 23),
        ({"width": 3, "height": 3}, 0),
    ],
)
def test_full_boards_are_all_that_drops_can_fill(options: dict[str, Any], n: int) -> None:
    space = Tetris(**options)
    boards = full_boards(space)
    assert len(boards) == len(torch.unique(boards, dim=0)) == n
    states = finished(space)
    is_full = (states[:, space.width : -1] > 0).all(1)
    assert torch.equal(torch.unique(boards, dim=0), states[is_full])


def test_too_many_full_boards_are_an_error() -> None:
    with pytest.raises(ValueError, match="more than max_boards = 50"):
        full_boards(Tetris(4, 4), max_boards=50)


@pytest.mark.parametrize("pieces", [None, ["I"], ["O", "L"], ["J", "L", "T"]])
@pytest.mark.parametrize("is_full", [True, False])
def test_a_restriction_reaches_exactly_the_boards_that_obey(
    pieces: list[str] | None, is_full: bool
) -> None:
    space = Tetris(4, 4, "IJLOT") if is_full else Tetris(4, 3, "IJLOT")
    where = {"full": is_full} | ({} if pieces is None else {"pieces": pieces})
    states = full_boards(space) if is_full else finished(space)
    wanted = set()
    for state, row in zip(states, space.describe(states), strict=True):
        if set(str(row["board"])) - set("/.") <= set(pieces or "IJLOT"):
            wanted.add(tuple(state.tolist()))
    restricted = space.restricted(where)
    assert set(map(tuple, finished(restricted).tolist())) == wanted
    terminal_states, _ = random_walks(restricted, 50)
    assert set(map(tuple, terminal_states.tolist())) <= wanted


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({"width": 4, "height": 4}, {"pieces": ["X"]}, "pieces: expected some of I, J"),
        ({"width": 4, "height": 4, "pieces": "IO"}, {"pieces": ["L"]}, "expected some of I, O"),
        ({"width": 4, "height": 4}, {"pieces": []}, "pieces"),
        ({"width": 4, "height": 4}, {"full": 1}, "full: expected true or false"),
        ({"width": 3, "height": 5}, {"full": True}, "full: 3 x 5 cells are no multiple of four"),
        ({"width": 10, "height": 20}, {"full": True}, "6 x 6"),
        ({"width": 4, "height": 4}, {"full": True, "pieces": ["S", "Z"]}, "true with pieces: S, Z"),
        ({"width": 4, "height": 4}, {"piece": ["I"]}, "did you mean 'pieces'"),
    ],
)
def test_a_restriction_that_cannot_be_met_is_refused(
    options: dict[str, Any], where: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Tetris(**options).restricted(where)


def test_a_board_of_six_by_six_can_be_filled_on_request() -> None:
    space = Tetris(6, 6)
    terminal_states, _ = random_walks(space.restricted({"full": True}), 30)
    assert bool((terminal_states[:, space.width : -1] > 0).all())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"width": 0, "height": 4}, "width"),
        ({"width": 4, "height": 0}, "height"),
        ({"width": 4, "height": 4, "pieces": []}, "pieces"),
        ({"width": 4, "height": 4, "pieces": ["Q"]}, "pieces"),
        ({"width": 1, "height": 3}, "none of"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Tetris(**options)

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from sampler import environment
from sampler.environment import Environment
from tests.sampler.continuous_walks import check_continuous_laws, walk
from tests.sampler.walks import all_states, check_discrete_laws

TURN = 2 * math.pi


def torus(**options: Any) -> Environment:
    return environment("torus", n_dims=2, **options)


@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("n_increments", [1, 3])
def test_laws_of_the_continuous_torus(n_increments: int, any_order: bool) -> None:
    space = torus(n_increments=n_increments, any_order=any_order)
    check_continuous_laws(space)
    assert space.circular_heads == (True, True)
    assert space.is_tree == (n_increments == 1 and not any_order)


@pytest.mark.parametrize(
    "options",
    [
        {"n_angles": 5},
        {"n_angles": 3, "any_order": True},
        {"n_angles": 5, "n_steps": 2},
        {"n_angles": 6, "n_steps": 7},
        {"n_angles": 2, "n_steps": 3},
    ],
)
def test_laws_of_the_discrete_torus(options: dict[str, Any]) -> None:
    check_discrete_laws(torus(**options))


def test_an_angle_goes_round_and_densities_are_those_of_the_amounts() -> None:
    space = torus(n_increments=2)
    states = space.initial_states(1)
    for action, amount in [(0, 0.75), (1, 0.5), (0, 0.5), (1, 0.25)]:
        actions = torch.tensor([action])
        assert space.log_width(states, actions).tolist() == [0.0]
        states = space.step(states, actions, torch.tensor([amount]))
        assert space.log_width_back(states, actions).tolist() == [0.0]
    assert states.tolist() == [[0.25, 0.75, 2.0, 2.0]]
    back = space.step_back(states, torch.tensor([1]), torch.tensor([0.25]))
    assert back.tolist() == [[0.25, 0.5, 2.0, 1.0]]


def test_extreme_amounts_lead_back() -> None:
    space = torus(n_increments=2)
    for amount in (0.0, 1e-12, 1 - 1e-12, 1.0):
        states, action = space.initial_states(1), torch.tensor([0])
        children = space.step(states, action, torch.tensor([amount], dtype=torch.float64))
        between = space.amounts_between(states, action, children)
        assert 0 < float(between) < 1
        assert torch.equal(space.step(states, action, between), children)


def test_candidates_are_radians() -> None:
    space = torus()
    states = space.encode([np.array([math.pi, TURN])])
    assert states.tolist() == [[0.5, 0.0, 1.0, 1.0]]
    assert space.decode(states)[0].tolist() == [math.pi, 0.0]
    assert space.describe(states) == [{"x0": math.pi, "x1": 0.0}]
    assert space.features(states)[0].tolist() == pytest.approx([0.0, 1.0, 0.5, 0.5])
    for discrete in (torus(n_angles=4), torus(n_angles=4, n_steps=4)):
        states = discrete.encode([np.array([math.pi, TURN])])
        assert discrete.keys(states) == ["2,0"]
        assert discrete.features(states)[0].tolist() == pytest.approx([0.0, 0.5, 1.0, 0.5])


def test_a_walk_ends_within_its_steps_and_nowhere_else() -> None:
    space = torus(n_angles=6, n_steps=3)
    states = all_states(space)
    keys = set(space.keys(states[space.is_terminal(states)]))
    near = [min(i, 6 - i) for i in range(6)]
    points = itertools.product(range(6), range(6))
    assert keys == {f"{i},{j}" for i, j in points if near[i] + near[j] <= 3}
    with pytest.raises(ValueError, match="key '3,1' is 4 steps away, n_steps is 3"):
        space.from_keys(["0,0", "3,1"])


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.2), (6.2, 0.1), (0.0, 0.3), (6.0, TURN)])
@pytest.mark.parametrize("n_increments", [1, 3])
def test_a_restricted_torus_obeys(n_increments: int, start: float, end: float) -> None:
    space = torus(n_increments=n_increments, any_order=True)
    restricted = space.restricted({"x1": [start, end]})
    check_continuous_laws(restricted)
    terminal, _ = walk(restricted, 1000)
    angles = np.array(space.decode(terminal))
    width = (end - start) % TURN
    offset = (angles[:, 1] - start) % TURN
    assert offset.max() <= width
    assert np.ptp(offset) > 0.95 * width
    assert np.ptp(angles[:, 0]) > 6


def test_a_whole_turn_is_no_restriction() -> None:
    low, high = (
        torus()
        .restricted({"x0": [0, TURN]})
        .amount_range(torus().initial_states(1), torch.tensor([0]))
    )
    assert (float(low), float(high)) == (0.0, 1.0)


def test_an_amount_that_misses_the_arc_is_moved_to_its_nearer_end() -> None:
    space = torus().restricted({"x0": [math.pi / 2, math.pi]})
    ends = {0.2: 0.25, 0.3: 0.3, 0.55: 0.5, 0.9: 0.25, 0.8: 0.5}
    for amount, angle in ends.items():
        amounts = torch.tensor([amount], dtype=torch.float64)
        states = space.step(space.initial_states(1), torch.tensor([0]), amounts)
        assert float(states[0, 0]) == pytest.approx(angle, abs=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"any_order": True}, {"n_steps": 6}, {"n_steps": 4}, {"n_steps": 3}]
)
@pytest.mark.parametrize("wish", [[5.0, 1.1], [2.0, 4.3], TURN / 3])
def test_a_restricted_grid_keeps_exactly_what_satisfies(options: dict[str, Any], wish: Any) -> None:
    space = torus(n_angles=6, **options)
    restricted = space.restricted({"x0": wish})
    states = all_states(restricted)
    assert bool((restricted.forward_mask(states).any(1) | space.is_terminal(states)).all())
    found = sorted(space.keys(states[space.is_terminal(states)]))
    wide = all_states(space)
    reachable = sorted(space.keys(wide[space.is_terminal(wide)]))
    wanted = {5.0: "015", 2.0: "234"}[wish[0]] if isinstance(wish, list) else "2"
    assert found == [key for key in reachable if key[0] in wanted]


def test_restrictions_that_cannot_be_met() -> None:
    for space in (torus(), torus(n_angles=4), torus(n_angles=4, n_steps=2)):
        with pytest.raises(ValueError, match="unknown key 'y0'"):
            space.restricted({"y0": [0, 1]})
        with pytest.raises(ValueError, match="x1: expected radians"):
            space.restricted({"x1": [0, 90]})
        with pytest.raises(ValueError, match=r"x1: expected a number or \[from, to\]"):
            space.restricted({"x1": "east"})
    with pytest.raises(ValueError, match=r"x0: expected an arc .* positive width"):
        torus().restricted({"x0": 1.0})
    with pytest.raises(ValueError, match="x0: none of its 4 levels"):
        torus(n_angles=4).restricted({"x0": [0.1, 0.2]})
    with pytest.raises(ValueError, match="more than n_steps = 2"):
        torus(n_angles=4, n_steps=2).restricted({"x0": math.pi, "x1": math.pi / 2})


@pytest.mark.parametrize("key", ["1", "1,2,3", "7,0", "1,-1", "a,b", ""])
def test_keys_outside_the_space_are_refused(key: str) -> None:
    for space in (torus(), torus(n_angles=4), torus(n_angles=4, n_steps=4)):
        with pytest.raises(ValueError, match="key"):
            space.from_keys([key])


def test_candidates_off_the_grid_are_refused() -> None:
    for space in (torus(n_angles=4), torus(n_angles=4, n_steps=4)):
        with pytest.raises(ValueError, match="no point of this torus"):
            space.encode([np.array([0.1, 0.0])])
        with pytest.raises(ValueError, match="no point of this torus"):
            space.encode([np.array([-math.pi, 0.0])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_dims": 0}, "n_dims"),
        ({"n_dims": 0, "n_angles": 4}, "n_dims"),
        ({"n_angles": 1}, "n_angles: expected at least 2"),
        ({"n_steps": 3}, "n_steps: a walk needs n_angles"),
        ({"n_angles": 4, "n_steps": 0}, "n_steps: expected at least 1"),
        ({"n_angles": 4, "n_increments": 2}, "n_increments: expected 1 with n_angles"),
        ({"n_angles": 4, "n_steps": 2, "any_order": True}, "any_order"),
        ({"n_increments": 0}, "n_increments"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        environment("torus", **{"n_dims": 2, **options})

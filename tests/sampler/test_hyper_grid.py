import numpy as np
import pytest
import torch

from sampler import Random
from sampler.environments.hyper_grid import HyperGrid
from tests.sampler.walks import all_states, check_discrete_laws, random_walks


def test_candidates_span_the_bounds_with_both_ends() -> None:
    grid = HyperGrid(2, 4, bounds=[(-5.0, 10.0), (0.0, 15.0)])
    corner, other = grid.decode(grid.from_keys(["0,0", "3,1"]))
    assert corner.tolist() == [-5.0, 0.0]
    assert other.tolist() == [10.0, 5.0]


def test_without_bounds_candidates_are_integer_coordinates() -> None:
    grid = HyperGrid(2, 10)
    assert grid.decode(grid.from_keys(["3,7"]))[0].tolist() == [3.0, 7.0]
    assert grid.describe(grid.from_keys(["3,7"])) == [{"x0": 3.0, "x1": 7.0}]


def test_features_are_coordinates_in_the_unit_cube() -> None:
    grid = HyperGrid(2, 5, bounds=[(100.0, 200.0), (0.0, 1.0)])
    assert grid.features(grid.from_keys(["0,4", "2,1"])).tolist() == [[0.0, 1.0], [0.5, 0.25]]


def test_a_point_off_the_grid_is_refused() -> None:
    grid = HyperGrid(2, 4)
    with pytest.raises(ValueError, match=r"x1 = 1\.5, the nearest"):
        grid.encode([np.array([1.0, 1.5])])
    with pytest.raises(ValueError, match="not on the grid"):
        grid.encode([np.array([1.0, 9.0])])
    with pytest.raises(ValueError, match="2 finite numbers"):
        grid.encode([np.array([1.0])])


@pytest.mark.parametrize("key", ["1", "1,2,3", "1,-1", "1,4", "a,b", "1.0,2"])
def test_keys_outside_the_space_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        HyperGrid(2, 4).from_keys([key])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"n_dims": 0, "length": 3}, "n_dims"),
        ({"n_dims": 2, "length": 1}, "length"),
        ({"n_dims": 2, "length": 3, "bounds": [(0.0, 1.0)]}, "bounds"),
        ({"n_dims": 1, "length": 3, "bounds": [(1.0, 0.0)]}, "bounds"),
        ({"n_dims": 1, "length": 3, "bounds": [(0.0, float("inf"))]}, "bounds"),
    ],
)
def test_impossible_options_are_refused(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        HyperGrid(**options)


def test_an_axis_at_its_end_cannot_grow() -> None:
    grid = HyperGrid(2, 3)
    mask = grid.forward_mask(torch.tensor([[2, 0, 0], [1, 2, 1]]))
    assert mask.tolist() == [[False, True, True], [False, False, False]]


@pytest.mark.parametrize(("n_dims", "length"), [(1, 2), (2, 5), (3, 3)])
def test_the_laws_hold_at_every_state(n_dims: int, length: int) -> None:
    check_discrete_laws(HyperGrid(n_dims, length, bounds=[(-1.0, 2.5)] * n_dims))


def test_the_policy_sees_one_hot_coordinates() -> None:
    grid = HyperGrid(2, 3)
    assert grid.policy_inputs(torch.tensor([[2, 0, 0]])).tolist() == [[0, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"x0": 0.5}, {(0.5, y) for y in (0.0, 10.0, 20.0)}),
        ({"x0": [0.2, 0.8], "x1": [5.0, 20]}, {(0.5, 10.0), (0.5, 20.0)}),
        ({"x1": [20, 1e9]}, {(x, 20.0) for x in (0.0, 0.5, 1.0)}),
    ],
    ids=str,
)
def test_a_restriction_leaves_exactly_the_points_inside(where: dict, expected: set) -> None:
    space = HyperGrid(2, 3, bounds=[(0.0, 1.0), (0.0, 20.0)]).restricted(where)
    states = all_states(space)
    is_terminal = space.is_terminal(states)
    assert {tuple(point) for point in space.decode(states[is_terminal])} == expected
    assert torch.equal(space.forward_mask(states).any(1), ~is_terminal)


def test_samples_of_a_restricted_grid_lie_inside() -> None:
    grid = HyperGrid(4, 16, bounds=[(0.0, 1.5)] * 4)
    space = grid.restricted({"x1": [0.3, 0.5], "x3": 1.5})
    points = np.stack(space.decode(random_walks(space, 200)[0]))
    assert points[:, 1].min() >= 0.3 - 1e-9
    assert points[:, 1].max() <= 0.5 + 1e-9
    assert set(points[:, 3]) == {1.5}


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"x7": 1.0}, "unknown key 'x7'"),
        ({"x0": [0, 1], "x1": [0.1, 0.9]}, "x1: no grid value from 0.1 to 0.9; the axis has 3"),
        ({"x0": 5}, "x0: no grid value"),
        ({"x0": [2, 1]}, "low <= high"),
        ({"x0": "one"}, "x0: expected a number"),
    ],
    ids=str,
)
def test_impossible_and_unknown_restrictions_are_refused(where: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HyperGrid(2, 3).restricted(where)


def test_random_candidates_are_spread_over_the_whole_grid() -> None:
    points = Random(HyperGrid(2, 100), seed=0).sample(4000)[:, :-1].double()
    assert points.mean(0).tolist() == pytest.approx([49.5, 49.5], abs=2.0)
    assert points.std(0).tolist() == pytest.approx([28.9, 28.9], abs=1.0)
    assert len(points.unique(dim=0)) > 3000

import numpy as np
import pytest
import torch

from sampler.environments.hyper_grid import HyperGrid


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

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from sampler import environment
from sampler.environment import Environment
from tests.sampler.continuous_walks import check_continuous_laws, walk
from tests.sampler.walks import all_states, check_discrete_laws

BOUNDS = [(-5.0, 10.0), (0.0, 15.0)]


def cube(**options: Any) -> Environment:
    return environment("hypercube", n_dims=2, bounds=BOUNDS, **options)


@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("n_increments", [1, 2, 5])
def test_laws_of_the_continuous_cube(n_increments: int, any_order: bool) -> None:
    space = cube(n_increments=n_increments, any_order=any_order)
    check_continuous_laws(space)
    assert space.is_tree == (n_increments == 1 and not any_order)


@pytest.mark.parametrize("any_order", [False, True])
def test_laws_of_the_discrete_cube(any_order: bool) -> None:
    check_discrete_laws(cube(n_levels=4, any_order=any_order))


def test_extreme_amounts_stay_off_the_faces_and_lead_back() -> None:
    space = cube(n_increments=3)
    for amount in (0.0, 1e-300, 1e-9, 1 - 1e-9, 1.0):
        states = space.initial_states(1)
        for t in range(6):
            action = torch.tensor([t % 2])
            children = space.step(states, action, torch.tensor([amount]))
            between = space.amounts_between(states, action, children)
            assert 0 < float(between) < 1
            assert torch.equal(space.step(states, action, between), children)
            assert bool(space.log_width(children, action).isfinite())
            states = children
        assert 0 < float(states[:, :2].min()) <= float(states[:, :2].max()) < 1
        assert torch.equal(space.from_keys(space.keys(states)), states)


def test_a_trajectorys_density_integrates_to_one() -> None:
    # Two increments of one coordinate with u uniform: x has density -log(1 - x), so P(x < 1/2) is
    # (1 - log 2) / 2. Importance weights P_F / P_B from points drawn evenly must say the same.
    space = environment("hypercube", n_dims=1, bounds=[(0.0, 1.0)], n_increments=2)
    points = (np.arange(20_000) + 0.5) / 20_000
    states = space.encode(points[:, None])
    actions = torch.zeros(len(states), dtype=torch.int64)
    drawn = torch.rand(len(states), generator=torch.Generator().manual_seed(0)).double()
    parents = space.step_back(states, actions, drawn)
    origin = space.step_back(parents, actions, drawn)
    assert torch.equal(origin, space.initial_states(len(states)))
    forward = -space.log_width(origin, actions) - space.log_width(parents, actions)
    backward = -space.log_width_back(parents, actions) - space.log_width_back(states, actions)
    weights = (forward - backward).exp().numpy()
    assert weights.mean() == pytest.approx(1.0, abs=0.03)
    assert weights[points < 0.5].sum() / 20_000 == pytest.approx((1 - np.log(2)) / 2, abs=0.01)


def test_fixed_order_goes_round_and_any_order_is_free() -> None:
    space = cube(n_increments=2)
    _, steps = walk(space, 3)
    assert [actions.tolist() for _, actions, _, _ in steps] == [[0] * 3, [1] * 3, [0] * 3, [1] * 3]
    free = cube(n_increments=2, any_order=True)
    assert free.forward_mask(free.initial_states(1)).tolist() == [[True, True]]


def test_candidates_are_points_within_the_bounds() -> None:
    space = cube()
    states = space.encode([np.array([2.5, 3.75]), [-5.0, 15.0]])
    assert states[0].tolist() == [0.5, 0.25, 1.0, 1.0]
    assert space.keys(states[:1]) == ["2.5,3.75"]
    assert space.describe(states[:1]) == [{"x0": 2.5, "x1": 3.75}]
    assert np.allclose(space.decode(states[1:])[0], [-5.0, 15.0], atol=1e-8)  # moved off the face
    assert space.features(states[:1]).tolist() == [[0.5, 0.25]]
    levels = cube(n_levels=4)
    assert levels.decode(levels.from_keys(["0,3"]))[0].tolist() == [-5.0, 15.0]
    assert levels.describe(levels.from_keys(["1,2"])) == [{"x0": 0.0, "x1": 10.0}]


@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("n_increments", [1, 3])
def test_a_restricted_cube_obeys(n_increments: int, any_order: bool) -> None:
    space = cube(n_increments=n_increments, any_order=any_order)
    restricted = space.restricted({"x0": [-1.0, -0.9], "x1": [14, 20]})
    check_continuous_laws(restricted)
    terminal, _ = walk(restricted, 2000)
    points = np.array(space.decode(terminal))
    assert points[:, 0].min() >= -1.0
    assert points[:, 0].max() <= -0.9
    assert points[:, 1].min() >= 14
    assert np.ptp(points[:, 0]) > 0.095
    assert space.amount_range(*_first(space))[0].tolist() == [0.0]  # the space itself is as before


def test_the_first_amounts_range_is_the_interval() -> None:
    restricted = cube().restricted({"x0": [-2.0, 4.0]})
    low, high = restricted.amount_range(*_first(restricted))
    assert float(low) == pytest.approx(0.2, abs=1e-9)
    assert float(high) == pytest.approx(0.6, abs=1e-9)


@pytest.mark.parametrize("any_order", [False, True])
def test_a_restricted_grid_keeps_exactly_what_satisfies(any_order: bool) -> None:
    space = cube(n_levels=4, any_order=any_order)
    restricted = space.restricted({"x0": [0, 7], "x1": 15})
    states = all_states(restricted)
    found = sorted(space.keys(states[space.is_terminal(states)]))
    points = itertools.product(range(4), range(4))
    assert found == [f"{i},{j}" for i, j in points if 0 <= -5 + 5 * i <= 7 and j == 3]
    assert bool((restricted.forward_mask(states).any(1) | space.is_terminal(states)).all())


def test_restrictions_that_cannot_be_met() -> None:
    for space in (cube(), cube(n_levels=4)):
        with pytest.raises(ValueError, match="unknown key 'y0'"):
            space.restricted({"y0": 1})
        with pytest.raises(ValueError, match=r"where: x1: .*\[20, 30\]"):
            space.restricted({"x0": [0, 5], "x1": [20, 30]})
        with pytest.raises(ValueError, match="low <= high"):
            space.restricted({"x0": [5, 0]})
    with pytest.raises(ValueError, match=r"x0: expected .* positive width"):
        cube().restricted({"x0": 1.0})
    with pytest.raises(ValueError, match="x0: none of its 4 levels"):
        cube(n_levels=4).restricted({"x0": 1.0})


@pytest.mark.parametrize("key", ["1", "1,2,3", "11,0", "1,-1", "a,b", "nan,0", "", "1,2,"])
def test_keys_outside_the_space_are_refused(key: str) -> None:
    for space in (cube(), cube(n_levels=4)):
        with pytest.raises(ValueError, match="key"):
            space.from_keys([key])


def test_candidates_outside_the_space_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x1 = 15\.1, its bounds"):
        cube().encode([np.array([0.0, 15.1])])
    with pytest.raises(ValueError, match=r"x0 = 0\.1, the nearest level is 0"):
        cube(n_levels=4).encode([np.array([0.1, 0.0])])
    for space in (cube(), cube(n_levels=4)):
        with pytest.raises(ValueError, match="2 finite numbers"):
            space.encode([np.array([1.0])])
        with pytest.raises(ValueError, match="2 finite numbers"):
            space.encode(["word"])


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="n_dims"):
        environment("hypercube", n_dims=0, bounds=[])
    with pytest.raises(ValueError, match="bounds: expected 2 pairs"):
        environment("hypercube", n_dims=2, bounds=[(0, 1)])
    with pytest.raises(ValueError, match="finite low < high"):
        environment("hypercube", n_dims=1, bounds=[(1, 1)])
    with pytest.raises(ValueError, match="too narrow"):
        environment("hypercube", n_dims=1, bounds=[(1e9, 1e9 + 1)])
    with pytest.raises(ValueError, match="n_increments: expected at least 1"):
        cube(n_increments=0)
    with pytest.raises(ValueError, match="n_levels: expected at least 2"):
        cube(n_levels=1)
    with pytest.raises(ValueError, match="n_increments: expected 1 with n_levels"):
        cube(n_levels=3, n_increments=2)
    with pytest.raises(ValueError, match="amounts: a continuous space needs"):
        cube().step(*_first(cube()))


def _first(space: Environment) -> tuple[torch.Tensor, torch.Tensor]:
    return space.initial_states(1), torch.tensor([0])

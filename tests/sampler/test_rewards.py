import math
import pickle

import pytest
import torch

from sampler import environment
from sampler.environments.hyper_grid import HyperGrid
from sampler.environments.sequence import Sequence
from sampler.rewards import corner_modes, corners, cosine, is_corner_mode, torus
from tests.sampler.walks import all_states


def finished(space) -> torch.Tensor:
    states = all_states(space)
    return states[space.is_terminal(states)]


def test_corners_have_three_levels_where_the_paper_draws_them() -> None:
    grid = HyperGrid(2, 16)
    log_reward = corners(grid, r0=0.1, r1=0.5, r2=2.0)
    states = grid.from_keys(["0,0", "7,7", "0,7", "3,12", "4,12", "2,13", "2,0", "13,13"])
    expected = [0.6, 0.1, 0.1, 0.6, 0.1, 2.6, 0.6, 2.6]
    assert log_reward(states).exp().tolist() == pytest.approx(expected)


def test_the_total_reward_of_a_grid_of_side_8_is_known() -> None:
    # Per axis: indices 0, 1, 6, 7 lie outside, 1 and 6 in the band.
    grid = HyperGrid(3, 8)
    log_z = corners(grid, r0=0.01, r1=0.5, r2=2.0)(finished(grid)).logsumexp(0)
    assert float(log_z) == pytest.approx(math.log(0.01 * 8**3 + 0.5 * 4**3 + 2 * 2**3))


@pytest.mark.parametrize("length", [11, 21, 41])
def test_grid_values_on_a_threshold_are_outside(length: int) -> None:
    grid = HyperGrid(1, length)
    reward = corners(grid, r0=0.0, r1=0.0, r2=1.0)(finished(grid)).exp()
    # |i / (length - 1) - 1/2| in (3/10, 4/10), in whole numbers.
    offsets = [abs(2 * i - (length - 1)) * 10 for i in range(length)]
    expected = [6 * (length - 1) < x < 8 * (length - 1) for x in offsets]
    assert reward.tolist() == [float(x) for x in expected]


def test_modes_are_the_states_of_highest_reward() -> None:
    grid = HyperGrid(3, 8)
    states = finished(grid)
    reward = corners(grid)(states)
    best = states[reward > reward.max() - 1e-9]
    assert torch.equal(corner_modes(grid), best)
    assert len(best) == 8
    assert torch.equal(is_corner_mode(grid, states), reward > reward.max() - 1e-9)
    assert len(corner_modes(HyperGrid(4, 16))) == 16


def test_rewards_follow_a_restricted_grid() -> None:
    grid = HyperGrid(2, 8)
    narrow = grid.restricted({"x0": [4, 7]})
    states = finished(narrow)
    assert torch.equal(corners(narrow)(states), corners(grid)(states))
    assert corner_modes(narrow)[:, :2].tolist() == [[6, 1], [6, 6]]


def test_cosine_is_highest_where_the_cosine_and_the_density_are() -> None:
    grid = HyperGrid(2, 201)
    log_reward = cosine(grid, r0=0.1, r1=0.5)
    middle, ridge, valley = log_reward(grid.from_keys(["100,100", "100,125", "100,113"])).exp()
    peak = 2 / math.sqrt(2 * math.pi)
    assert float(middle) == pytest.approx(0.1 + 0.5 * peak**2)
    x = 0.125
    y = (math.cos(50 * x) + 1) * math.exp(-12.5 * x * x) / math.sqrt(2 * math.pi)
    assert float(ridge) == pytest.approx(0.1 + 0.5 * peak * y)
    assert float(valley) < float(ridge) < float(middle)


@pytest.mark.parametrize("n_angles", [None, 8])
def test_torus_is_a_power_of_sines_and_cosines(n_angles: int | None) -> None:
    space = environment("torus", n_dims=3, n_angles=n_angles)
    quarter = math.pi / 2
    states = space.encode([[quarter, 0.0, quarter], [0.0, 0.0, quarter], [quarter, quarter, 0.0]])
    assert torus(space)(states).exp().tolist() == pytest.approx([216.0, 125.0, 64.0])
    assert torus(space, power=1)(states).exp().tolist() == pytest.approx([6.0, 5.0, 4.0])
    twice = torus(space, power=1, alpha=2, beta=2)(states).exp()
    assert twice.tolist() == pytest.approx([4.0, 4.0, 2.0])
    assert torus(space)(states[:0]).shape == (0,)


def test_the_lowest_point_of_a_torus_has_no_reward_and_is_no_nan() -> None:
    space = environment("torus", n_dims=2, n_angles=4)
    lowest = torus(space)(space.encode([[1.5 * math.pi, math.pi]]))
    assert float(lowest) < -40
    assert not bool(lowest.isnan().any())


def test_rewards_survive_pickling() -> None:
    grid = HyperGrid(2, 8)
    states = finished(grid)
    for reward in (corners(grid), cosine(grid)):
        assert torch.equal(pickle.loads(pickle.dumps(reward))(states), reward(states))


def test_other_spaces_and_weights_are_refused() -> None:
    word, grid = Sequence("dna", 2, 3), HyperGrid(2, 5)
    with pytest.raises(ValueError, match=r"coordinates .*got Sequence"):
        corners(word)
    with pytest.raises(ValueError, match=r"coordinates .*got MultiFidelity"):
        cosine(environment("multi_fidelity", base=grid, fidelities=["low", "high"]))
    with pytest.raises(ValueError, match="r0"):
        corners(grid, r0=-1.0)
    with pytest.raises(ValueError, match="power"):
        torus(environment("torus", n_dims=2), power=0)
    with pytest.raises(ValueError, match="length 5"):
        corner_modes(grid)
    with pytest.raises(ValueError, match=r"2\^40"):
        corner_modes(HyperGrid(40, 8))
    with pytest.raises(ValueError, match="got Sequence"):
        corner_modes(word)

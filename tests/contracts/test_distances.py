"""The laws of `Environment.distances`, over every registered environment."""

import pytest
import torch
from torch import Tensor

from sampler.baselines import Random
from sampler.environment import Environment
from tests.contracts.test_environments import SMALL, small

_ROUNDING = 1e-9


@pytest.fixture(params=sorted(SMALL))
def space(request: pytest.FixtureRequest) -> Environment:
    return small(request.param)


def candidates(space: Environment, n: int = 40) -> Tensor:
    return Random(space).sample(n, seed=11)


def things(space: Environment, states: Tensor) -> list[str]:
    """What is one candidate: the key without a fidelity."""
    return [key.split(" @ ")[0] for key in space.keys(states)]


def test_law_distances_are_symmetric_and_in_range(space: Environment) -> None:
    a, b = candidates(space).split([15, 25])
    apart = space.distances(a, b)
    assert apart.shape == (15, 25)
    assert apart.dtype == torch.float64
    assert bool(((apart >= 0) & (apart <= 1)).all())
    torch.testing.assert_close(apart, space.distances(b, a).T, rtol=0, atol=_ROUNDING)


def test_law_only_a_candidate_itself_is_at_distance_zero(space: Environment) -> None:
    states = candidates(space)
    names = things(space, states)
    is_same = torch.tensor([[one == other for other in names] for one in names])
    apart = space.distances(states, states)
    assert bool((apart[is_same] <= _ROUNDING).all())
    assert bool((apart[~is_same] > _ROUNDING).all())


def test_law_no_detour_is_shorter(space: Environment) -> None:
    states = candidates(space)
    apart = space.distances(states, states)
    over_third = (apart[:, :, None] + apart[None]).amin(dim=1)
    assert bool((apart <= over_third + _ROUNDING).all())


def test_law_no_rows_have_no_distances(space: Environment) -> None:
    states = candidates(space, 3)
    assert space.distances(states[:0], states).shape == (0, 3)
    assert space.distances(states, states[:0]).shape == (3, 0)


def test_a_restricted_space_keeps_its_distances() -> None:
    whole = small("sequence")
    states = candidates(whole)
    narrowed = whole.restricted({"length": [2, 5]})
    assert torch.equal(narrowed.distances(states, states), whole.distances(states, states))

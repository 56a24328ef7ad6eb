import itertools
import re
from typing import Any

import pytest
import torch

from sampler.environment import Environment
from sampler.environments.subset import Subset
from tests.sampler.walks import all_states, check_discrete_laws, random_walks

SPACES: dict[str, tuple[int, Any]] = {
    "fixed": (7, 3),
    "open": (6, (2, 4)),
    "open from none": (5, (0, 5)),
    "all items": (4, 4),
    "one": (1, 1),
}


@pytest.fixture(params=sorted(SPACES))
def space(request: pytest.FixtureRequest) -> Subset:
    return Subset(*SPACES[request.param])


def finished(space: Environment) -> set[tuple[int, ...]]:
    states = all_states(space)
    return set(space.decode(states[space.is_terminal(states)]))


def subsets(n_items: int, low: int, high: int) -> set[tuple[int, ...]]:
    sizes = range(low, high + 1)
    return {items for size in sizes for items in itertools.combinations(range(n_items), size)}


def test_the_laws_hold_at_every_state(space: Subset) -> None:
    check_discrete_laws(space)


def test_exactly_the_subsets_of_the_size_are_reached(space: Subset) -> None:
    assert finished(space) == subsets(space.n_items, space.low, space.high)


def test_no_walk_is_longer_than_max_steps(space: Subset) -> None:
    terminal_states, steps = random_walks(space, 200)
    assert len(terminal_states) == 200
    assert len(steps) == space.max_steps


def test_a_member_may_have_come_last_whichever_it_is() -> None:
    space = Subset(5, 3)
    mask = space.backward_mask(space.encode([(0, 2, 4)]))
    assert mask.tolist() == [[True, False, True, False, True]]


def test_candidates_are_sorted_tuples_and_any_order_is_read() -> None:
    space = Subset(9, (0, 4))
    states = space.encode([{8, 1, 3}, [3, 1, 8], ()])
    assert space.decode(states) == [(1, 3, 8), (1, 3, 8), ()]
    assert space.keys(states) == ["1,3,8", "1,3,8", "none"]
    assert space.describe(states)[0] == {"items": "1,3,8", "size": 3}
    assert space.features(states)[0].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("size", [3, (2, 4), (0, 4)])
@pytest.mark.parametrize(
    "where", [{"include": [1]}, {"exclude": [0, 5]}, {"include": [2, 4], "exclude": [3]}, {}]
)
def test_a_restriction_reaches_exactly_the_subsets_that_obey(size: Any, where: dict) -> None:
    space = Subset(6, size)
    restricted = space.restricted(where)
    include, exclude = set(where.get("include", ())), set(where.get("exclude", ()))
    wanted = {s for s in finished(space) if include <= set(s) and not exclude & set(s)}
    assert finished(restricted) == wanted
    assert set(restricted.decode(random_walks(restricted, 300)[0])) <= wanted


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"include": [1, 2], "exclude": [2]}, r"include and exclude conflict: both name \[2\]"),
        ({"include": [0, 1, 2, 3, 4]}, "include: 5 items, but a subset has 2 to 4"),
        ({"exclude": [0, 1, 2, 3, 4]}, "exclude: leaves 1 items"),
        ({"include": [6]}, "include: expected items from 0 to 5"),
        ({"include": [1, 1]}, "named twice"),
        ({"include": 3}, "include: expected a list"),
        ({"exclude": "12"}, "exclude: expected a list"),
        ({"exclude": [1.5]}, "exclude: expected whole numbers"),
        ({"includes": [1]}, "did you mean 'include'"),
    ],
)
def test_a_restriction_that_cannot_be_met_is_refused(where: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Subset(6, (2, 4)).restricted(where)


@pytest.mark.parametrize("key", ["", "1", "1,2,3,4", "1,9", "1,1", "-1,2", "a,b", "1, 2", "none"])
def test_keys_outside_the_space_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"key {key!r}")):
        Subset(6, (2, 3)).from_keys([key])


@pytest.mark.parametrize(
    ("n_items", "size", "word"),
    [
        (0, 1, "n_items"),
        (3, 0, "size"),
        (3, 4, "size"),
        (3, (2, 1), "size"),
        (3, (-1, 2), "size"),
        (3, (1, 2, 3), "size"),
        (3, (1.0, 2.0), "size"),
    ],
)
def test_impossible_options_are_refused(n_items: int, size: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Subset(n_items, size)


def test_a_step_leaves_its_argument_alone() -> None:
    space = Subset(3, 2)
    states = space.initial_states(1)
    space.step(states, torch.tensor([1]))
    assert not bool(states.any())

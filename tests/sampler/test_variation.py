"""Variation is valid in every space, and the densities that it claims are those it draws with."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sampler import environment
from sampler.baselines import random_states
from sampler.environment import Environment
from sampler.exact import empirical_distribution, target_distribution
from sampler.guided import Guide, follow, log_backward, log_density, steps_of
from sampler.rollout import Trajectories
from sampler.variation import (
    Habit,
    crossed,
    grown_inside,
    is_inside,
    mutated,
    walk_back,
    weighed_states,
)
from tests.contracts.test_environments import SMALL, small
from tests.fakes import Menu

ANY = Habit()
WORDS = environment("sequence", alphabet="ACGT", min_length=2, max_length=5)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=sorted(SMALL))
def space(request: pytest.FixtureRequest) -> Environment:
    return small(request.param)


def whole(space: Environment, states: Tensor, generator: torch.Generator) -> Trajectories:
    return walk_back(space, states, torch.full((len(states),), space.max_steps), generator)


def guide_along(trajectories: Trajectories, repeats: float, **changes: Any) -> Guide:
    steps, n = steps_of(trajectories), len(trajectories)
    guide = Guide(
        steps.actions,
        steps.amounts,
        repeats=torch.full((n,), repeats, dtype=torch.float64),
        is_first_new=torch.zeros(n, dtype=torch.bool),
        shift=torch.zeros(n, dtype=torch.int64),
        reach=torch.full((n,), 0.1, dtype=torch.float64),
    )
    return replace(guide, **changes)


def test_a_guide_that_is_always_followed_leads_to_its_candidate(
    space: Environment, generator: torch.Generator
) -> None:
    states = random_states(space, 12, generator)
    walk = whole(space, states, generator)
    found = follow(space, space.initial_states(12), guide_along(walk, 1.0), generator)
    if space.action_heads is None:
        assert torch.equal(found.terminal_states, states)
    else:  # an amount read off two states may be off by rounding
        assert torch.allclose(found.terminal_states, states, rtol=0, atol=1e-6)
    assert torch.equal(steps_of(found).actions, steps_of(walk).actions)


def test_mutants_and_children_are_candidates(
    space: Environment, generator: torch.Generator
) -> None:
    first, second = (random_states(space, 12, generator) for _ in range(2))
    mutants = mutated(space, first, ANY, generator, has_ratio=True)
    children = crossed(space, first, second, ANY, generator)
    for states in (mutants.states, children):
        assert bool(space.is_terminal(states).all())
        assert torch.equal(space.from_keys(space.keys(states)), states)
    assert bool(mutants.log_ratio.isfinite().all()), "each mutant can lead back"
    assert not torch.equal(mutants.states, first)


def test_walking_back_stops_in_time(space: Environment, generator: torch.Generator) -> None:
    states = random_states(space, 6, generator)
    n_steps = torch.tensor([1, 1, 2, 3, 3, space.max_steps])
    walk = walk_back(space, states, n_steps, generator)
    lengths = steps_of(walk).lengths
    assert bool((lengths <= n_steps).all())
    assert lengths[:2].tolist() == [1, 1]


def test_no_rows_are_rows_too(space: Environment, generator: torch.Generator) -> None:
    none = space.initial_states(0)
    assert mutated(space, none, ANY, generator, has_ratio=True).states.shape == none.shape
    assert crossed(space, none, none, ANY, generator).shape == none.shape
    assert len(is_inside(space, none, generator)) == 0


CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "first step new": {"is_first_new": True},
    "steps doubled": {"shift": -2},
    "steps left out": {"shift": 1},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_density_is_that_of_the_draws(
    changes: dict[str, Any], generator: torch.Generator
) -> None:
    """One trajectory leads to each word, so the words' shares are the densities."""
    words, n = environment("sequence", alphabet="AC", min_length=1, max_length=4), 40_000
    one = words.from_keys(["ACCA"]).expand(n, -1)
    guide = guide_along(whole(words, one, generator), 0.7)
    guide = replace(guide, **{name: torch.full((n,), told) for name, told in changes.items()})
    found = follow(words, words.initial_states(n), guide, generator)
    density = log_density(words, found, guide).exp()
    known, index = torch.unique(found.terminal_states, dim=0, return_inverse=True)
    claimed = torch.zeros(len(known), dtype=torch.float64).scatter(0, index, density)
    assert abs(float(claimed.sum()) - 1) < 2e-3, "all words but the rarest are drawn"
    assert float((index.bincount() / n - claimed).abs().sum()) < 0.03


SIZES = {"hypercube": 1.0, "torus increments": 1.0, "stack": 14.0, "subset": 126.0}


@pytest.mark.parametrize("name", SIZES)
def test_the_ratio_of_both_ways_measures_the_space(name: str, generator: torch.Generator) -> None:
    """E over trajectories of P_B(τ | x) / P_F(τ) is the number of candidates, or their volume."""
    space, n = small(name), 3000
    nothing = guide_along(whole(space, random_states(space, n, generator), generator), 0.0)
    nothing = replace(nothing, actions=torch.full_like(nothing.actions, -1))
    forth = follow(space, space.initial_states(n), nothing, generator)
    ratio = (log_backward(space, forth) - log_density(space, forth, nothing)).exp()
    assert abs(float(ratio.mean()) - SIZES[name]) < 4 * float(ratio.std()) / n**0.5 + 1e-6


def test_what_is_inside_a_restriction_is_found(generator: torch.Generator) -> None:
    where = {"contains": "GT"}
    restricted = WORDS.restricted(where)
    states, _ = target_distribution(WORDS, lambda states: torch.zeros(len(states)))
    expected = torch.tensor(["GT" in key for key in WORDS.keys(states)])
    assert torch.equal(is_inside(restricted, states, generator), expected)
    grown = grown_inside(restricted, states, ANY, generator)
    assert all("GT" in key for key in WORDS.keys(grown))


def test_an_interval_of_a_continuous_space_too(generator: torch.Generator) -> None:
    box = small("hypercube increments")
    restricted = box.restricted({"x0": [1.0, 4.0]})
    states = random_states(box, 500, generator)
    x0 = torch.tensor([float(point[0]) for point in box.decode(states)])
    assert torch.equal(is_inside(restricted, states, generator), (x0 >= 1.0) & (x0 <= 4.0))
    grown = box.decode(grown_inside(restricted, states, ANY, generator))
    assert all(1.0 <= point[0] <= 4.0 for point in grown)


def test_children_take_after_both_parents(generator: torch.Generator) -> None:
    space = environment("sequence", alphabet="AC", min_length=8, max_length=8)
    first, second = (space.from_keys([key]).expand(50, -1) for key in ("A" * 8, "C" * 8))
    keys = space.keys(crossed(space, first, second, Habit(mutation_rate=1e-9), generator))
    assert set(keys) == {"A" * k + "C" * (8 - k) for k in range(1, 8)}


def test_a_space_of_one_step_works_too(generator: torch.Generator) -> None:
    menu = Menu(n_items=5)
    states = random_states(menu, 4000, generator)
    found = mutated(menu, states, ANY, generator, has_ratio=True)
    assert bool((found.log_ratio.abs() < 1e-9).all())
    known = menu.from_keys([f"item {i}" for i in range(5)])
    assert float((empirical_distribution(found.states, known) - 0.2).abs().max()) < 0.05
    assert bool(menu.is_terminal(crossed(menu, states, states.flip(0), ANY, generator)).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_back": 0.5}, "n_back: .* 0.5"), ({"mutation_rate": 0.0}, "mutation_rate: .* 0.0")],
)
def test_a_habit_that_cannot_be_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Habit(**options)


WISHES: dict[str, dict[str, Any]] = {
    "crystal": {"elements": ["Ti", "O"]},
    "crystal positions": {"elements": ["Mg", "O"]},
    "hyper_grid": {"x0": [0.0, 3.0]},
    "multi_fidelity last": {"fidelity": "high"},
    "scrabble": {"contains": "A"},
    "stack": {"word": {"contains": "B"}, "point": {"x0": [0.2, 0.3]}},
    "subset": {"include": [1]},
    "tetris": {"pieces": ["I", "O"]},
    "torus": {"x0": [6.0, 6.2]},
    "torus increments": {"x0": [6.0, 6.2]},
}


@pytest.mark.parametrize("name", WISHES)
def test_what_grows_inside_a_restriction_is_inside(name: str, generator: torch.Generator) -> None:
    space = small(name)
    restricted = space.restricted(WISHES[name])
    states = random_states(space, 40, generator)
    n_inside = int(is_inside(restricted, states, generator).sum())
    grown = grown_inside(restricted, states, ANY, generator)
    assert n_inside < 40
    assert bool(is_inside(restricted, grown, generator).all())
    assert torch.equal(space.from_keys(space.keys(grown)), grown)


@pytest.mark.parametrize(("name", "size"), [("sequence fixed", 4.0**6), *SIZES.items()])
def test_weights_of_random_candidates_measure_the_space(
    name: str, size: float, generator: torch.Generator
) -> None:
    space = small(name)
    states, log_weights = weighed_states(space, 3000, generator)
    weights = log_weights.exp()
    assert bool(space.is_terminal(states).all())
    error = float(weights.std()) / len(weights) ** 0.5
    assert abs(float(weights.mean()) - size) < 4 * error + 1e-6 * size


def test_a_weighted_mean_is_a_sum_over_the_space(generator: torch.Generator) -> None:
    """Short words are drawn far too often; their weights make up for it."""
    words, _ = target_distribution(WORDS, lambda states: torch.zeros(len(states)))
    states, log_weights = weighed_states(WORDS, 20_000, generator)
    is_short = (states[:, 2] == 0).double()
    assert abs(float((log_weights.exp() * is_short).mean()) - 16) < 1
    assert abs(float(log_weights.exp().mean()) / len(words) - 1) < 0.05

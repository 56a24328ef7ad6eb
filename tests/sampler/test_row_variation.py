"""Operators on rows: every answer is a candidate, every candidate can be reached."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sampler import Genetic, environment
from sampler.baselines import random_states
from sampler.environment import Environment
from sampler.environments.sequence import Sequence
from sampler.row_variation import RowOperators, row_operators

SPACES: dict[str, dict[str, Any]] = {
    "words": {"kind": "sequence", "alphabet": "ACG", "min_length": 2, "max_length": 6},
    "words from one letter": {
        "kind": "sequence",
        "alphabet": "AC",
        "min_length": 1,
        "max_length": 4,
    },
    "words of one length": {
        "kind": "sequence",
        "alphabet": "ACGT",
        "min_length": 5,
        "max_length": 5,
    },
    "one letter": {"kind": "sequence", "alphabet": "ACGT", "min_length": 1, "max_length": 1},
    "grid": {"kind": "hyper_grid", "n_dims": 3, "length": 7},
    "line of two points": {"kind": "hyper_grid", "n_dims": 1, "length": 2},
}


def of(name: str) -> tuple[Environment, RowOperators]:
    space = environment(**SPACES[name])
    operators = row_operators(space)
    assert operators is not None
    return space, operators


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def are_candidates(space: Environment, states: Tensor) -> bool:
    return torch.equal(space.from_keys(space.keys(states)), states)


@given(
    name=st.sampled_from(sorted(SPACES)),
    rate=st.none() | st.floats(0.01, 1.0),
    n=st.integers(0, 30),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=80, derandomize=True)
def test_mutants_and_children_are_candidates(
    name: str, rate: float | None, n: int, seed: int
) -> None:
    space, operators = of(name)
    generator = torch.Generator().manual_seed(seed)
    first, second = (random_states(space, n, generator) for _ in range(2))
    assert are_candidates(space, operators.mutated(first, rate, generator))
    assert are_candidates(space, operators.crossed(first, second, generator))


SIZES = {"words from one letter": 2 + 4 + 8 + 16, "grid": 7**3, "words of one length": 4**5}


@pytest.mark.parametrize("name", SIZES)
def test_mutations_lead_anywhere(name: str, generator: torch.Generator) -> None:
    space, operators = of(name)
    states = random_states(space, 1, generator).expand(20_000, -1)
    for _ in range(3):
        states = operators.mutated(states, None, generator)
    assert len(set(space.keys(states))) == SIZES[name]


@pytest.mark.parametrize("name", SPACES)
def test_a_mutant_differs(name: str, generator: torch.Generator) -> None:
    space, operators = of(name)
    states = random_states(space, 500, generator)
    is_changed = (operators.mutated(states, None, generator) != states).any(dim=1)
    assert float(is_changed.double().mean()) > 0.75, "shifting equal letters changes nothing"


def test_most_mutants_differ_in_few_places(generator: torch.Generator) -> None:
    space = environment("sequence", alphabet="peptide", min_length=32, max_length=32)
    operators = row_operators(space)
    assert operators is not None
    states = random_states(space, 1000, generator)
    n_changed = (operators.mutated(states, None, generator) != states).sum(dim=1)
    assert 0.15 < float((n_changed <= 2).double().mean()) < 0.6
    always = operators.mutated(states, 1e-9, generator)
    assert float(((always != states).sum(dim=1) == 1).double().mean()) > 0.7


@pytest.mark.parametrize("name", ["grid", "words of one length"])
def test_children_have_each_column_from_a_parent(name: str, generator: torch.Generator) -> None:
    space, operators = of(name)
    first, second = (random_states(space, 300, generator) for _ in range(2))
    children = operators.crossed(first, second, generator)
    assert bool(((children == first) | (children == second)).all())
    assert not torch.equal(children, first)
    assert not torch.equal(children, second)


def test_half_of_the_children_have_a_beginning_and_an_end(generator: torch.Generator) -> None:
    space = environment("sequence", alphabet="AC", min_length=8, max_length=8)
    operators = row_operators(space)
    assert operators is not None
    first, second = (space.from_keys([key]).expand(400, -1) for key in ("A" * 8, "C" * 8))
    keys = space.keys(operators.crossed(first, second, generator))
    cut = {"A" * k + "C" * (8 - k) for k in range(1, 8)}
    assert cut <= set(keys)
    assert 0.45 < sum(key in cut for key in keys) / 400 < 0.65


def test_a_child_of_words_is_as_long_as_its_second_parent(generator: torch.Generator) -> None:
    space, operators = of("words")
    first, second = (random_states(space, 100, generator) for _ in range(2))
    children = operators.crossed(first, second, generator)
    assert torch.equal(children.sign().sum(1), second.sign().sum(1))


def test_letters_that_are_put_in_push_the_others_on(generator: torch.Generator) -> None:
    space = environment("sequence", alphabet="ACGT", min_length=1, max_length=9)
    operators = row_operators(space)
    assert operators is not None
    word = space.from_keys(["ACGT"]).expand(4000, -1)
    keys = set(space.keys(operators.mutated(word, 1e-9, generator)))
    assert {"ACG", "AGT", "AT", "A"} <= keys, "left out"
    assert any(len(k) == 5 and k.startswith("AC") and k.endswith("GT") for k in keys), "put in"


class Fewer(Sequence):
    """A space of fewer words than its rows say."""


@pytest.mark.parametrize(
    "space",
    [
        Fewer("ACGT", 2, 5),
        environment("sequence", alphabet="ACGT", min_length=2, max_length=5).restricted(
            {"contains": "GT"}
        ),
        environment("subset", n_items=5, size=2),
    ],
    ids=["subclass", "restricted", "another"],
)
def test_other_spaces_have_none(space: Environment) -> None:
    assert row_operators(space) is None


def test_a_wish_to_go_back_some_steps_is_heard() -> None:
    """Back one step and forth again: a word has three neighbours, with another last letter."""
    space = environment("sequence", alphabet="ACGT", min_length=12, max_length=12)
    start = space.from_keys(["ACGTACGTACGT"])

    def n_neighbours(**options: Any) -> int:
        asked: list[Tensor] = []

        def reward(states: Tensor) -> Tensor:
            asked.append(states)
            return (states == start).all(dim=1).double()

        sampler = Genetic(space, seed=0, crossover_rate=0.0, population_size=1, **options)
        sampler.train(reward, 2, 4, examples=start, example_fraction=0.25)
        return int((asked[1][:, :11] == start[:, :11]).all(dim=1).sum())

    assert n_neighbours(n_back=1.0) == 3
    assert n_neighbours() < 3


def test_a_piece_moves_and_everything_else_stays(generator: torch.Generator) -> None:
    """Mutants of a word in which AC is no longer where it was, and TT still is."""
    space = environment(kind="sequence", alphabet="ACGT", min_length=9, max_length=9)
    operators = row_operators(space)
    assert operators is not None
    states = space.from_keys(["GACGGGGTT"]).expand(4000, -1)
    found = space.keys(operators.mutated(states, 1e-9, generator))
    moved = [word for word in found if word.endswith("TT") and "AC" in word[2:]]
    assert {word.rindex("AC") for word in moved} == {2, 3, 4, 5}
    assert len(moved) > 40  # by chance letters would do it twice in 4000

"""The pool: what is known, what a search adds, each once and best first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.pool import searched_pool, variants
from sampler import environment
from sampler.baselines import Random
from tests.fakes import Menu

WORDS = environment("sequence", alphabet="ACGT", min_length=12, max_length=12)
HIDDEN = WORDS.features(WORDS.from_keys(["ACGTTGCAACCG"]))[0]


class Letters:
    """The gain is the number of letters of a hidden word that are right."""

    def target_log_gain(self, features: Tensor) -> Tensor:
        return features @ HIDDEN


class First:
    """The gain is the first feature."""

    def target_log_gain(self, features: Tensor) -> Tensor:
        return features[:, 0]


def test_each_stands_once_best_first_with_its_gain() -> None:
    known = Random(WORDS).sample(30, seed=0)
    pool = searched_pool(WORDS, Letters(), torch.cat([known, known]), seed=1, n_generations=3)
    keys = WORDS.keys(pool.states)
    assert len(set(keys)) == len(keys)
    assert set(WORDS.keys(known)) <= set(keys)
    assert torch.equal(pool.gains, Letters().target_log_gain(WORDS.features(pool.states)))
    assert bool((pool.gains.diff() <= 0).all())
    assert torch.equal(pool.best(5), pool.states[:5])


def test_the_search_finds_better_than_was_known() -> None:
    known = Random(WORDS).sample(30, seed=0)
    without = searched_pool(WORDS, Letters(), known, seed=1, n_generations=0)
    pool = searched_pool(WORDS, Letters(), known, seed=1, n_generations=20)
    assert len(without.states) == 30
    # 20 generations of 64: a random search of as many reaches about 8.
    assert float(pool.gains[0]) >= max(11.0, float(without.gains[0]) + 2)


def test_the_same_seed_finds_the_same() -> None:
    known = Random(WORDS).sample(30, seed=0)
    one, other = (searched_pool(WORDS, Letters(), known, seed=4, n_generations=3) for _ in "ab")
    assert torch.equal(one.states, other.states)


def test_a_space_that_is_known_whole_needs_no_search() -> None:
    menu = Menu(6)
    pool = searched_pool(menu, First(), menu.from_keys([f"item {i}" for i in range(6)]), seed=0)
    assert menu.keys(pool.states) == [f"item {i}" for i in reversed(range(6))]


def test_variants_are_words_near_the_observed_ones_and_the_same_by_seed() -> None:
    space = environment("sequence", alphabet="ACGT", min_length=8, max_length=8)
    observed = space.from_keys(["AAAAAAAA", "CCCCCCCC"])
    found = variants(space, observed, 200, seed=1)
    assert torch.equal(space.from_keys(space.keys(found)), found)
    assert len(found) == 200
    near = [max(word.count("A"), word.count("C")) for word in space.keys(found)]
    assert sum(n >= 6 for n in near) > 60
    assert torch.equal(found, variants(space, observed, 200, seed=1))
    assert len(variants(space, observed[:0], 200, seed=1)) == 0


def test_nothing_known_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one known candidate"):
        searched_pool(WORDS, Letters(), WORDS.initial_states(0), seed=0)


def test_words_are_searched_from_the_best_observed_ones_too() -> None:
    known, right = Random(WORDS).sample(30, seed=0), "ACGTTGCAACCG"
    near = WORDS.from_keys([right[:i] + "T" + right[i + 1 :] for i in (0, 1, 5, 6, 8, 9)])
    without = searched_pool(WORDS, Letters(), known, seed=1, n_generations=3)
    pool = searched_pool(WORDS, Letters(), known, seed=1, n_generations=3, observed=near)
    # Three generations from random words reach 9 or 10; these begin with 11 and need not be asked.
    assert float(without.gains[0]) < 11 <= float(pool.gains[0])
    assert set(WORDS.keys(without.states)) <= set(WORDS.keys(pool.states))

"""Ehrlich functions: the definition, and the same puzzles as holo-bench."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.oracle import NotRun
from oracles.sequences import LETTERS, Ehrlich


def ehrlich(**options: Any) -> Ehrlich:
    return Ehrlich("f", 1, **({"length": 15, "n_motifs": 2, "motif_length": 4} | options))


def value(oracle: Ehrlich, word: str) -> float:
    (answer,) = oracle.query([word])
    assert isinstance(answer, dict), answer
    return answer["value"]


def numbers(oracle: Ehrlich, word: str) -> list[int]:
    return [oracle.alphabet.index(letter) for letter in word]


def by_definition(oracle: Ehrlich, word: str) -> float:
    """The paper's formula, one sequence at a time."""
    x = numbers(oracle, word)
    if any(oracle.puzzle.transitions[a, b] == 0 for a, b in itertools.pairwise(x)):
        return 0.0
    product = 1.0
    for motif, offsets in zip(oracle.puzzle.motifs, oracle.puzzle.offsets, strict=True):
        best, k, q = 0.0, len(motif), oracle.quantization
        for place in range(len(x) - offsets[-1]):
            hits = sum(x[place + s] == a for s, a in zip(offsets, motif, strict=True))
            best = max(best, math.floor(hits * q / k) / q)
        product *= best
    return product


# Printed by pytorch-holo 0.0.5: Ehrlich(num_states=20, dim=length, num_motifs=2, motif_length=4,
# quantization=4, random_seed=seed), its optimal_solution() and initial_solution(); its states are
# numbers, here the letters of LETTERS.
FROM_HOLO = [
    (15, 0, ["VQNS", "DYQN"], [[0, 1, 2, 5], [0, 2, 3, 5]], "VQNNNSDDYQQNNNN",
     "VFWRVQNGKIIINWA"),
    (15, 1, ["HGRW", "IAQW"], [[0, 2, 3, 4], [0, 2, 4, 5]], "HHGRWIIAAQWWWWW",
     "ASCPAQAQLLCKTNE"),
    (32, 0, ["VQNS", "DYQN"], [[0, 3, 5, 14], [0, 6, 9, 14]],
     "VVVQQNNNNNNNNNSDDDDDDYYYQQQQQNNN", "VFWRVQNGKIIINWAKLRHRHTVFLHRKLHRV"),
    (32, 2, ["QCIF", "ALGV"], [[0, 3, 8, 13], [0, 3, 8, 13]],
     "QQQCCCCCIIIIIFAAALLLLLGGGGGVVVVV", "HMCIFIKHDNRRGVKFKHPGREPWDQHHHPWI"),
]  # fmt: skip


@pytest.mark.parametrize(("length", "seed", "motifs", "offsets", "optimum", "start"), FROM_HOLO)
def test_the_same_puzzle_as_holo_bench(
    length: int,
    seed: int,
    motifs: list[str],
    offsets: list[list[int]],
    optimum: str,
    start: str,
) -> None:
    oracle = ehrlich(length=length, random_seed=seed)
    assert [m.tolist() for m in oracle.puzzle.motifs] == [numbers(oracle, m) for m in motifs]
    assert [o.tolist() for o in oracle.puzzle.offsets] == offsets
    assert oracle.optimum() == optimum
    assert oracle.start(1) == [start]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"length": 32, "random_seed": 3},
        {"length": 64, "n_motifs": 4, "quantization": 2, "random_seed": 7},
        {"length": 8, "n_motifs": 2, "random_seed": 1},
        {"length": 12, "n_motifs": 1, "motif_length": 3, "alphabet": "ACGT"},
    ],
)
def test_the_optimum_is_one_and_the_start_is_feasible(options: dict[str, Any]) -> None:
    oracle = ehrlich(**options)
    assert value(oracle, oracle.optimum()) == 1.0
    words = np.array([numbers(oracle, word) for word in oracle.start(50)])
    assert oracle.is_feasible(words).all()
    assert (oracle.values(words) <= 1).all()


@settings(max_examples=40)
@given(data=st.data(), seed=st.integers(0, 5), quantization=st.sampled_from([1, 2, 4]))
def test_it_is_the_definition(data: st.DataObject, seed: int, quantization: int) -> None:
    oracle = ehrlich(random_seed=seed, quantization=quantization)
    word = list(oracle.optimum())
    for _ in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(word) - 1))
        # Mostly by a neighbour's letter, which keeps many words feasible.
        near = word[max(0, place - 1)]
        word[place] = data.draw(st.one_of(st.just(near), st.sampled_from(LETTERS)))
    assert value(oracle, "".join(word)) == pytest.approx(by_definition(oracle, "".join(word)))


def test_a_banned_transition_makes_it_worth_nothing() -> None:
    oracle = ehrlich()
    first, second = np.argwhere(oracle.puzzle.transitions == 0)[0]
    spoiled = LETTERS[first] + LETTERS[second] + oracle.optimum()[2:]
    assert value(oracle, spoiled) == 0.0
    assert (oracle.puzzle.transitions.diagonal() > 0).all()


def test_fewer_steps_of_quantisation_round_down() -> None:
    word = ehrlich().optimum()
    three_of_four = word[:5] + word[4] + word[6:]  # the S of VQNS becomes another N
    fine, coarse = ehrlich(), ehrlich(quantization=1)
    assert value(fine, three_of_four) == 0.75
    assert value(ehrlich(quantization=2), three_of_four) == 0.5
    assert value(coarse, three_of_four) == 0.0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"length": 7}, "length"),
        ({"quantization": 3}, "quantization"),
        ({"quantization": 0}, "quantization"),
        ({"n_motifs": 0}, "n_motifs"),
        ({"motif_length": 1}, "motif_length"),
        ({"alphabet": "AAC"}, "alphabet"),
        ({"alphabet": "AC"}, "alphabet"),
    ],
)
def test_impossible_options(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ehrlich(**options)


@pytest.mark.parametrize("absurd", ["VQN", "vqnnnsddyqqnnnn", "", None, 3, ["V"] * 15])
def test_a_word_of_another_space_is_refunded(absurd: object) -> None:
    (answer,) = ehrlich().query([absurd])
    assert isinstance(answer, NotRun)
    assert "expected" in str(answer)

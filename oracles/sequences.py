"""Ehrlich functions: closed-form stand-ins for the design of biological sequences.

Named axes: n sequences, l positions, s states (letters), k elements of a motif.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracles.oracle import Answer, NotRun

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
"""The alphabet by default, one letter a state: the 20 amino acids."""

SOFTMAX_TEMPERATURE = 0.5
BAND = 0.4
"""On each side of the diagonal so large a share of the states may follow, before the shuffle."""

Words = NDArray[np.int64]


class Ehrlich:
    """An Ehrlich function (Stanton et al. 2024, arXiv 2407.00236), to be maximised; optimum 1.

        f(x) = product over motifs i of q_i(x) where every transition of x is allowed, else 0
        q_i(x) = max over places l of floor(q / k * |{j : x[l + s_ij] = a_ij}|) / q

    A random transition matrix bans some letters from following others; `n_motifs` motifs a_i of
    `motif_length` letters are spread over positions 0 = s_i1 < s_i2 < …, and each counts in
    `quantization` steps (all its elements when None). The optimum is always feasible, and a
    sequence that misses any motif altogether is worth 0. Motifs, spacings and matrix follow from
    `random_seed` by the same draws as in holo-bench (`Ehrlich` of pytorch-holo 0.0.5), whose
    function this is, except that an infeasible sequence is worth 0 here and -inf there.

    A candidate is a `str` of `length` letters of `alphabet`; another is a `NotRun` answer.
    """

    properties = ("value",)
    batch_size = 1024

    def __init__(
        self,
        fidelity: str,
        cost: float,
        length: int = 32,
        n_motifs: int = 2,
        motif_length: int = 4,
        quantization: int | None = None,
        alphabet: str = LETTERS,
        random_seed: int = 0,
    ) -> None:
        if not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost must be a number >= 0, not {cost}")
        self.quantization = motif_length if quantization is None else quantization
        _check(length, n_motifs, motif_length, self.quantization, alphabet)
        self.fidelity = fidelity
        self.cost = cost
        self.length = length
        self.alphabet = alphabet
        self.random_seed = random_seed
        self.puzzle = puzzle(len(alphabet), length, n_motifs, motif_length, random_seed)
        shape = (length, n_motifs, motif_length, self.quantization, alphabet, random_seed)
        self.version = f"1 {shape}"
        self._numbers = {letter: i for i, letter in enumerate(alphabet)}

    def query(self, candidates: Sequence[Any]) -> list[Answer]:
        """One `{"value": f}` for each candidate, in order, or a `NotRun` that says why not."""
        words = [self._word(candidate) for candidate in candidates]
        good = [word for word in words if not isinstance(word, NotRun)]
        values = iter(self.values(np.array(good, dtype=np.int64).reshape(-1, self.length)))
        return [
            word if isinstance(word, NotRun) else {"value": float(next(values))} for word in words
        ]

    def values(self, words: Words) -> NDArray[np.float64]:
        """The function `(n,)` at sequences of letter numbers `(n, l)`."""
        value = self.is_feasible(words).astype(np.float64)
        for motif, offsets in zip(self.puzzle.motifs, self.puzzle.offsets, strict=True):
            k, q = len(motif), self.quantization
            value *= np.floor(_most_elements(words, motif, offsets) * q / k) / q
        return value

    def is_feasible(self, words: Words) -> NDArray[np.bool_]:
        """Whether every transition of each of `words` `(n, l)` is allowed, `(n,)`."""
        is_allowed = self.puzzle.transitions > 0
        steps: NDArray[np.bool_] = is_allowed[words[:, :-1], words[:, 1:]]
        return np.array(steps.all(axis=1), dtype=np.bool_)

    def optimum(self) -> str:
        """A sequence of value 1: each motif in its spacing, every gap filled by repeating."""
        numbers: list[int] = []
        for motif, offsets in zip(self.puzzle.motifs, self.puzzle.offsets, strict=True):
            repeats = np.diff([*offsets, offsets[-1] + 1])
            numbers += np.repeat(motif, repeats).tolist()
        numbers += [numbers[-1]] * (self.length - len(numbers))
        return self._text(numbers)

    def start(self, n: int) -> list[str]:
        """N feasible sequences drawn from the Markov chain, as holo-bench's `initial_solution(n)`.

        They may be equal; the same ones every time.
        """
        generator = torch.Generator().manual_seed(self.random_seed)
        drawn = _walks(self.puzzle.stationary, self.puzzle.matrix, self.length, n, generator)
        return [self._text(row) for row in drawn.tolist()]

    def _text(self, numbers: Sequence[int]) -> str:
        return "".join(self.alphabet[i] for i in numbers)

    def _word(self, candidate: Any) -> list[int] | NotRun:
        if not isinstance(candidate, str):
            return NotRun(f"expected a text, got {type(candidate).__name__}")
        if len(candidate) != self.length:
            return NotRun(f"expected {self.length} letters, got {len(candidate)}")
        strange = [letter for letter in candidate if letter not in self._numbers]
        if strange:
            return NotRun(f"expected letters of {self.alphabet}, got {strange[0]!r}")
        return [self._numbers[letter] for letter in candidate]


@dataclass(frozen=True)
class Puzzle:
    """What a seed decides. `offsets[i]` `(k,)` are the positions of motif i's elements from its
    first; `matrix` `(s, s)` holds the transition probabilities, `stationary` `(s,)` their limit.
    """

    motifs: list[Words]
    offsets: list[Words]
    matrix: Tensor
    stationary: Tensor

    @property
    def transitions(self) -> NDArray[np.float32]:
        """`matrix` as an array."""
        array: NDArray[np.float32] = self.matrix.numpy()
        return array


def puzzle(n_states: int, length: int, n_motifs: int, motif_length: int, seed: int) -> Puzzle:
    """Draw matrix, motifs and spacings, in holo-bench's order and precision (float32).

    The motifs are one walk of the chain cut into pieces, so that their concatenation is feasible;
    the gaps of each share the positions that the motifs leave over.
    """
    generator = torch.Generator().manual_seed(seed)
    matrix = _transition_matrix(n_states, generator)
    stationary = _stationary(matrix)
    walk = _walks(stationary, matrix, n_motifs * motif_length, 1, generator)[0]
    slack = (length - n_motifs * motif_length) // n_motifs
    offsets = [_offsets(motif_length, slack, generator) for _ in range(n_motifs)]
    motifs = list(walk.reshape(n_motifs, motif_length).numpy())
    return Puzzle(motifs, offsets, matrix, stationary)


def _transition_matrix(n_states: int, generator: torch.Generator) -> Tensor:
    """Random transition probabilities `(s, s)` in a shuffled band; repeating is always allowed."""
    logits = torch.randn(n_states, n_states, generator=generator) / SOFTMAX_TEMPERATURE
    states = torch.arange(n_states)
    distance = (states[:, None] - states[None, :]).abs()
    around = torch.minimum(distance, n_states - distance)
    band = (around <= int(n_states * BAND))[torch.randperm(n_states, generator=generator)]
    allowed = band | torch.eye(n_states, dtype=torch.bool)
    kept = logits.softmax(dim=-1) * allowed
    matrix: Tensor = kept / kept.sum(dim=-1, keepdim=True)
    return matrix


def _stationary(matrix: Tensor) -> Tensor:
    """The distribution p `(s,)` with p = p P and sum 1, by least squares."""
    n = len(matrix)
    equations = torch.cat([(torch.eye(n) - matrix).T, torch.ones(1, n)])
    right = torch.zeros(n + 1, 1)
    right[-1] = 1
    q, r = torch.linalg.qr(equations)
    solution: Tensor = torch.linalg.solve(r, q.T @ right)
    return solution[:, 0]


def _walks(
    start: Tensor, matrix: Tensor, n_steps: int, n: int, generator: torch.Generator
) -> Tensor:
    """N walks `(n, n_steps)` of the chain whose first states follow `start` `(s,)`."""
    walks = torch.zeros(n, n_steps, dtype=torch.int64)
    walks[:, 0] = torch.multinomial(start, n, replacement=True, generator=generator)
    for step in range(1, n_steps):
        following = matrix[walks[:, step - 1]]
        walks[:, step] = torch.multinomial(following, 1, generator=generator)[:, 0]
    return walks


def _offsets(motif_length: int, slack: int, generator: torch.Generator) -> Words:
    """Positions `(k,)` of a motif's elements: gaps of 1 and a random share of `slack` each."""
    weights = torch.rand(motif_length - 1, generator=generator)
    gaps = 1 + (slack * (weights / weights.sum())).floor().long()
    offsets: Words = np.concatenate([[0], np.cumsum(gaps.numpy())])
    return offsets


def _most_elements(words: Words, motif: Words, offsets: Words) -> NDArray[np.int64]:
    """How many of the motif's elements stand in place where most of them do, `(n,)`."""
    places = np.arange(words.shape[1] - offsets[-1])
    found = words[:, places[:, None] + offsets] == motif
    most: NDArray[np.int64] = found.sum(axis=2).max(axis=1)
    return most


def _check(length: int, n_motifs: int, motif_length: int, quantization: int, alphabet: str) -> None:
    """ValueError for a function that cannot be, or whose optimum might not exist."""
    if n_motifs < 1 or motif_length < 2:
        raise ValueError(
            "expected n_motifs of 1 or more and motif_length of 2 or more, got "
            f"{n_motifs} and {motif_length}"
        )
    if length < n_motifs * motif_length:
        raise ValueError(
            f"length: expected at least n_motifs x motif_length = {n_motifs * motif_length}, "
            f"got {length}"
        )
    if not 1 <= quantization <= motif_length or motif_length % quantization:
        raise ValueError(
            f"quantization: expected a divisor of motif_length {motif_length}, got {quantization}"
        )
    if len(alphabet) < 3 or len(set(alphabet)) < len(alphabet):
        raise ValueError(f"alphabet: expected 3 or more distinct letters, got {alphabet!r}")

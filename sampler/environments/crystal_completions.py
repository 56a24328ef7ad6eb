"""Which unfinished compositions can be completed: tables filled backwards over the elements.

Elements are decided in order of their index, each absent or with n atoms. All that the past means
for the future is k elements chosen, a site class w, a atoms and a total charge q in all. With

    R_e[k, w, a, q] = k, w, a may end, and q = 0
    E_i,n[k, w, a, q] = any s: R_{i+1}[k + 1, step[w, n], a + n, q + s]    (n atoms of element i)
    R_i[k, w, a, q] = any n: E_i,n, or R_{i+1}[k, w, a, q] where element i may be absent,

R_i says whether elements i … e - 1 can be decided so that the whole is valid: a knapsack recurrence
(Bellman 1957) with sites and charges beside the weight. Only the (k, w, a) that can occur have a
row, and a row holds the charges as bits of 32-bit words, in the order of `ChargeSets`.

Named axes: e elements, c numbers of atoms of an element 0 … most, w site classes, a slots for total
numbers of atoms (one where they do not matter), r rows, l words.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sampler.environments.crystal_charges import WORD, Sums

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Words = NDArray[np.uint32]

_MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class Problem:
    """What is summed up in the tables; arrays."""

    allowed: Bools
    """Whether an element may have so many atoms, `(e, c)`."""
    n_elements: tuple[int, int]
    sums: Sums
    low: int
    """Charge of bit 0 of word 0."""
    n_words: int
    step: Ints
    """Site class once n atoms of one more element are placed, `(w, c)`."""
    ends: Bools
    """Whether a composition may end in a class with so many atoms, `(w, a)`."""
    starts: Ints
    """Classes that compositions start in."""


@dataclass(frozen=True)
class Completions:
    """The tables; row 0 is empty and stands for whatever cannot be added to."""

    row: Ints
    """Row of (k, w, a), `(k, w, a)`, k = 0 … most elements - 1."""
    chosen: Words
    """Charges from which element i can be the next, `(r, e, l)`."""
    counted: Words
    """Charges from which element i can be the next with 1, 2 … atoms, `(r, e, c - 1, l)`."""


def fill_completions(problem: Problem) -> Completions:
    """Fill the tables. ValueError where they would not fit into memory."""
    n_kinds, n_columns = problem.allowed.shape
    reached = _reached(problem)
    row = np.where(reached, np.cumsum(reached).reshape(reached.shape), 0)
    after = _rows_after(problem, reached, row)
    n_rows = len(after)
    _check_size(problem, (n_rows, n_kinds, n_columns, problem.n_words))
    chosen = np.zeros((n_rows, n_kinds, problem.n_words), dtype=np.uint32)
    counted = np.zeros((n_rows, n_kinds, n_columns - 1, problem.n_words), dtype=np.uint32)
    now = _finished(problem, reached)
    for i in range(n_kinds - 1, -1, -1):
        for n in np.flatnonzero(problem.allowed[i, 1:]) + 1:
            counted[:, i, n - 1] = _shifted(now, problem.sums[i][n])[after[:, n]]
        np.bitwise_or.reduce(counted[:, i], axis=1, out=chosen[:, i])
        now = now if problem.allowed[i, 0] else np.zeros_like(now)
        now[:n_rows] |= chosen[:, i]
    return Completions(row[:-1], chosen, counted)


def _check_size(problem: Problem, size: tuple[int, ...]) -> None:
    needed = 4 * int(np.prod(size))
    if needed > _MAX_BYTES:
        raise ValueError(
            f"compositions: {needed >> 20:,} MiB of tables for {len(problem.allowed)} elements, "
            f"{len(problem.step)} classes of sites and {problem.ends.shape[1]} numbers of atoms, "
            f"expected at most {_MAX_BYTES >> 20:,} MiB; lower n_elements, n_atoms or "
            "n_atoms_per_element, or widen n_atoms to all that these make possible"
        )


def _reached(problem: Problem) -> Bools:
    """Numbers of elements, classes and numbers of atoms that occur, sites alone; `(k, w, a)`."""
    n_slots = problem.ends.shape[1]
    reached = np.zeros((problem.n_elements[1] + 1, *problem.ends.shape), dtype=bool)
    reached[0, problem.starts, 0] = True
    reached[0, 0] = False
    for before, after in pairwise(reached):
        for n in np.flatnonzero(problem.allowed[:, 1:].any(axis=0)) + 1:
            moved = min(n, n_slots) if n_slots > 1 else 0
            np.bitwise_or.at(after[:, moved:], problem.step[:, n], before[:, : n_slots - moved])
        after[0] = False
    return reached


def _rows_after(problem: Problem, reached: Bools, row: Ints) -> Ints:
    """Row once n atoms of one more element are added, for rows of k below the most; `(r, c)`."""
    n_slots = problem.ends.shape[1]
    level, site, slot = reached[:-1].nonzero()
    n = np.arange(problem.step.shape[1])
    slots = slot[:, None] + (n if n_slots > 1 else 0)
    after = row[level[:, None] + 1, problem.step[site], np.minimum(slots, n_slots - 1)]
    after = np.where(slots < n_slots, after, 0)
    return np.concatenate([np.zeros_like(after[:1]), after])


def _finished(problem: Problem, reached: Bools) -> Words:
    """R_e of all rows, `(r, l)`."""
    level, site, slot = reached.nonzero()
    word, bit = divmod(-problem.low, WORD)
    table = np.zeros((len(level) + 1, problem.n_words), dtype=np.uint32)
    is_finished = problem.ends[site, slot] & (level >= problem.n_elements[0])
    table[1:, word] = is_finished.astype(np.uint32) << bit
    return table


def _shifted(table: Words, charges: tuple[int, ...]) -> Words:
    """At each charge q, what `table` `(r, l)` holds at q + s for any s of `charges`."""
    n_words = table.shape[1]
    union = np.zeros_like(table)
    for s in charges:
        words, bits = divmod(abs(s), WORD)
        if words >= n_words:
            continue
        kept = n_words - words
        if s >= 0:
            union[:, :kept] |= table[:, words:] >> bits
            if bits:
                union[:, : kept - 1] |= table[:, words + 1 :] << (WORD - bits)
        else:
            union[:, words:] |= table[:, :kept] << bits
            if bits:
                union[:, words + 1 :] |= table[:, : kept - 1] >> (WORD - bits)
    return union

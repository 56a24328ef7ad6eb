"""Rows of features taken apart by their layout, and what two sets of rows have in common.

Named axes: a, b rows; c continuous columns; w columns of all choices; p motifs of a gap; t motifs
that a word has at most; g gaps. Nothing here has a parameter, so it is done once a fit, not once an
evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.blocks import Layout, Word

_MAX_GAP = 12
_MAX_MOTIFS = 5000
"""At most so many pairs of letters, over all gaps, are told apart: gaps are dropped beyond."""


@dataclass(frozen=True)
class Motifs:
    """The motifs that some words have of one gap: `numbers (a, t)` int64, each once in a row.

    There are `n` different ones, and the number n stands for none.
    """

    numbers: Tensor
    n: int

    def count(self) -> Tensor:
        """How many each word has, `(a,)` float64."""
        return (self.numbers < self.n).sum(1).double()

    def membership(self) -> Tensor:
        """Which of them each word has, `(a, p)` float32 of 0 and 1.

        Exact in what products of it count, which are the costly part.
        """
        told = torch.zeros(len(self.numbers), self.n + 1, dtype=torch.float32)
        return told.scatter_(1, self.numbers, 1.0)[:, : self.n]


@dataclass(frozen=True)
class Encoded:
    """Rows of features, taken apart.

    `continuous (a, c)` as they are; `choices (a, w)` one-hot, with one more column for the
    empty choice; `motifs`, for each word and each gap; `sets`, the membership columns of each set.
    """

    continuous: Tensor
    choices: Tensor
    motifs: tuple[tuple[Motifs, ...], ...]
    sets: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.continuous)

    def n_motifs(self) -> tuple[Tensor, ...]:
        """For each word how many of each gap, `(g, a)`."""
        return tuple(torch.stack([gap.count() for gap in word]) for word in self.motifs)


@dataclass(frozen=True)
class Pairs:
    """What rows `a` and `b` have in common.

    `motifs`, for each word how many motifs both have, `(g, a, b)`; `sets`, for each set how many
    members, `(a, b)`.
    """

    a: Encoded
    b: Encoded
    motifs: tuple[Tensor, ...]
    sets: tuple[Tensor, ...]


def encode(x: Tensor, columns: Layout) -> Encoded:
    """Take rows `x (a, d)` apart."""
    if columns.is_continuous:
        return Encoded(x, x[:, :0], (), ())
    empty = [1 - x[:, at].sum(1, keepdim=True) for at in columns.choices]
    chosen = [x[:, at] for at in columns.choices]
    return Encoded(
        continuous=x[:, list(columns.continuous)],
        choices=torch.cat([x[:, :0], *chosen, *empty], 1),
        motifs=tuple(tuple(word_motifs(x, word)) for word in columns.words),
        sets=tuple(x[:, at] for at in columns.sets),
    )


def compare(a: Encoded, b: Encoded) -> Pairs:
    """What rows `a` and rows `b` have in common."""
    motifs = [
        torch.stack([_shared(*of) for of in zip(own_a, own_b, strict=True)])
        for own_a, own_b in zip(a.motifs, b.motifs, strict=True)
    ]
    sets = [of_a @ of_b.T for of_a, of_b in zip(a.sets, b.sets, strict=True)]
    return Pairs(a, b, tuple(motifs), tuple(sets))


def _shared(a: Motifs, b: Motifs) -> Tensor:
    return (a.membership() @ b.membership().T).double()


def n_gaps(word: Word) -> int:
    """How many distances between two letters are told apart, 0 or more."""
    return min(word.n_places - 1, _MAX_GAP, _MAX_MOTIFS // word.n_letters**2)


def word_motifs(x: Tensor, word: Word) -> list[Motifs]:
    """Which letters a word has, then for each gap which pairs of letters that far apart.

    Places do not matter: a motif is the same wherever it stands.
    """
    k = word.n_letters
    one_hot = x[:, word.columns].reshape(len(x), word.n_places, k)
    # 0 where nothing is written.
    letters = (one_hot @ torch.arange(1, k + 1, dtype=one_hot.dtype)).long()
    alone = _each_once(torch.where(letters > 0, letters - 1, k), k)
    return [alone, *(_pairs(letters, gap, k) for gap in range(1, n_gaps(word) + 1))]


def _pairs(letters: Tensor, gap: int, k: int) -> Motifs:
    """Which pairs of letters stand `gap` places apart."""
    first, second = letters[:, :-gap], letters[:, gap:]
    is_pair = (first > 0) & (second > 0)
    return _each_once(torch.where(is_pair, (first - 1) * k + second - 1, k * k), k * k)


def _each_once(numbers: Tensor, n: int) -> Motifs:
    numbers = numbers.sort(1).values
    again = torch.zeros_like(numbers, dtype=torch.bool)
    again[:, 1:] = numbers[:, 1:] == numbers[:, :-1]
    return Motifs(numbers.masked_fill(again, n), n)


def choice_columns(columns: Layout) -> Sequence[int]:
    """The number of the choice that each column of `Encoded.choices` belongs to, `(w,)`."""
    widths = [at.stop - at.start for at in columns.choices]
    chosen = [i for i, width in enumerate(widths) for _ in range(width)]
    return [*chosen, *range(len(widths))]

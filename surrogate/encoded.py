"""Rows of features taken apart by their layout, and what two sets of rows have in common.

Named axes: a, b rows; c continuous columns; w columns of all choices; p motifs of a word; g gaps.
Nothing here has a parameter, so it is done once a fit, not once an evaluation.
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
class Encoded:
    """Rows of features, taken apart.

    `continuous (a, c)` as they are; `choices (a, w)` one-hot, with one more column for the
    empty choice; `motifs`, for each word and each gap which motifs occur, `(a, p)` float32 of 0
    and 1, and `n_motifs`, for each word how many of each gap, `(g, a)`; `sets`, the membership
    columns of each set.
    """

    continuous: Tensor
    choices: Tensor
    motifs: tuple[tuple[Tensor, ...], ...]
    n_motifs: tuple[Tensor, ...]
    sets: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.continuous)


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
        return Encoded(x, x[:, :0], (), (), ())
    empty = [1 - x[:, at].sum(1, keepdim=True) for at in columns.choices]
    chosen = [x[:, at] for at in columns.choices]
    motifs = tuple(tuple(word_motifs(x, word)) for word in columns.words)
    return Encoded(
        continuous=x[:, list(columns.continuous)],
        choices=torch.cat([x[:, :0], *chosen, *empty], 1),
        motifs=motifs,
        n_motifs=tuple(torch.stack([gap.sum(1).double() for gap in word]) for word in motifs),
        sets=tuple(x[:, at] for at in columns.sets),
    )


def compare(a: Encoded, b: Encoded) -> Pairs:
    """What rows `a` and rows `b` have in common."""
    motifs = [
        torch.stack([(of_a @ of_b.T).double() for of_a, of_b in zip(own_a, own_b, strict=True)])
        for own_a, own_b in zip(a.motifs, b.motifs, strict=True)
    ]
    sets = [of_a @ of_b.T for of_a, of_b in zip(a.sets, b.sets, strict=True)]
    return Pairs(a, b, tuple(motifs), tuple(sets))


def n_gaps(word: Word) -> int:
    """How many distances between two letters are told apart, 0 or more."""
    return min(word.n_places - 1, _MAX_GAP, _MAX_MOTIFS // word.n_letters**2)


def word_motifs(x: Tensor, word: Word) -> list[Tensor]:
    """Which letters a word has, then for each gap which pairs of letters that far apart.

    `(a, k)`, then `(a, k²)` for each gap; float32, exact in what it counts, because products of
    it are the costly part. Places do not matter: a motif is the same wherever it stands.
    """
    letters = x[:, word.columns].reshape(len(x), word.n_places, word.n_letters).float()
    pairs = [_pairs(letters, gap) for gap in range(1, n_gaps(word) + 1)]
    return [letters.amax(1), *pairs]


def _pairs(letters: Tensor, gap: int) -> Tensor:
    """Which pairs of letters stand `gap` places apart, `(a, k²)`."""
    first, second = letters[:, :-gap], letters[:, gap:]
    counts = torch.einsum("api,apj->aij", first, second)
    return counts.flatten(1).clamp_max(1.0)


def choice_columns(columns: Layout) -> Sequence[int]:
    """The number of the choice that each column of `Encoded.choices` belongs to, `(w,)`."""
    widths = [at.stop - at.start for at in columns.choices]
    chosen = [i for i, width in enumerate(widths) for _ in range(width)]
    return [*chosen, *range(len(widths))]

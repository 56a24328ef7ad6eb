"""How similar words and sets are, whatever the place, in [0, 1].

Named axes: a, b rows; q rows that are asked about, n fixed ones; p motifs of a word; g gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.encoded import Motifs

_SHARED = 1e-3
"""What all words, and all sets, share: two empty ones are equal, not undefined."""

_SPARSE = 8
"""With so many times more motifs than a word can have, its own are looked up, not multiplied."""


def cosine(weights: Tensor, n_a: Tensor, n_b: Tensor, shared: Tensor) -> Tensor:
    """Cosine between the motifs of two sets of words with `weights (g,)`, `(a, b)`."""
    size_a, size_b = _SHARED + weights @ n_a, _SHARED + weights @ n_b
    both: Tensor = _SHARED + torch.tensordot(weights, shared, 1)
    return both / (size_a[:, None] * size_b).sqrt()


def tanimoto(members_a: Tensor, members_b: Tensor, shared: Tensor) -> Tensor:
    """Tanimoto's kernel of two collections of sets: what both have over what either has."""
    total = members_a.sum(1)[:, None] + members_b.sum(1)
    return (_SHARED + shared) / (_SHARED + total - shared)


@dataclass(frozen=True)
class WordCosine:
    """`cosine` with n fixed words, worked out for them and the `weights (g,)` beforehand.

    `table (p + 2, n)`: a row for each motif, one for none, one for what all words share; its
    columns have the fixed words' norms divided out.
    """

    table: Tensor
    weights: Tensor
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, weights: Tensor, fixed: Sequence[Motifs]) -> WordCosine:
        """That of words whose motifs of each gap are `fixed`."""
        sizes = [gap.n for gap in fixed]
        offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        rows = [w * gap.membership().T.double() for w, gap in zip(weights, fixed, strict=True)]
        norms = _norms(weights, fixed)
        none, all_share = norms.new_zeros(1, len(norms)), norms.new_full((1, len(norms)), _SHARED)
        return cls(torch.cat([*rows, none, all_share]) / norms, weights, tuple(offsets))

    def __call__(self, asked: Sequence[Motifs]) -> Tensor:
        """S of words whose motifs of each gap are `asked`, `(q, n)`."""
        none, all_share = len(self.table) - 2, len(self.table) - 1
        numbers = torch.cat(
            [
                *(
                    (gap.numbers + at).masked_fill(gap.numbers == gap.n, none)
                    for gap, at in zip(asked, self.offsets, strict=True)
                ),
                torch.full((len(asked[0].numbers), 1), all_share),
            ],
            1,
        )
        scale = _norms(self.weights, asked).reciprocal()[:, None]
        if none > _SPARSE * numbers.shape[1]:
            told = torch.nn.functional.embedding_bag(numbers, self.table, mode="sum")
            return told.mul_(scale)
        rows = torch.zeros(len(numbers), len(self.table), dtype=torch.float64)
        return rows.scatter_(1, numbers, scale.expand_as(numbers)) @ self.table


def _norms(weights: Tensor, motifs: Sequence[Motifs]) -> Tensor:
    size: Tensor = _SHARED + weights @ torch.stack([gap.count() for gap in motifs])
    return size.sqrt()

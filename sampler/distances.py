"""Distances between all pairs of rows of two batches, each a metric in [0, 1].

Named axes: a and b rows of the two batches, d coordinates, w columns, l letters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK = 2**22
"""Numbers in a table of the edit distance at a time: bounds the memory."""


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of coordinates in [0, 1], `(a, d)` and `(b, d)` → `(a, b)`.

    1 between opposite corners of the unit cube.
    """
    # Through a matrix product the distance of a row to itself would not be exactly 0.
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(a.double(), b.double(), compute_mode=exact) / math.sqrt(a.shape[1])


def circular(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square of the arcs between angles in turns, as parts of half a turn, `(a, b)`."""
    apart = (a.double()[:, None] - b.double()[None]).remainder(1.0)
    arcs = 2 * torch.minimum(apart, 1 - apart)
    return arcs.square().mean(dim=2).sqrt()


def hamming(a: Tensor, b: Tensor) -> Tensor:
    """Share of the columns that differ, `(a, w)` and `(b, w)` → `(a, b)`."""
    return torch.cdist(a.double(), b.double(), p=0) / a.shape[1]


def tanimoto(a: Tensor, b: Tensor) -> Tensor:
    """1 - |A and B| / |A or B| of sets given by their bits, `(a, w)` and `(b, w)` → `(a, b)`.

    0 between two empty sets. Tanimoto's distance, a metric (Jaccard 1901).
    """
    a, b = a.double(), b.double()
    shared = a @ b.T
    either = a.sum(1)[:, None] + b.sum(1)[None, :] - shared
    return torch.where(either > 0, 1 - shared / either.clamp(min=1), 0.0)


def edit(a: Tensor, b: Tensor) -> Tensor:
    """Edit distance over l, of words `(a, l)` and `(b, l)` → `(a, b)`.

    Letters are numbers above 0, written from the left; 0 where a word has ended. The fewest
    letters to insert, delete or replace (Levenshtein 1966), as a share of the longest word that
    there is room for: one letter counts the same in short and long words, and it stays a metric.
    """
    n_letters = a.shape[1]
    step = max(1, _CHUNK // max(1, len(b) * (n_letters + 1)))
    parts = (
        [_edits(rows, b) for rows in torch.split(a, step)] if len(a) else [a.new_zeros(0, len(b))]
    )
    return torch.cat(parts).double() / n_letters


def _edits(a: Tensor, b: Tensor) -> Tensor:
    """Edits from each word of `a` to each of `b`, `(a, b)` int16; Wagner and Fischer's table.

    Row i of the table, `(a, b, l + 1)`, holds the edits from the first i letters of a to the
    first j of b. Insertions run along a row: with j taken off they are a running minimum.
    """
    # Half-size numbers: the table is read and written l times, and memory is what it waits for.
    places = torch.arange(b.shape[1] + 1, device=b.device, dtype=torch.int16)
    end_of_b = b.sign().sum(1).expand(len(a), -1)[:, :, None]
    lengths = a.sign().sum(1)
    row = places.expand(len(a), len(b), -1)
    edits = row.gather(2, end_of_b)[:, :, 0].clone()
    for i in range(int(lengths.max()) if len(lengths) else 0):
        replaced = row[:, :, :-1] + (a[:, None, i, None] != b[None])
        best = torch.minimum(row[:, :, 1:] + 1, replaced)
        first = row[:, :, :1] + 1
        row = (torch.cat([first, best], dim=2) - places).cummin(dim=2).values + places
        is_end = (lengths == i + 1)[:, None]
        edits = torch.where(is_end, row.gather(2, end_of_b)[:, :, 0], edits)
    return edits

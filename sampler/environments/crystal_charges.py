"""Sets of total charges that the atoms chosen so far can have, as bits of machine words.

An element's atoms all take one oxidation state (Crystal-GFN, arXiv 2310.04925) or,
with mixed valence, each its own. A set of charges is a row of 32-bit words (held in int64): bit p
of the row, bit p % 32 of word p // 32, stands for charge p + low. Adding n atoms of an element is
the union of the set shifted by each charge that they can have. Charges outside the window are
dropped: no composition that is finished in order of the elements needs them.

Named axes: n rows, e elements, c numbers of atoms of an element 0 … most, m charges that these can
have, l words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

WORD = 32

Sums = tuple[tuple[tuple[int, ...], ...], ...]
"""For each element and each number of atoms from 0: the charges that these can have in all."""


def charge_sums(
    states: Sequence[Sequence[int]] | None, n_elements: int, most: int, mixed: bool
) -> Sums:
    """Charges of 0 … `most` atoms of each element with oxidation `states`; None: always 0."""
    if states is None:
        return (((0,),) * (most + 1),) * n_elements
    return tuple(_sums(tuple(sorted(set(row))), most, mixed) for row in states)


def _sums(states: tuple[int, ...], most: int, mixed: bool) -> tuple[tuple[int, ...], ...]:
    if not mixed:
        return (0,), *(tuple(n * s for s in states) for n in range(1, most + 1))
    sums: list[tuple[int, ...]] = [(0,)]
    for _ in range(most):
        sums.append(tuple(sorted({q + s for q in sums[-1] for s in states})))
    return tuple(sums)


def charge_window(
    sums: Sums, allowed: NDArray[np.bool_], n_elements: tuple[int, int], n_atoms: tuple[int, int]
) -> tuple[int, int]:
    """Lowest and highest charge that some elements can have and the later ones can undo.

    `allowed` `(e, c)`: numbers of atoms that each element may have. (0, 0) where no composition is
    possible.
    """
    high = _highest(sums, allowed, n_elements, n_atoms)
    mirrored = tuple(tuple(tuple(-q for q in row) for row in rows) for rows in sums)
    low = -_highest(mirrored, allowed, n_elements, n_atoms)
    return min(low, 0), max(high, 0)


def _highest(
    sums: Sums, allowed: NDArray[np.bool_], n_elements: tuple[int, int], n_atoms: tuple[int, int]
) -> int:
    """Highest charge of a prefix that a suffix undoes, at equal numbers of elements and atoms."""
    shape = (n_elements[1] + 1, n_atoms[1] + 1)
    prefix = np.full(shape, -np.inf)
    prefix[0, 0] = 0.0
    # The lowest charge that elements i … e - 1 can add, having k elements and a atoms before.
    suffix = np.full(shape, np.inf)
    suffix[n_elements[0] :, n_atoms[0] :] = 0.0
    suffixes = [suffix]
    for rows, may in zip(reversed(sums), allowed[::-1], strict=True):
        after, suffix = suffix, np.where(may[0], suffix, np.inf)
        for n in _choices(rows, may, shape[1]):
            added = after[1:, n:] + min(rows[n])
            suffix[:-1, : shape[1] - n] = np.minimum(suffix[:-1, : shape[1] - n], added)
        suffixes.append(suffix)
    highest = 0.0
    for rows, may, undo in zip(sums, allowed, suffixes[-2::-1], strict=True):
        before, prefix = prefix, np.where(may[0], prefix, -np.inf)
        for n in _choices(rows, may, shape[1]):
            grown = before[:-1, : shape[1] - n] + max(rows[n])
            prefix[1:, n:] = np.maximum(prefix[1:, n:], grown)
        highest = max(highest, float(np.minimum(prefix, -undo).max()))
    return int(highest)


def _choices(rows: tuple[tuple[int, ...], ...], may: NDArray[np.bool_], n_slots: int) -> list[int]:
    """Numbers of atoms from 1 that are allowed, have charges and fit."""
    return [n for n in range(1, min(len(may), n_slots)) if may[n] and rows[n]]


class ChargeSets:
    """Batched sets of charges inside one window."""

    def __init__(self, sums: Sums, window: tuple[int, int], device: torch.device) -> None:
        self.low = window[0]
        # An even number: two words make one int64 in tables.
        self.n_words = 2 * ((window[1] - window[0]) // (2 * WORD) + 1)
        n_bits = WORD * self.n_words
        longest = max(1, *(len(row) for rows in sums for row in rows))
        # A shift by n_bits empties the set, as it must where atoms can have no charge at all.
        shifts = [[_repeated(row or (n_bits,), longest) for row in rows] for rows in sums]
        shift = torch.tensor(shifts, device=device).clamp(-n_bits, n_bits)
        # Word v of the shifted set begins at bit 32 v - shift of the set.
        word = torch.div(-shift, WORD, rounding_mode="floor") + self.n_words
        factor = 1 << WORD - torch.remainder(-shift, WORD)
        self._n_columns = shift.shape[1]
        self._word = word.flatten(0, 1)
        self._factor = factor.flatten(0, 1)[..., None]
        self._index = torch.arange(self.n_words, device=device)
        self._zero_word = -self.low // WORD
        self._zero_bit = -self.low % WORD
        every = torch.arange(len(self._word), device=device)
        self._alone = self._moved(self.zero(len(every)), every)

    def zero(self, n: int) -> Tensor:
        """The set {0}, n times, `(n, l)` int64."""
        return (self._index == self._zero_word).long().mul_(1 << self._zero_bit).repeat(n, 1)

    def has_zero(self, sets: Tensor) -> Tensor:
        """Whether charge 0 is among `sets` `(n, l)`; `(n,)` bool."""
        return (sets[:, self._zero_word] >> self._zero_bit & 1) == 1

    def of(self, elements: Tensor, atoms: Tensor) -> Tensor:
        """The sets of `atoms` `(n,)` of `elements` `(n,)` alone, `(n, l)`; {0} for 0 atoms."""
        return self._alone.index_select(0, elements * self._n_columns + atoms)

    def after(self, sets: Tensor, elements: Tensor, atoms: Tensor) -> Tensor:
        """`sets` `(n, l)` once `atoms` `(n,)` of `elements` `(n,)` are added; the same for 0."""
        return self._moved(sets, elements * self._n_columns + atoms)

    def _moved(self, sets: Tensor, index: Tensor) -> Tensor:
        """Union of `sets` `(n, l)` shifted as the rows `index` `(n,)` of the tables say."""
        padded = pad(sets, (self.n_words, self.n_words + 1))
        # Two words side by side, so that 32 bits from any of the lower one's are at hand ...
        windows = (padded[:, :-1] | padded[:, 1:] << WORD).unfold(1, self.n_words, 1)
        rows = torch.arange(len(sets), device=sets.device)[:, None]
        moved = windows[rows, self._word.index_select(0, index)]
        # ... and a factor moves them to the upper half; what overflows is not wanted.
        moved *= self._factor.index_select(0, index)
        return _union(moved) >> WORD & 0xFFFFFFFF


def packed(sets: Tensor) -> Tensor:
    """The 32-bit words of `sets` `(n, l)`, two in each int64, `(n, l / 2)`."""
    return sets[:, ::2] | sets[:, 1::2] << WORD


def _repeated(row: tuple[int, ...], length: int) -> tuple[int, ...]:
    """`row` with its first entry repeated: to shift by it again adds nothing to a union."""
    return row + row[:1] * (length - len(row))


def _union(sets: Tensor) -> Tensor:
    """Union over the second last axis, `(n, m, l)` to `(n, l)`."""
    while sets.shape[-2] > 1:
        half = sets.shape[-2] // 2
        joined = sets[..., :half, :] | sets[..., half : 2 * half, :]
        if sets.shape[-2] % 2:
            joined[..., 0, :] |= sets[..., -1, :]
        sets = joined
    return sets[..., 0, :]

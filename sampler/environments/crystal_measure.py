"""How many compositions a space group has, counted exactly, and the measure that makes of it.

A sampler that follows a reward alone lives where crystals are most numerous: five elements in a
group of low symmetry. A cubic group has a ten-thousandth as many compositions, and would not turn
up among 10,000 samples however good its crystals are. The measure `per_group` weighs each crystal
with

    m(x) = 1 / N(space group of x, number of elements of x)

so that each pair of a group and a number of elements has about the same weight before a reward
speaks, and within a pair all compositions have the same. N counts a composition once for each way
to give its elements charges that balance: that sum is a recurrence over the elements, as that of
`crystal_completions` with numbers in place of "whether",

    T_e[c, w, a, q] = 1 if c = 0, w and a may end, and q = 0
    T_i[c, w, a, q] = T_{i+1}[c, w, a, q]
                      + sum over n, s of T_{i+1}[c - 1, step[w, n], a + n, q + s]

(n atoms of element i at charge s in all), and N(g, k) = T_0[k, start of g, 0, 0]. Where charges
need not balance, N is the number of compositions itself.

Named axes: g space groups, k numbers of elements, e elements, c elements to come, r rows of (w, a),
w site classes, a total numbers of atoms (one slot where these do not matter), q charges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampler.environments.crystal_charges import Sums, charge_sums, charge_window
from sampler.environments.crystal_formula_rules import FormulaRules, final_atoms
from sampler.environments.crystal_site_classes import SiteClasses

MEASURES = ("uniform", "per_group")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_Rows = tuple[tuple[int, ...], ...]

_MAX_BYTES = 4 << 30


def log_n_compositions(rules: FormulaRules, classes: SiteClasses) -> Tensor:
    """Log of N for each group and number of elements, `(g, k + 1)` float64; -inf where N is 0.

    Counted once in a process for equal arguments.
    """
    allowed = rules.allowed.cpu().numpy()
    n_kinds, n_columns = allowed.shape
    n_elements = (rules.n_elements[0], min(rules.n_elements[1], n_kinds))
    ends, most_atoms = final_atoms(rules, classes.ends)
    sums = charge_sums(rules.charges, n_kinds, n_columns - 1, rules.mixed_valence)
    window = charge_window(sums, allowed, n_elements, (rules.n_atoms[0], most_atoms))
    step, start = classes.step[:, :n_columns].cpu().numpy(), classes.start[:-1].cpu().numpy()
    starts, group = np.unique(start, return_inverse=True)
    n = _counted(
        _rows(allowed),
        n_elements[1],
        sums,
        window,
        _rows(step),
        _rows(ends),
        tuple(starts.tolist()),
    )[:, group].T
    n[:, : n_elements[0]] = 0.0
    if rules.pure_elements and n_elements[0] == 1:
        n[:, 1] = _n_pure(allowed, step, ends)[start]
    return torch.from_numpy(n).log().to(classes.start.device)


@cache
def _counted(
    allowed: _Rows,
    most: int,
    sums: Sums,
    window: tuple[int, int],
    step: _Rows,
    ends: _Rows,
    starts: tuple[int, ...],
) -> Floats:
    """N of `0 … most` elements from each class of sites in `starts` on, `(k + 1, s)`."""
    may = np.array(allowed)
    rows = _SiteRows.of(np.array(step), np.array(ends), np.array(starts), most)
    shape = most + 1, len(rows.after), window[1] - window[0] + 1
    _check_size(shape)
    tables = np.zeros(shape)
    tables[0, :, -window[0]] = rows.is_end
    for i in range(len(may) - 1, -1, -1):
        for to_come in range(most, 0, -1):
            # Elements that are to come have not been placed: only so many rows can be asked for.
            table = tables[to_come, : rows.within[most - to_come]]
            if not may[i, 0]:
                table[:] = 0.0
            for n in np.flatnonzero(may[i, 1:]) + 1:
                after = rows.after[: len(table), n]
                _add_shifted(table, tables[to_come - 1][after], sums[i][n])
        if not may[i, 0]:
            tables[0] = 0.0
    counted: Floats = tables[:, rows.first, -window[0]]
    return counted


def _check_size(shape: tuple[int, ...]) -> None:
    needed = 8 * math.prod(shape)
    if needed > _MAX_BYTES:
        raise ValueError(
            f"measure: per_group counts in {needed >> 20:,} MiB of tables, expected at most "
            f"{_MAX_BYTES >> 20:,} MiB; lower n_elements, n_atoms or n_atoms_per_element, widen "
            "n_atoms to all that these make possible, or take uniform"
        )


@dataclass(frozen=True)
class _SiteRows:
    """The (w, a) that occur, in order of the fewest elements that lead there; row 0 is dead."""

    after: Ints
    """Row once n atoms of one more element are placed, `(r, c + 1)`."""
    is_end: Bools
    """Whether a composition may end here, `(r,)`."""
    first: Ints
    """Row of each of `starts`, `(s,)`."""
    within: Ints
    """How many rows 0, 1 … `depth` elements lead to, `(depth + 1,)`."""

    @classmethod
    def of(cls, step: Ints, ends: Bools, starts: Ints, depth: int) -> _SiteRows:
        """All that up to `depth` elements lead to from no atoms in the classes `starts`."""
        n_sites, n_slots = ends.shape
        slots = np.arange(n_slots)[:, None] + (np.arange(step.shape[1]) if n_slots > 1 else 0)
        after = step[:, None, :] * n_slots + np.minimum(slots, n_slots - 1)  # (w, a, c + 1)
        after = np.where((step[:, None, :] > 0) & (slots < n_slots), after, 0)
        after = after.reshape(n_sites * n_slots, -1)
        found, within = np.unique(np.append(0, starts * n_slots)), []
        for _ in range(depth + 1):
            within.append(len(found))
            found = np.append(found, np.setdiff1d(after[found], found))
        new = np.zeros(len(after), dtype=np.int64)
        new[found] = np.arange(len(found))
        is_end = ends.reshape(-1)[found] & (found >= n_slots)
        return cls(new[after[found]], is_end, new[starts * n_slots], np.array(within))


def _add_shifted(table: Floats, later: Floats, charges: tuple[int, ...]) -> None:
    """Add to `table` `(r, q)` at each q what `later` holds at q + s, for each s of `charges`."""
    n = table.shape[1]
    for s in charges:
        if abs(s) < n:
            table[:, max(0, -s) : n - max(0, s)] += later[:, max(0, s) : n - max(0, -s)]


def _n_pure(allowed: Bools, step: Ints, ends: Bools) -> Floats:
    """Crystals of one element, whatever its charge, from each class of sites on, `(w,)`."""
    n_required = (~allowed[:, 0]).sum()
    is_alone = n_required - ~allowed[:, 0] == 0
    n_kinds = allowed[is_alone, 1:].sum(axis=0)  # (c,)
    n = np.arange(1, step.shape[1])
    slots = n if ends.shape[1] > 1 else np.zeros_like(n)
    fits = ends[step[:, 1:], np.minimum(slots, ends.shape[1] - 1)]
    fits &= (step[:, 1:] > 0) & (slots < ends.shape[1])
    counted: Floats = fits.astype(np.float64) @ n_kinds
    return counted


def _rows(table: NDArray[Any]) -> _Rows:
    return tuple(map(tuple, table.tolist()))

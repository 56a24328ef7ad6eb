"""Rules of compositions, and which numbers of atoms in all they lead to.

Named axes: e elements, c numbers of atoms of an element, 1 … most; a, t numbers of atoms in all;
w classes of site states.

One set of rules has numbers of atoms of each element that are independent of each other. Where a
ratio such as Fe:O = 2:3 is wanted, a crystal has to satisfy one of several: its multiples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class FormulaRules:
    """What makes a composition valid. Counts are of the conventional cell, ranges inclusive."""

    allowed: Tensor
    """Whether an element may have so many atoms, `(e, c + 1)` bool; column 0: may be absent."""
    n_elements: tuple[int, int]
    n_atoms: tuple[int, int]
    charges: tuple[tuple[int, ...], ...] | None
    """Non-zero oxidation states of each element, maybe none; None: need not be neutral."""
    mixed_valence: bool = False
    """Each atom has its own oxidation state (magnetite: Fe3O4), not one for all of an element."""
    pure_elements: bool = False
    """One element alone passes although it is not neutral."""

    def __post_init__(self) -> None:
        allowed = self.allowed
        if allowed.dtype != torch.bool or allowed.dim() != 2 or min(allowed.shape) < 1:
            raise ValueError(
                "allowed: expected bool, one row an element and one column a number of atoms from "
                f"0, got {allowed.dtype} of shape {tuple(allowed.shape)}"
            )
        for name in ("n_elements", "n_atoms"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ValueError(f"{name}: expected 1 <= low <= high, got [{low}, {high}]")
        if self.charges is not None and len(self.charges) != len(allowed):
            raise ValueError(
                f"charges: expected the oxidation states of {len(allowed)} elements, got "
                f"{len(self.charges)}"
            )
        if any(0 in states for states in self.charges or ()):
            raise ValueError(
                "charges: 0 is not an oxidation state here, for with it every metal would pass as "
                "neutral; use pure_elements, or charges=None"
            )


class Compositions(Protocol):
    """Exact masks of compositions; see `sampler.environments.crystal_formula.Formulas`."""

    possible_groups: Tensor

    def next_mask(self, counts: Tensor, groups: Tensor) -> Tensor:
        """Elements that may come next and, last, whether the composition may end, `(n, e + 1)`."""

    def count_mask(self, counts: Tensor, groups: Tensor, pending: Tensor) -> Tensor:
        """Numbers of atoms of the pending element, column 0 for one atom, `(n, c)` bool."""

    def group_mask(self, counts: Tensor) -> Tensor:
        """Groups that a finished composition fits, `(n, g)` bool."""


class Alternatives:
    """Compositions that satisfy any of several sets of rules: whatever one of `choices` allows."""

    def __init__(self, choices: Sequence[Compositions]) -> None:
        self._choices = list(choices)
        self.possible_groups = _any([choice.possible_groups for choice in choices])

    def next_mask(self, counts: Tensor, groups: Tensor) -> Tensor:
        """See `Compositions`."""
        return _any([choice.next_mask(counts, groups) for choice in self._choices])

    def count_mask(self, counts: Tensor, groups: Tensor, pending: Tensor) -> Tensor:
        """See `Compositions`."""
        return _any([choice.count_mask(counts, groups, pending) for choice in self._choices])

    def group_mask(self, counts: Tensor) -> Tensor:
        """See `Compositions`."""
        return _any([choice.group_mask(counts) for choice in self._choices])


def final_atoms(rules: FormulaRules, has_cell: Tensor) -> tuple[Bools, int]:
    """Whether a composition may end with so many atoms, and the most atoms that occur.

    `has_cell` `(w, t)`: `SiteClasses.ends`. The answer is `(w, a)`, a = 0 … the most, or `(w, 1)`
    where no number of atoms that occurs is forbidden.
    """
    totals = _totals(rules)
    most = min(rules.n_atoms[1], len(totals) - 1)
    in_range = np.zeros(len(totals), dtype=bool)
    in_range[rules.n_atoms[0] : most + 1] = True
    cells = has_cell.cpu().numpy()
    if cells.shape[1] == 1:
        cells = np.repeat(cells, len(totals), axis=1)
    ends = np.zeros((len(cells), len(totals)), dtype=bool)
    n_common = min(len(totals), cells.shape[1])
    ends[:, :n_common] = cells[:, :n_common] & in_range[:n_common]
    if ends[1:, totals].all():
        return (np.arange(len(ends)) > 0)[:, None], most
    return ends[:, : most + 1], most


def _totals(rules: FormulaRules) -> Bools:
    """Numbers of atoms in all that elements in allowed numbers make, `(a,)`, the last possible."""
    allowed = rules.allowed.cpu().numpy()
    low, high = rules.n_elements[0], min(rules.n_elements[1], len(allowed))
    most = high * (allowed.shape[1] - 1)
    reached = np.zeros((high + 1, most + 1), dtype=bool)
    reached[0, 0] = True
    for may in allowed:
        before, reached = reached, reached & may[0]
        for n in np.flatnonzero(may[1:]) + 1:
            reached[1:, n:] |= before[:-1, : most + 1 - n]
    totals: Bools = np.any(reached[low:], axis=0, keepdims=True)[0]
    return totals[: np.flatnonzero(totals).max(initial=0) + 1]


def _any(masks: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(masks)).any(dim=0)

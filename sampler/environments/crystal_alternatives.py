"""Compositions that satisfy any of several sets of rules.

One set of rules has numbers of atoms of each element that are independent of each other. Where a
ratio such as Fe:O = 2:3 is wanted, a crystal has to satisfy one of several: its multiples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sampler.environments.crystal_formula import Formulas


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
    """Whatever one of `choices` allows."""

    def __init__(self, choices: Sequence[Formulas]) -> None:
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


def _any(masks: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(masks)).any(dim=0)

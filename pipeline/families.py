"""Families: which candidates are variants of one thing, of which a batch takes one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

PER_FAMILY = 3
"""How many variants of one family compete: novelty may favour another than the first."""


def best_of_each(families: Sequence[str], merit: Tensor, allowed: Tensor) -> Tensor:
    """Rows by falling `merit (q,)`, `PER_FAMILY` of a family at most, `(r,)`.

    Left out are rows that are not `allowed (q,)` and those of merit -inf.
    """
    rows = torch.nonzero(allowed & (merit > -torch.inf)).flatten()
    order = rows[torch.argsort(merit[rows], descending=True, stable=True)]
    seen: Counter[str] = Counter()
    kept = []
    for row in order.tolist():
        family = families[row]
        seen[family] += 1
        if seen[family] <= PER_FAMILY:
            kept.append(row)
    return torch.tensor(kept, dtype=torch.long)


def numbered(families: Sequence[str]) -> Tensor:
    """A number for each family, equal ones for equal ones, `(k,)`."""
    numbers = {family: i for i, family in enumerate(dict.fromkeys(families))}
    return torch.tensor([numbers[family] for family in families], dtype=torch.long)

"""Bounds of one lattice parameter, and amounts of 0 … 1 stretched over them.

Values are whole multiples of a step, 1 / `per_unit`. Each stands for the interval of reals that
round to it, so that bounds low … high span low − ½ step … high + ½ step: never of no width, and a
uniform amount draws each multiple with a probability that is the width of its interval. Named
axes: n rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SLACK = 1e-6
"""Of one step: what arithmetic may add to a value that lies on a limit."""


class Bounds(NamedTuple):
    """Values that a parameter may take, `(n,)` float64 each: low … high without an open gap.

    A gap arises only where a largest volume per atom asks for flat cells: an angle is then far
    from square on either side. `gap_low` = `gap_high` = `high`: none.
    """

    low: Tensor
    high: Tensor
    gap_low: Tensor
    gap_high: Tensor

    def contain(self, values: Tensor) -> Tensor:
        """Whether `values` `(n,)` are among them, `(n,)` bool."""
        is_between = (self.low <= values) & (values <= self.high)
        return is_between & ((values <= self.gap_low) | (values >= self.gap_high))


class Stretch:
    """The map between amounts and the values in `bounds`: linear, or logarithmic for lengths."""

    def __init__(self, bounds: Bounds, is_length: Tensor, per_unit: Tensor) -> None:
        self.bounds, self.is_length, self.per_unit = bounds, is_length, per_unit
        half = 0.5 / per_unit
        self.start = self._drawn(bounds.low - half)
        self.gap = (bounds.gap_high - bounds.gap_low - 2 * half).clamp_min(0)
        self.width = self._drawn(bounds.high + half) - self.start - self.gap
        """Width in degrees or log Å of what the amounts span, `(n,)`."""
        self.edge = (bounds.gap_low + half).masked_fill(self.gap == 0, torch.inf)

    def value(self, amounts: Tensor) -> Tensor:
        """Values at `amounts` `(n,)`, rounded to multiples, within the bounds."""
        bounds = self.bounds
        at = self.start + amounts * self.width
        at = torch.where(at > self.edge, at + self.gap, at)
        at = torch.where(self.is_length, at.exp(), at)
        value = (at * self.per_unit).round() / self.per_unit
        value = value.clamp(bounds.low, bounds.high)
        return torch.where(bounds.contain(value), value, bounds.gap_high)

    def amount(self, values: Tensor) -> Tensor:
        """Amounts of `values` `(n,)`; 0 < u < 1 where these lie in the bounds."""
        at = self._drawn(values)
        return (at - self.gap * (at > self.edge) - self.start) / self.width

    def amounts_inside(self, inner: Bounds) -> tuple[Tensor, Tensor]:
        """Smallest and largest amount whose value lies in the narrower bounds `inner`.

        Where `inner` has a gap that these bounds lack, the wider side of it is taken: amounts
        have a single range.
        """
        low = inner.low.clamp(self.bounds.low, self.bounds.high)
        high = inner.high.clamp(self.bounds.low, self.bounds.high)
        half = (0.5 - SLACK) / self.per_unit  # a tie would be rounded either way
        gap = inner.gap_high - inner.gap_low
        is_cut = gap > self.gap + 3 * half
        is_lower_wider = inner.gap_low - low >= high - inner.gap_high
        low = torch.where(is_cut & ~is_lower_wider, inner.gap_high, low)
        high = torch.where(is_cut & is_lower_wider, inner.gap_low, high)
        return self.amount(low - half).clamp(0, 1), self.amount(high + half).clamp(0, 1)

    def _drawn(self, values: Tensor) -> Tensor:
        return torch.where(self.is_length, values.log(), values)


def rounded_inward(
    low: Tensor,
    high: Tensor,
    gap: tuple[Tensor, Tensor] | None,
    per_unit: Tensor,
    own: tuple[Tensor, Tensor],
) -> Bounds:
    """The multiples from `low` to `high` outside `gap`, all `(n,)`, as bounds within `own`.

    Where there is none, the multiple nearest to the middle (of the part below the gap).
    """
    first, last = (low * per_unit - SLACK).ceil(), (high * per_unit + SLACK).floor()
    gap_first = gap_last = None
    if gap is not None:
        first, last, gap_first, gap_last = _around_gap(first, last, gap, per_unit)
    middle = (low + (high if gap is None else gap[0])) / 2
    nearest = (middle * per_unit).nan_to_num().round()
    is_empty = first > last
    first, last = torch.where(is_empty, nearest, first), torch.where(is_empty, nearest, last)
    low, high = (first / per_unit).clamp(*own), (last / per_unit).clamp(*own)
    if gap_first is None or gap_last is None:
        return Bounds(low, high, high, high)
    has_gap = (gap_last - gap_first > 1) & ~is_empty
    return Bounds(
        low,
        high,
        torch.where(has_gap, gap_first / per_unit, high),
        torch.where(has_gap, gap_last / per_unit, high),
    )


def _around_gap(
    first: Tensor, last: Tensor, gap: tuple[Tensor, Tensor], per_unit: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Multiples first … last and, inside, those at the ends of the gap (equal: none is left)."""
    is_open = gap[0] < gap[1]
    gap_first = (gap[0] * per_unit + SLACK).floor()
    gap_last = (gap[1] * per_unit - SLACK).ceil()
    has_lower, has_upper = first <= gap_first, gap_last <= last
    new_first = torch.where(is_open & ~has_lower, torch.maximum(first, gap_last), first)
    new_last = torch.where(is_open & ~has_upper, torch.minimum(last, gap_first), last)
    is_inside = is_open & has_lower & has_upper
    return (
        new_first,
        new_last,
        torch.where(is_inside, gap_first, new_last),
        torch.where(is_inside, gap_last, new_last),
    )

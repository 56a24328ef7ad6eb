"""Wyckoff positions of several space groups as tensors, for batched masks.

Positions without a free coordinate come first, then the others, each in the order of their letters.
Sites of one element are chosen in this order, and so that it never shuts out what the rest of the
element needs, `rest_start` knows which positions are still to come.

Named axes: g space groups, l positions, f fixed multiplicities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

import torch
from torch import Tensor

from sampler.environments.crystal_asymmetric import ranges
from sampler.environments.crystal_site_automaton import SiteAutomaton, site_automaton
from sampler.environments.crystal_symmetry import SpaceGroup
from sampler.environments.crystal_wyckoff_positions import (
    RESOLUTION,
    WyckoffPosition,
    wyckoff_positions,
)


@dataclass(frozen=True)
class SiteTables:
    """What masks need to know of each position that at most max_count atoms fill."""

    numbers: tuple[int, ...]
    """Number of each space group."""
    letters: tuple[tuple[str, ...], ...]
    """Letters of each space group, in the order of the tables' axis l."""
    multiplicity: Tensor
    """Atoms of a site, 0 where a group has fewer positions, `(g, l)` int64."""
    is_fixed: Tensor
    """Positions that hold one orbit only, `(g, l)` bool."""
    column: Tensor
    """1 at the fixed multiplicity of a position that `all_elements` keeps count of, `(g, l, f)`."""
    axes: Tensor
    """Free coordinates of a position, 0 … 2 for x, y, z, in order; -1 after them, `(g, l, 3)`."""
    n_axes: Tensor
    """How many these are, `(g, l)` int64."""
    low: Tensor
    """Smallest x, y and z that a site may have (`crystal_asymmetric`), `(g, l, 3)` float64."""
    end: Tensor
    """Ends of their ranges, not in them, `(g, l, 3)`; multiples of 1 / RESOLUTION as `low`."""
    all_elements: SiteAutomaton
    """Any sites for all elements."""
    one_element: SiteAutomaton
    """The rest of one element, on a position and those after it; starts are `rest_start`."""
    rest_start: Tensor
    """State of `one_element` before that rest, `(g, l)` int64."""

    @property
    def n_letters(self) -> int:
        """Length of axis l."""
        return self.multiplicity.shape[1]


def site_tables(groups: Sequence[SpaceGroup], max_count: int, n_elements: int) -> SiteTables:
    """Tables for up to `n_elements` elements of at most `max_count` atoms each."""
    automaton = site_automaton(groups, max_count, n_elements)
    positions = [_ordered(group, max_count) for group in groups]
    n_letters = max(1, *(len(row) for row in positions))
    shape = (len(groups), n_letters)
    multiplicity, n_axes, rest_start = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    axes = torch.full((*shape, 3), -1)
    low, end = (torch.zeros((*shape, 3), dtype=torch.float64) for _ in range(2))
    kinds: dict[SpaceGroup, int] = {}
    for g, (group, row) in enumerate(zip(groups, positions, strict=True)):
        for i, position in enumerate(row):
            multiplicity[g, i] = position.multiplicity
            n_axes[g, i] = len(position.axes)
            axes[g, i, : len(position.axes)] = torch.tensor(position.axes, dtype=torch.int64)
            low[g, i], end[g, i] = _bounds(group.number, position)
            rest_start[g, i] = kinds.setdefault(_rest(group, row[i:]), len(kinds))
    one_element = site_automaton(list(kinds) or list(groups), max_count, 1)
    is_fixed = (n_axes == 0) & (multiplicity > 0)
    is_counted = multiplicity.unsqueeze(-1) == automaton.multiplicity.unsqueeze(1)
    return SiteTables(
        numbers=tuple(group.number for group in groups),
        letters=tuple(tuple(position.letter for position in row) for row in positions),
        multiplicity=multiplicity,
        is_fixed=is_fixed,
        column=(is_counted & is_fixed.unsqueeze(-1)).long(),
        axes=axes,
        n_axes=n_axes,
        low=low,
        end=end,
        all_elements=automaton,
        one_element=one_element,
        rest_start=one_element.start[rest_start],
    )


def _ordered(group: SpaceGroup, max_count: int) -> list[WyckoffPosition]:
    """Positions that one element can fill: first those without a free coordinate."""
    fitting = [p for p in wyckoff_positions(group.number) if p.multiplicity <= max_count]
    return sorted(fitting, key=lambda position: len(position.axes) > 0)


def _bounds(number: int, position: WyckoffPosition) -> tuple[Tensor, Tensor]:
    """First coordinates on the grid inside their ranges, and the ends after the last ones."""
    found = ranges(number, position)
    low = [ceil(part.low * RESOLUTION) for part in found]
    end = [
        floor(part.high * RESOLUTION) + 1 if part.is_closed else ceil(part.high * RESOLUTION)
        for part in found
    ]
    return (torch.tensor(low).double() / RESOLUTION, torch.tensor(end).double() / RESOLUTION)


def _rest(group: SpaceGroup, later: Sequence[WyckoffPosition]) -> SpaceGroup:
    """`group` as if it had no other positions than the first of `later` and those after it.

    Which fixed ones of these are vacant changes as sites are taken, so all of them are kept; once
    a position is free, all after it are.
    """
    return replace(
        group,
        number=0,
        free=tuple(sorted({position.multiplicity for position in later if position.axes})),
        fixed=() if later[0].axes else group.fixed,
    )

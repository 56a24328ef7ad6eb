"""State columns of atoms on Wyckoff sites: their layout, what they say, and sites to and from them.

Named axes: n rows, w columns, e elements, s sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sampler.environments.crystal_asymmetric import into_ranges
from sampler.environments.crystal_site_tables import SiteTables
from sampler.environments.crystal_wyckoff_positions import RESOLUTION, wyckoff_positions

N_SITES, N_DRAWN, HEAD = 0, 1, 2
"""Columns: how many sites are taken, how many coordinates of the last one are drawn; then sites."""

SITE = 4
"""Columns of a site: 1 + its position, then x, y, z (0 while not drawn, and where not free)."""

PlacedSite = tuple[int, str, tuple[float, float, float]]
"""Index of the element, letter of the Wyckoff position, free coordinates (0 where not free)."""


class Progress(NamedTuple):
    """What rows have reached."""

    letters: Tensor
    """Positions of the sites taken, -1 after them, `(n, s)`: s is what the longest row needs."""
    sizes: Tensor
    """Their multiplicities, 0 after them, `(n, s)`."""
    n_sites: Tensor
    """Sites taken, `(n,)`."""
    last: Tensor
    """Position of the last site, 0 where there is none, `(n,)`."""
    last_size: Tensor
    """Its multiplicity, 0 where there is none, `(n,)`."""
    n_drawn: Tensor
    """Coordinates of it that are drawn, `(n,)`."""
    is_drawing: Tensor
    """Whether there are more to draw, `(n,)` bool."""
    element: Tensor
    """Index of the element whose atoms come next; e once all atoms have a site, `(n,)`."""
    placed: Tensor
    """Atoms of that element with a site, `(n,)`."""
    left: Tensor
    """Atoms of that element without a site, `(n,)`."""


def progress(columns: Tensor, groups: Tensor, counts: Tensor, tables: SiteTables) -> Progress:
    """Read `columns` `(n, w)` of crystals with `counts` `(n, e)` in `groups` `(n,)`."""
    n_sites, n_drawn = columns[:, N_SITES].long(), columns[:, N_DRAWN].long()
    # Most crystals have far fewer sites than there are columns for.
    longest = max(1, int(n_sites.max())) if len(columns) else 1
    letters = columns[:, HEAD : HEAD + SITE * longest : SITE].long() - 1
    sizes = tables.multiplicity[groups].gather(1, letters.clamp_min(0)) * (letters >= 0)
    slot = (n_sites - 1).clamp_min(0).unsqueeze(1)
    last = letters.gather(1, slot).squeeze(1).clamp_min(0)
    n_axes = torch.where(n_sites > 0, tables.n_axes[groups, last], 0)
    total, ends = sizes.sum(1), counts.cumsum(1)
    element = element_at(ends, total)
    end = ends.gather(1, element.clamp_max(ends.shape[1] - 1).unsqueeze(1)).squeeze(1)
    return Progress(
        letters=letters,
        sizes=sizes,
        n_sites=n_sites,
        last=last,
        last_size=sizes.gather(1, slot).squeeze(1),
        n_drawn=n_drawn,
        is_drawing=n_drawn < n_axes,
        element=element,
        placed=total - start_of(ends, element),
        left=end - total,
    )


def element_at(ends: Tensor, atoms: Tensor) -> Tensor:
    """Index of the element after the first `atoms` atoms; elements end at `ends` `(n, e)`."""
    return (ends <= atoms.unsqueeze(1)).sum(1)


def start_of(ends: Tensor, element: Tensor) -> Tensor:
    """Atoms before `element` `(n,)`."""
    before = ends.gather(1, (element - 1).clamp_min(0).unsqueeze(1)).squeeze(1)
    return torch.where(element > 0, before, 0)


def letter_at(columns: Tensor, slots: Tensor) -> Tensor:
    """Position of site `slots` `(n,)`, 0 where there is none."""
    column = HEAD + SITE * slots.clamp_min(0)
    return (columns.gather(1, column.unsqueeze(1)).squeeze(1).long() - 1).clamp_min(0)


def coordinates_at(columns: Tensor, slots: Tensor) -> Tensor:
    """Coordinates x, y, z of site `slots` `(n,)`, those of the first where negative, `(n, 3)`."""
    first = HEAD + SITE * slots.clamp_min(0).unsqueeze(1) + 1
    return columns.gather(1, first + torch.arange(3, device=columns.device))


def read_sites(
    columns: Tensor, groups: Tensor, counts: Tensor, tables: SiteTables
) -> list[list[PlacedSite]]:
    """Sites of each row, in the order in which they were taken."""
    now = progress(columns, groups, counts, tables)
    elements = torch.stack(
        [element_at(counts.cumsum(1), before) for before in (now.sizes.cumsum(1) - now.sizes).T], 1
    )
    found = []
    for row, group, of_row, n in zip(
        columns.tolist(), groups.tolist(), elements.tolist(), now.n_sites.tolist(), strict=True
    ):
        slots = [row[i : i + SITE] for i in range(HEAD, HEAD + SITE * n, SITE)]
        found.append(
            [
                (element, tables.letters[group][int(slot[0]) - 1], _point(slot[1:]))
                for element, slot in zip(of_row, slots, strict=False)
            ]
        )
    return found


def write_sites(
    sites: Sequence[Sequence[PlacedSite]],
    groups: Tensor,
    counts: Tensor,
    tables: SiteTables,
    width: int,
) -> Tensor:
    """Finished columns `(n, width)` of given sites, in any order.

    Coordinates are replaced by equivalent ones inside their ranges and rounded. ValueError says
    what is wrong with a row.
    """
    rows = [
        _row(row, group, atoms, tables, width)
        for row, group, atoms in zip(sites, groups.tolist(), counts.tolist(), strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64, device=groups.device).reshape(-1, width)


def _row(
    sites: Sequence[PlacedSite], group: int, counts: list[int], tables: SiteTables, width: int
) -> list[float]:
    letters = tables.letters[group]
    entries = []
    for element, letter, point in sites:
        if letter not in letters:
            raise ValueError(
                f"site {letter!r}: expected one of the positions {', '.join(letters)} of its space "
                f"group that hold few enough atoms"
            )
        position = letters.index(letter)
        entries.append((element, position, _ticks(point, group, position, tables)))
    entries.sort()
    _check(entries, group, counts, tables)
    flat = [x for _, p, ticks in entries for x in (p + 1.0, *(t / RESOLUTION for t in ticks))]
    n_drawn = int(tables.n_axes[group, entries[-1][1]]) if entries else 0
    head = [float(len(entries)), float(n_drawn)]
    return head + flat + [0.0] * (width - HEAD - len(flat))


def _ticks(
    point: tuple[float, float, float], group: int, position: int, tables: SiteTables
) -> list[int]:
    """Coordinates on the grid, inside the ranges of their position, in units of the grid."""
    letter, number = tables.letters[group][position], tables.numbers[group]
    site = next(found for found in wyckoff_positions(number) if found.letter == letter)
    low, end = tables.low[group, position].tolist(), tables.end[group, position].tolist()
    ticks = [0, 0, 0]
    inside = into_ranges(number, site, point)
    for axis in site.axes:
        first, last = round(low[axis] * RESOLUTION), round(end[axis] * RESOLUTION) - 1
        ticks[axis] = min(max(round(inside[axis] * RESOLUTION), first), last)
    return ticks


def _check(
    entries: Sequence[tuple[int, int, list[int]]],
    group: int,
    counts: list[int],
    tables: SiteTables,
) -> None:
    held = [0] * len(counts)
    for element, position, _ in entries:
        held[element] += int(tables.multiplicity[group, position])
    if held != counts:
        raise ValueError(
            f"sites: expected to hold {counts} atoms of the elements, they hold {held}"
        )
    fixed = [position for _, position, _ in entries if tables.is_fixed[group, position]]
    for position in fixed:
        if fixed.count(position) > 1:
            letter = tables.letters[group][position]
            raise ValueError(f"site {letter!r} has no free coordinate: it cannot be taken twice")


def _point(coordinates: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (round(value * RESOLUTION) / RESOLUTION for value in coordinates)
    return x, y, z

"""Atoms on Wyckoff sites: the part of a crystal's state that follows its composition.

Elements are placed in the order of their index, each on sites in the order of `SiteTables`, and
the free coordinates of a site are drawn before the next site is chosen. A site without a free
coordinate is taken once in all. Masks are exact: a site is offered if and only if the rest of its
element and all later elements still fit, so no trajectory ends in a dead end. Equal sites of one
element come in ascending order of their coordinates, hence exactly one trajectory leads to each
set of sites. Ranges of coordinates leave out most of those that describe the same orbit
(`crystal_asymmetric`); which of several equivalent origins a crystal has is left open.

Named axes: n rows, w columns, a actions, e elements, l positions, s sites, f fixed multiplicities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sampler.environments.crystal_site_columns import (
    HEAD,
    N_DRAWN,
    N_SITES,
    SITE,
    PlacedSite,
    Progress,
    coordinates_at,
    element_at,
    letter_at,
    progress,
    read_sites,
    write_sites,
)
from sampler.environments.crystal_site_tables import site_tables
from sampler.environments.crystal_symmetry import SpaceGroup
from sampler.environments.crystal_wyckoff_positions import RESOLUTION

_FREQUENCIES = (1.0, 1.6180339887, 2.7182818285)
"""Make phases of different sites differ in `WyckoffSites.inputs`."""


class WyckoffSites:
    """A batched machine that fills the Wyckoff sites of `groups` with given numbers of atoms.

    Its columns `(n, w)` float64 are zeros at the start. Every method takes besides them `groups`
    `(n,)` int64, indices of space groups, and `counts` `(n, e)` int64, atoms of each element in
    the conventional cell: at most `n_elements` of them not 0, none above `max_count`, `max_atoms`
    in all, compatible with the group (`crystal_symmetry.is_compatible`). Actions 0 … n_letters - 1
    choose a position, the three after them draw x, y or z. With groups and counts given, the
    states are a tree.
    """

    def __init__(
        self, groups: Sequence[SpaceGroup], max_count: int, n_elements: int, max_atoms: int
    ) -> None:
        if max_atoms < 1:
            raise ValueError(f"max_atoms: expected at least 1, got {max_atoms}")
        self.tables = site_tables(groups, max_count, n_elements)
        self.n_elements, self.max_count, self.max_atoms = n_elements, max_count, max_atoms
        self.n_letters = self.tables.n_letters
        self.n_actions = self.n_letters + 3
        self.n_sites = max(1, *(_most_sites(group, max_atoms) for group in groups))
        self.width = HEAD + SITE * self.n_sites
        self.max_steps = 4 * self.n_sites
        self.n_inputs = 5 + 3 + 2 * self.n_letters + 2 * 5 + 6 * len(_FREQUENCIES)
        self._order = torch.arange(self.n_letters)

    def forward_mask(self, columns: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
        """Allowed actions, `(n, a)` bool; all False exactly in finished rows."""
        now = progress(columns, groups, counts, self.tables)
        mask = torch.zeros(len(columns), self.n_actions, dtype=torch.bool, device=columns.device)
        choosing = (~now.is_drawing & (now.left > 0)).nonzero().squeeze(1)
        part = Progress(*(value[choosing] for value in now))
        mask[choosing, : self.n_letters] = self._fitting(part, groups[choosing], counts[choosing])
        drawing = now.is_drawing.nonzero().squeeze(1)
        axis = self.tables.axes[groups, now.last, now.n_drawn.clamp_max(2)][drawing]
        mask[drawing, self.n_letters + axis] = True
        return mask

    def is_finished(self, columns: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
        """Rows whose atoms all have a site and coordinates, `(n,)` bool."""
        now = progress(columns, groups, counts, self.tables)
        return ~now.is_drawing & (now.left == 0)

    def step(
        self, columns: Tensor, actions: Tensor, values: Tensor, groups: Tensor, counts: Tensor
    ) -> Tensor:
        """Columns after allowed `actions` `(n,)`; new memory.

        `values` `(n,)` are the coordinates drawn, rounded here and kept inside their `bounds`;
        ignored where a position is chosen.
        """
        low, end = self.bounds(columns, actions, groups, counts)
        last = torch.round(end * RESOLUTION) - 1
        ticks = torch.round(values.double() * RESOLUTION).minimum(last)
        value = (ticks / RESOLUTION).maximum(low)
        n_sites = columns[:, N_SITES].long()
        is_choice = actions < self.n_letters
        axis = (actions - self.n_letters).clamp_min(0)
        slot = torch.where(is_choice, n_sites, n_sites - 1)
        column = HEAD + SITE * slot + torch.where(is_choice, 0, 1 + axis)
        entry = torch.where(is_choice, (actions + 1).double(), value)
        after = columns.scatter(1, column.unsqueeze(1), entry.unsqueeze(1))
        after[:, N_SITES] += is_choice.double()
        after[:, N_DRAWN] = torch.where(is_choice, 0, columns[:, N_DRAWN] + 1)
        return after

    def step_back(self, columns: Tensor, actions: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
        """Columns before `actions` `(n,)`, the ones that led here; new memory."""
        slot = columns[:, N_SITES].long() - 1
        is_choice = actions < self.n_letters
        axis = (actions - self.n_letters).clamp_min(0)
        column = HEAD + SITE * slot + torch.where(is_choice, 0, 1 + axis)
        before = columns.scatter(1, column.unsqueeze(1), 0.0)
        earlier = columns.gather(1, (HEAD + SITE * (slot - 1)).clamp_min(HEAD).unsqueeze(1))
        n_axes = self.tables.n_axes[groups, (earlier.squeeze(1).long() - 1).clamp_min(0)]
        before[:, N_SITES] -= is_choice.double()
        before[:, N_DRAWN] = torch.where(
            is_choice, torch.where(slot > 0, n_axes, 0), columns[:, N_DRAWN] - 1
        )
        return before

    def backward_mask(self, columns: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
        """Mark the one action that led here, `(n, a)` bool; none at the start."""
        n_sites, n_drawn = columns[:, N_SITES].long(), columns[:, N_DRAWN].long()
        last = letter_at(columns, n_sites - 1)
        axis = self.tables.axes[groups, last, (n_drawn - 1).clamp_min(0)]
        action = torch.where(n_drawn > 0, self.n_letters + axis, last)
        mask = torch.zeros(len(columns), self.n_actions, dtype=torch.bool, device=columns.device)
        return mask.scatter(1, action.unsqueeze(1), (n_sites > 0).unsqueeze(1))

    def bounds(
        self, columns: Tensor, actions: Tensor, groups: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Smallest value of the coordinate that `actions` draw, and the end of its range, `(n,)`.

        Float64; the end is not in the range. The range is that of `SiteTables`, and where the site
        before is equal and all earlier coordinates are too, it starts at its coordinate. From 0 to
        1 for actions that draw none.
        """
        now = progress(columns, groups, counts, self.tables)
        ends = counts.cumsum(1)
        before_last = now.sizes.sum(1) - now.last_size
        same_element = element_at(ends, before_last) == element_at(
            ends, before_last - now.last_size
        )
        same_letter = letter_at(columns, now.n_sites - 2) == now.last
        last = coordinates_at(columns, now.n_sites - 1)
        earlier = coordinates_at(columns, now.n_sites - 2)
        axis = (actions - self.n_letters).clamp_min(0)
        is_before = torch.arange(3, device=columns.device) < axis.unsqueeze(1)
        same_so_far = ((last == earlier) | ~is_before).all(dim=1)
        is_bound = same_element & same_letter & same_so_far & (now.n_sites > 1)
        is_drawn = actions >= self.n_letters
        low, end = self.tables.low[groups, now.last, axis], self.tables.end[groups, now.last, axis]
        value = earlier.gather(1, axis.unsqueeze(1)).squeeze(1)
        low = torch.where(is_bound, value, low)
        return torch.where(is_drawn, low, 0.0), torch.where(is_drawn, end, 1.0)

    def inputs(self, columns: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
        """What a policy sees, `(n, n_inputs)` float32, roughly in [-1, 1].

        How far the filling has come; how often each position is taken, in all and by the current
        element; the last two sites; and averages over all sites of waves in their coordinates,
        with phases that depend on the order and the positions, so that different states differ.
        """
        now = progress(columns, groups, counts, self.tables)
        n_elements = counts.shape[1]
        shares = torch.stack(
            [
                now.sizes.sum(1) / self.max_atoms,
                now.n_sites / self.n_sites,
                now.left / self.max_count,
                now.placed / self.max_count,
                now.element / n_elements,
            ],
            dim=1,
        )
        before = now.sizes.cumsum(1) - now.sizes
        is_current = before >= (now.sizes.sum(1) - now.placed).unsqueeze(1)
        drawing = torch.zeros_like(shares[:, :3]).scatter(
            1,
            self.tables.axes[groups, now.last, now.n_drawn.clamp_max(2)].clamp_min(0)[:, None],
            now.is_drawing[:, None].to(shares.dtype),
        )
        times = [_times(now.letters, self.n_letters)]
        times.append(_times(torch.where(is_current, now.letters, -1), self.n_letters))
        parts = [
            shares,
            drawing,
            *(n / (1 + n) for n in times),
            *(self._site(columns, now, is_current, age) for age in (1, 2)),
            _waves(columns, now),
        ]
        return torch.cat([part.double() for part in parts], dim=1).float()

    def sites(self, columns: Tensor, groups: Tensor, counts: Tensor) -> list[list[PlacedSite]]:
        """Sites of each row in the order in which they were taken."""
        return read_sites(columns, groups, counts, self.tables)

    def columns_of(
        self, sites: Sequence[Sequence[PlacedSite]], groups: Tensor, counts: Tensor
    ) -> Tensor:
        """Finished columns `(n, w)` of given sites, in any order; the inverse of `sites`.

        Coordinates are replaced by equivalent ones inside their ranges and rounded. ValueError
        where a position is unknown or too large, atoms are missing or too many, or a fixed site is
        taken twice.
        """
        return write_sites(sites, groups, counts, self.tables, self.width)

    def _fitting(self, now: Progress, groups: Tensor, counts: Tensor) -> Tensor:
        """Positions that may come next in rows that choose one, `(n, l)` bool."""
        tables = self.tables
        size, is_fixed = tables.multiplicity[groups], tables.is_fixed[groups]
        is_vacant = ~(is_fixed & (_times(now.letters, self.n_letters) > 0))
        is_lower = (self._order < now.last.unsqueeze(1)) & (now.placed > 0).unsqueeze(1)
        allowed = (size > 0) & (size <= now.left.unsqueeze(1)) & is_vacant & ~is_lower
        vacant = tables.column[groups] * (is_fixed & is_vacant).unsqueeze(-1)
        # The rest of this element may take the vacant fixed sites after position l, and all of its
        # sites and those of the later elements together the vacant ones without l.
        after = vacant.flip(1).cumsum(1).flip(1) - vacant
        without = vacant.sum(1, keepdim=True) - vacant
        rest = tables.one_element.after(
            tables.rest_start[groups], (now.left.unsqueeze(1) - size).clamp_min(0)
        )
        own = tables.one_element.uses[rest]
        others = tables.all_elements.uses[self._later(now, groups, counts)]
        both = own.unsqueeze(3) + others[:, None, None]
        fits = (both <= without[:, :, None, None]).all(-1) & (
            (own <= after.unsqueeze(2)).all(-1).unsqueeze(3)
        )
        return allowed & fits.flatten(2).any(-1)

    def _later(self, now: Progress, groups: Tensor, counts: Tensor) -> Tensor:
        """State of `all_elements` with the atoms of all elements after the current one, `(n,)`."""
        index = torch.arange(counts.shape[1], device=counts.device)
        later = torch.where(index > now.element.unsqueeze(1), counts, 0)
        states = self.tables.all_elements.start[groups]
        # Their order does not matter, so the few that are present come first.
        for column in later.topk(min(self.n_elements, later.shape[1]), dim=1).values.T:
            states = self.tables.all_elements.after(states, column)
        return states

    def _site(self, columns: Tensor, now: Progress, is_current: Tensor, age: int) -> Tensor:
        """Of the last (age 1) or an earlier site: position, whose, coordinates; `(n, 5)`."""
        slot = (now.n_sites - age).clamp_min(0)
        is_there = (now.n_sites >= age).unsqueeze(1)
        position = (1 + letter_at(columns, slot)).unsqueeze(1) / self.n_letters
        is_same = is_current.gather(1, slot.unsqueeze(1))
        return torch.cat([position, is_same, coordinates_at(columns, slot)], dim=1) * is_there


def _times(letters: Tensor, n_letters: int) -> Tensor:
    """How often each position is taken, `(n, l)` int64; `letters` `(n, s)` are -1 where none is."""
    times = letters.new_zeros(len(letters), n_letters + 1)
    return times.scatter_add(1, letters + 1, torch.ones_like(letters))[:, 1:]


def _waves(columns: Tensor, now: Progress) -> Tensor:
    """Means over sites of cosines and sines of their coordinates, `(n, 6 * frequencies)`."""
    end = HEAD + SITE * now.letters.shape[1]
    points = columns[:, HEAD:end].reshape(*now.letters.shape, SITE)[..., 1:]
    slots = torch.arange(points.shape[1], device=columns.device)
    # A phase of its own for each place in the order and each position.
    turn = slots + 0.7320508076 * now.letters
    weight = (now.letters >= 0) / now.n_sites.clamp_min(1).unsqueeze(1)
    waves = []
    for frequency in _FREQUENCIES:
        angle = 2 * torch.pi * points + (frequency * turn).unsqueeze(-1)
        waves += [(angle.cos() * weight.unsqueeze(-1)).sum(1)]
        waves += [(angle.sin() * weight.unsqueeze(-1)).sum(1)]
    return torch.cat(waves, dim=1)


def _most_sites(group: SpaceGroup, max_atoms: int) -> int:
    """An upper bound on how many sites `max_atoms` atoms take: the smallest ones first."""
    smallest = min(group.free, default=max_atoms + 1)
    n_sites, left = 0, max_atoms
    for multiplicity, n in sorted(group.fixed):
        if multiplicity < smallest:
            taken = min(n, left // multiplicity)
            n_sites, left = n_sites + taken, left - taken * multiplicity
    return n_sites + left // smallest

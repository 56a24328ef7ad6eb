"""The positions of a crystal's atoms: Wyckoff sites and their free coordinates."""

from __future__ import annotations

import torch
from torch import Tensor

from sampler.environments.crystal_part import Columns, Part
from sampler.environments.crystal_site_columns import N_SITES, coordinates_at
from sampler.environments.crystal_sites import WyckoffSites

_STEP = 1e-4
"""Coordinates are multiples of it; each stands for the interval that rounds to it."""
_TINY = 1e-9


class PositionsPart(Part):
    """A site for every orbit, then the coordinates that it leaves free; see `WyckoffSites`.

    Actions: Wyckoff letters, then the coordinates x, y, z, with one head each.
    """

    n_heads = 3

    def __init__(self, columns: Columns, sites: WyckoffSites) -> None:
        self._columns = columns
        self._sites = sites
        self.n_actions = sites.n_actions
        self.max_steps = sites.max_steps
        self.n_inputs = sites.n_inputs

    def forward_mask(self, states: Tensor) -> Tensor:
        """Sites that leave room for all other atoms, or the coordinate that comes next."""
        return self._sites.forward_mask(*self._read(states))

    def backward_mask(self, states: Tensor) -> Tensor:
        """The one action that led here."""
        return self._sites.backward_mask(*self._read(states))

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor) -> Tensor:
        """Take a site, or set a coordinate where `amounts` say in its range."""
        own, groups, counts = self._read(states)
        low, high = self._sites.bounds(own, actions, groups, counts)
        # Half a step is added and lost again in rounding: amounts and multiples of a step agree.
        value = low - _STEP / 2 + amounts * (high - low)
        own = self._sites.step(own, actions, value, groups, counts)
        states[:, self._columns.positions] = own
        return self._sites.is_finished(own, groups, counts)

    def step_back(self, states: Tensor, actions: Tensor) -> None:
        """Take back the last site or coordinate."""
        own, groups, counts = self._read(states)
        states[:, self._columns.positions] = self._sites.step_back(own, actions, groups, counts)

    def has_begun(self, states: Tensor) -> Tensor:
        """Whether a site is taken."""
        return (states[:, self._columns.positions] != 0).any(dim=1)

    def inputs(self, states: Tensor) -> Tensor:
        """See `WyckoffSites.inputs`; zeros while other parts are under way."""
        inputs = torch.zeros(len(states), self.n_inputs, device=states.device)
        is_ready = states[:, self._columns.lattice].any(dim=1) & (
            states[:, self._columns.pending] < 0
        )
        rows = is_ready.nonzero()[:, 0]
        if len(rows) > 0:
            inputs[rows] = self._sites.inputs(*self._read(states[rows]))
        return inputs

    def amounts_between(self, parents: Tensor, actions: Tensor, children: Tensor) -> Tensor:
        """Where in its range the coordinate was set."""
        own, groups, counts = self._read(parents)
        low, high = self._sites.bounds(own, actions, groups, counts)
        after = children[:, self._columns.positions]
        point = coordinates_at(after, after[:, N_SITES].long() - 1)
        axis = (actions - self._sites.n_letters).clamp_min(0)
        value = point.gather(1, axis[:, None])[:, 0]
        return ((value - low + _STEP / 2) / (high - low)).clamp(_TINY, 1 - _TINY)

    def log_width(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log of the share of the unit interval that is open."""
        low, high = self._sites.bounds(*self._split_read(states, actions))
        return (high - low).log()

    def _split_read(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own, groups, counts = self._read(states)
        return own, actions, groups, counts

    def _read(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Own columns, 0-based group and atoms of each element."""
        return (
            states[:, self._columns.positions],
            states[:, self._columns.group].long() - 1,
            states[:, self._columns.counts].long(),
        )

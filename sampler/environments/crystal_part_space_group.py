"""The space group of a crystal, reached through its crystal-lattice system and point symmetry."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from sampler.environments.crystal_classes import (
    CRYSTAL_LATTICE_SYSTEMS,
    POINT_SYMMETRIES,
    crystal_lattice_system,
    point_symmetry,
)
from sampler.environments.crystal_features import group_features
from sampler.environments.crystal_formula_rules import Compositions
from sampler.environments.crystal_part import Columns, Part
from sampler.environments.crystal_rules import Wish
from sampler.environments.crystal_symmetry import SpaceGroup

_N_SYSTEMS, _N_POINTS = len(CRYSTAL_LATTICE_SYSTEMS), len(POINT_SYMMETRIES)


class SpaceGroupPart(Part):
    """System and point symmetry in any order, then one of the groups that have both.

    Actions: systems, point symmetries, groups. `possible` `(g,)` bool: the groups to choose from.
    With `formulas` the composition came first, and only groups that it fits are left.
    """

    max_steps = 3

    def __init__(
        self,
        columns: Columns,
        groups: Sequence[SpaceGroup],
        possible: Tensor,
        formulas: Compositions | None,
    ) -> None:
        self._columns = columns
        self._possible = possible
        self._formulas = formulas
        systems = [CRYSTAL_LATTICE_SYSTEMS.index(crystal_lattice_system(g.number)) for g in groups]
        points = [POINT_SYMMETRIES.index(point_symmetry(g.number)) for g in groups]
        self._classes = torch.cat(
            [torch.eye(_N_SYSTEMS)[systems], torch.eye(_N_POINTS)[points]], dim=1
        )  # (g, 13)
        # Row 0, nothing chosen, goes with every group.
        everything = torch.ones(1, len(groups), dtype=torch.bool)
        members = self._classes.T.bool()
        self._in_system = torch.cat([everything, members[:_N_SYSTEMS]])
        self._in_point = torch.cat([everything, members[_N_SYSTEMS:]])
        self._first_group = _N_SYSTEMS + _N_POINTS
        self.n_actions = self._first_group + len(groups)
        described = torch.stack([group_features(group) for group in groups]).float()
        chosen = torch.cat([torch.eye(len(groups)), described], dim=1)
        self._group_inputs = torch.cat([torch.zeros(1, chosen.shape[1]), chosen])
        self._system_inputs = torch.eye(_N_SYSTEMS + 1)[:, 1:]
        self._point_inputs = torch.eye(_N_POINTS + 1)[:, 1:]
        self.n_inputs = self._first_group + chosen.shape[1]
        self._masks = self._all_masks()

    def forward_mask(self, states: Tensor) -> Tensor:
        """Classes that some possible group has, given the other class; then groups."""
        system, point, _ = self._chosen(states)
        if self._formulas is None:
            return self._masks.index_select(0, system * (_N_POINTS + 1) + point)
        fitting = self._formulas.group_mask(states[:, self._columns.counts].long())
        return self._mask(self._possible & fitting, system, point)

    def _all_masks(self) -> Tensor:
        """Masks for every system and point symmetry, 0 for none, where compositions do not matter.

        Row `system * (n_points + 1) + point`.
        """
        pairs = torch.cartesian_prod(torch.arange(_N_SYSTEMS + 1), torch.arange(_N_POINTS + 1))
        system, point = pairs.to(self._possible.device).unbind(dim=1)
        return self._mask(self._possible, system, point)

    def _mask(self, possible: Tensor, system: Tensor, point: Tensor) -> Tensor:
        """Actions where groups `possible`, `(g,)` or `(n, g)`, go with the classes chosen."""
        groups = possible & self._in_system[system] & self._in_point[point]
        has_system, has_point = (system > 0)[:, None], (point > 0)[:, None]
        classes = (groups.float() @ self._classes) > 0
        return torch.cat(
            [
                classes[:, :_N_SYSTEMS] & ~has_system,
                classes[:, _N_SYSTEMS:] & ~has_point,
                groups & has_system & has_point,
            ],
            dim=1,
        )

    def backward_mask(self, states: Tensor) -> Tensor:
        """The group if it is chosen, else either class that is."""
        system, point, group = self._chosen(states)
        mask = torch.zeros(len(states), self.n_actions + 1, dtype=torch.bool, device=states.device)
        none = torch.full_like(group, self.n_actions)  # a column to throw away
        has_group = group > 0
        last = torch.where(has_group, self._first_group + group - 1, none)
        by_system = torch.where((system > 0) & ~has_group, system - 1, none)
        by_point = torch.where((point > 0) & ~has_group, _N_SYSTEMS + point - 1, none)
        mask.scatter_(1, torch.stack([last, by_system, by_point], dim=1), True)
        return mask[:, :-1]

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor) -> Tensor:
        """Choose a class or the group."""
        column, first = self._column(actions)
        states.scatter_(1, column[:, None], (actions - first + 1).double()[:, None])
        return actions >= self._first_group

    def step_back(self, states: Tensor, actions: Tensor) -> None:
        """Take the choice back."""
        states.scatter_(1, self._column(actions)[0][:, None], 0.0)

    def has_begun(self, states: Tensor) -> Tensor:
        """Whether system or point symmetry is chosen."""
        return (states[:, self._columns.system] + states[:, self._columns.point]) > 0

    def inputs(self, states: Tensor) -> Tensor:
        """System, point symmetry and group one-hot, and what `group_features` says of the group."""
        system, point, group = self._chosen(states)
        return torch.cat(
            [self._system_inputs[system], self._point_inputs[point], self._group_inputs[group]],
            dim=1,
        )

    def narrowed(self, formulas: Compositions, wish: Wish) -> Self:
        """Fewer groups to choose from."""
        part = copy.copy(self)
        part._possible = formulas.possible_groups
        part._formulas = None if self._formulas is None else formulas
        part._masks = part._all_masks()
        return part

    def complete(self, groups: Tensor) -> Tensor:
        """Columns system, point and group, `(n, 3)`, of crystals with 0-based `groups` `(n,)`."""
        classes = self._classes[groups]
        system = classes[:, :_N_SYSTEMS].argmax(dim=1) + 1
        point = classes[:, _N_SYSTEMS:].argmax(dim=1) + 1
        return torch.stack([system, point, groups + 1], dim=1).double()

    def _chosen(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        columns = states[:, self._columns.system : self._columns.group + 1].long()
        return columns[:, 0], columns[:, 1], columns[:, 2]

    def _column(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """State column that each action sets, and the first action of that column."""
        is_point = (actions >= _N_SYSTEMS).long()
        is_group = (actions >= self._first_group).long()
        return (
            self._columns.system + is_point + is_group,
            is_point * _N_SYSTEMS + is_group * _N_POINTS,
        )

"""The lattice of a crystal: the parameters that its lattice system leaves free, as real numbers."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from sampler.environments.crystal_bounds import Bounds
from sampler.environments.crystal_cell import Cell
from sampler.environments.crystal_formula_rules import Compositions
from sampler.environments.crystal_part import Columns, Part
from sampler.environments.crystal_rules import Wish

N_PARAMETERS = 6


class LatticePart(Part):
    """Angles, then lengths, those that are free; one action and one head a parameter.

    `systems` `(g,)` int64: lattice system of each space group, an index of
    `sampler.environments.crystal_symmetry.SYSTEMS`. See `Cell` for ranges and ties.
    """

    n_actions = N_PARAMETERS
    n_heads = N_PARAMETERS

    def __init__(self, columns: Columns, cell: Cell, systems: Tensor) -> None:
        self._columns = columns
        self._cell = cell
        self._systems = systems
        # Only a restriction narrows: amounts go on meaning what they mean in the whole space.
        self._narrow: Cell | None = None
        self.max_steps = int(cell.n_free[systems].max())
        self.n_inputs = cell.n_inputs
        nothing = torch.zeros(len(systems), N_PARAMETERS, dtype=torch.float64)
        no_group = torch.zeros(1, cell.n_inputs)
        self._first_inputs = torch.cat(
            [no_group, cell.inputs(nothing, systems)]
        )  # by 1-based group
        self._last = N_PARAMETERS - 1 - cell.free.flip(1).long().argmax(dim=1)

    def forward_mask(self, states: Tensor) -> Tensor:
        """The one parameter that comes next."""
        values, systems = self._read(states)
        return _one(self._cell.next_parameter(values, systems))

    def backward_mask(self, states: Tensor) -> Tensor:
        """The one that was set last."""
        values, systems = self._read(states)
        last = self._cell.last_parameter(values, systems)
        return _one(torch.where(last < 0, N_PARAMETERS, last))

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor) -> Tensor:
        """Set the parameter where `amounts` say in its range."""
        values, systems = self._read(states)
        n_atoms = self._n_atoms(states)
        bounds = self._cell.bounds(values, systems, actions, n_atoms)
        value = self._cell.value(amounts, bounds, actions)
        states.scatter_(1, self._columns.lattice.start + actions[:, None], value[:, None])
        return actions == self._last[systems]

    def step_back(self, states: Tensor, actions: Tensor) -> None:
        """Unset the parameter."""
        states.scatter_(1, self._columns.lattice.start + actions[:, None], 0.0)

    def has_begun(self, states: Tensor) -> Tensor:
        """Whether a parameter is set."""
        return (states[:, self._columns.lattice] > 0).any(dim=1)

    def inputs(self, states: Tensor) -> Tensor:
        """See `Cell.inputs`; zeros while there is no space group."""
        inputs = self._first_inputs[states[:, self._columns.group].long()]
        rows = self.has_begun(states).nonzero()[:, 0]
        if len(rows) > 0:
            inputs[rows] = self._cell.inputs(*self._read(states[rows]))
        return inputs

    def amount_range(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """All of (0, 1), or what a restriction leaves of it."""
        if self._narrow is None:
            return super().amount_range(states, actions)
        inner = self._bounds(self._narrow, states, actions)
        return self._cell.amounts_inside(inner, self._bounds(self._cell, states, actions), actions)

    def amounts_between(self, parents: Tensor, actions: Tensor, children: Tensor) -> Tensor:
        """Where in its range the parameter was set."""
        value = children.gather(1, self._columns.lattice.start + actions[:, None])[:, 0]
        return self._cell.amount(value, self._bounds(self._cell, parents, actions), actions)

    def log_width(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log of the share of the parameter's whole range that is open here.

        So densities refer to the uniform measure of the free parameters, whatever their number:
        as to Å and degrees, six of them would outweigh one by orders of magnitude.
        """
        return self._cell.log_width(self._bounds(self._cell, states, actions), actions)

    def narrowed(self, formulas: Compositions, wish: Wish) -> Self:
        """Smaller ranges; amounts keep their meaning."""
        part = copy.copy(self)
        part._narrow = None if wish.cell is self._cell else wish.cell
        return part

    def _bounds(self, cell: Cell, states: Tensor, actions: Tensor) -> Bounds:
        return cell.bounds(*self._read(states), actions, self._n_atoms(states))

    def _n_atoms(self, states: Tensor) -> Tensor | None:
        """Atoms in all `(n,)`, where the cell depends on them."""
        if self._cell.volume_per_atom is None:
            return None
        return states[:, self._columns.counts].sum(dim=1).long()

    def _read(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Free parameters `(n, 6)`, 0 where not set, and lattice systems `(n,)`."""
        group = states[:, self._columns.group].long() - 1
        return states[:, self._columns.lattice], self._systems[group.clamp_min(0)]


def _one(action: Tensor) -> Tensor:
    """A mask `(n, 6)` of one action a row, none where it is 6."""
    return action[:, None] == torch.arange(N_PARAMETERS, device=action.device)

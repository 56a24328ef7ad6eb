"""The composition of a crystal: elements, each with its number of atoms."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from sampler.environments.crystal_formula_rules import Compositions
from sampler.environments.crystal_part import Columns, Part
from sampler.environments.crystal_rules import Wish


class CompositionPart(Part):
    """Elements in order of electronegativity, each with its number of atoms 1 … `most`.

    Actions: elements, "done", numbers of atoms. Only the order of electronegativity is allowed, so
    a composition has one trajectory.
    """

    def __init__(
        self, columns: Columns, formulas: Compositions, most: int, max_elements: int, max_atoms: int
    ) -> None:
        self._columns = columns
        self._formulas = formulas
        self._n_elements, self._most = columns.n_elements, most
        self._max_elements, self._max_atoms = max_elements, max_atoms
        self._done = self._n_elements
        self._first_count = self._done + 1
        self.n_actions = self._first_count + most
        self.max_steps = 2 * max_elements + 1
        self.n_inputs = 3 * self._n_elements + 2
        self._pending_inputs = torch.eye(self._n_elements + 1)[:, 1:]

    def forward_mask(self, states: Tensor) -> Tensor:
        """What some valid composition needs next."""
        counts, pending, group = self._read(states)
        mask = torch.zeros(len(states), self.n_actions, dtype=torch.bool, device=states.device)
        for is_pending, rows in _by_kind(pending >= 0):
            if is_pending:
                mask[rows, self._first_count :] = self._formulas.count_mask(
                    counts[rows], group[rows], pending[rows]
                )
            else:
                mask[rows, : self._first_count] = self._formulas.next_mask(
                    counts[rows], group[rows]
                )
        return mask

    def backward_mask(self, states: Tensor) -> Tensor:
        """The one action that led here."""
        counts, pending, _ = self._read(states)
        mask = torch.zeros(len(states), self.n_actions + 1, dtype=torch.bool, device=states.device)
        last = self._last_element(counts)
        atoms = counts.gather(1, last.clamp_min(0)[:, None])[:, 0]
        action = torch.where(last >= 0, self._first_count + atoms - 1, self.n_actions)
        action = torch.where(pending >= 0, pending, action)
        is_done = states[:, self._columns.pending] < 0
        action = torch.where(is_done, self._done, action)
        return mask.scatter_(1, action[:, None], True)[:, :-1]

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor) -> Tensor:
        """Choose an element, a number of atoms, or the end. The pending column is then -1."""
        pending = states[:, self._columns.pending].long() - 1
        is_count, is_done = actions >= self._first_count, actions == self._done
        # Where no number is chosen, what is written is overwritten below.
        column = torch.where(is_count, self._columns.counts.start + pending, self._columns.pending)
        states.scatter_(1, column[:, None], (actions - self._done).double()[:, None])
        chosen = torch.where(is_count, 0, actions + 1)
        states[:, self._columns.pending] = torch.where(is_done, -1, chosen).double()
        return is_done

    def step_back(self, states: Tensor, actions: Tensor) -> None:
        """Take the last choice back."""
        rows = (actions >= self._first_count).nonzero()[:, 0]
        states[:, self._columns.pending] = 0.0
        last = self._last_element(states[rows, self._columns.counts])
        states[rows, self._columns.counts.start + last] = 0.0
        states[rows, self._columns.pending] = (last + 1).double()

    def has_begun(self, states: Tensor) -> Tensor:
        """Whether an element is chosen; the first one is pending until it has its atoms."""
        pending = states[:, self._columns.pending] != 0
        return pending | (states[:, self._columns.counts] > 0).any(dim=1)

    def inputs(self, states: Tensor) -> Tensor:
        """Atoms of each element, those present, the pending one, how many atoms and elements."""
        counts = states[:, self._columns.counts].float()
        present = (counts > 0).float()
        totals = [counts.sum(dim=1) / self._max_atoms, present.sum(dim=1) / self._max_elements]
        pending = states[:, self._columns.pending].long().clamp_min(0)
        return torch.cat(
            [
                counts / self._most,
                present,
                self._pending_inputs[pending],
                torch.stack(totals, dim=1),
            ],
            dim=1,
        )

    def narrowed(self, formulas: Compositions, wish: Wish) -> Self:
        """Fewer compositions."""
        part = copy.copy(self)
        part._formulas = formulas
        return part

    def _read(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Counts `(n, e)`, pending element and group `(n,)`, both 0-based, -1 for none."""
        whole = states[:, : self._columns.counts.stop].long()
        return (
            whole[:, self._columns.counts],
            whole[:, self._columns.pending].clamp_min(0) - 1,
            whole[:, self._columns.group] - 1,
        )

    def _last_element(self, counts: Tensor) -> Tensor:
        """Index of the last element that is present, -1 for none, `(n,)`."""
        index = torch.arange(1, self._n_elements + 1, device=counts.device)
        return ((counts > 0) * index).amax(dim=1) - 1


def _by_kind(is_pending: Tensor) -> Iterator[tuple[bool, Tensor | slice]]:
    """The rows where it is so, and those where it is not; as a rule all rows are alike."""
    n = int(is_pending.sum())
    if n in (0, len(is_pending)):
        yield n > 0, slice(None)
    else:
        yield True, is_pending.nonzero()[:, 0]
        yield False, (~is_pending).nonzero()[:, 0]

"""Compositions of crystals: rules, and exact masks of what may come next.

An element is allowed if some completion satisfies all rules at once: numbers of elements and of
atoms, the Wyckoff sites of the space group, and charge neutrality. Crystal-GFN (arXiv 2310.04925)
checks these one by one as far as they can be checked early; here no composition is a
dead end, and none that is valid is out of reach.

Named axes: n rows, g space groups, e elements in the order in which they are chosen, c numbers of
atoms of an element, 1 … most.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sampler.environments.crystal_charges import ChargeSets, charge_sums, charge_window, packed
from sampler.environments.crystal_completions import Problem, fill_completions
from sampler.environments.crystal_formula_rules import FormulaRules, final_atoms
from sampler.environments.crystal_site_classes import SiteClasses, any_sites

__all__ = ["FormulaRules", "Formulas"]

_SHIFT = 16
"""Bits that hold a number of atoms."""


class _Progress(NamedTuple):
    """What compositions have come to, one row each."""

    n_chosen: Tensor  # (n,), at most the most elements
    site: Tensor  # (n,): class of sites, 0 where nothing can follow
    slot: Tensor  # (n,): atoms in all, 0 where these do not matter
    last: Tensor  # (n,): last element chosen, -1 for none
    first_bad: Tensor  # (n,): first element that as it stands breaks `allowed`, e for none
    charges: Tensor  # (n, l): set of charges
    elements: Tensor  # (n, k): elements chosen, in order; their atoms, 0 for none
    atoms: Tensor


class Formulas:
    """Masks of compositions that follow `rules`, in space groups whose sites `classes` describes.

    A state is `counts` `(n, e)` int64, atoms of the elements chosen so far in index order, and
    `groups` `(n,)` int64, the space group or -1: not chosen yet (only if `classes` are joined).
    All masks are bool and look-ups; the tables are filled here, on the device of `classes`.
    ValueError where rules and classes do not belong together.
    """

    def __init__(self, rules: FormulaRules, classes: SiteClasses) -> None:
        allowed = rules.allowed.cpu().numpy()
        n_kinds, n_columns = allowed.shape
        _check_size(rules, classes)
        self.rules = rules
        self.classes = classes
        self._most = min(rules.n_elements[1], n_kinds)
        step = classes.step[:, :n_columns]
        ends, most_atoms = final_atoms(rules, classes.ends)
        n_elements = (rules.n_elements[0], self._most)
        sums = charge_sums(rules.charges, n_kinds, n_columns - 1, rules.mixed_valence)
        window = charge_window(sums, allowed, n_elements, (rules.n_atoms[0], most_atoms))
        device = classes.start.device
        self._charges = ChargeSets(sums, window, device)
        tables = fill_completions(
            Problem(
                allowed=allowed,
                n_elements=n_elements,
                sums=sums,
                low=self._charges.low,
                n_words=self._charges.n_words,
                step=step.cpu().numpy(),
                ends=ends,
                starts=classes.start.cpu().numpy(),
            )
        )
        self._n_kinds, self._n_columns = n_kinds, n_columns
        self._n_sites, self._n_slots = ends.shape
        self._start, self._step = classes.start, step
        self._flat_step = step.flatten()
        self._row = torch.as_tensor(tables.row.reshape(-1), device=device)
        self._chosen = torch.as_tensor(tables.chosen.view(np.int64), device=device)
        counted = torch.as_tensor(tables.counted.view(np.int64), device=device)
        self._counted = counted.flatten(0, 1)
        self._ends = torch.as_tensor(ends, device=device)
        self._allowed = rules.allowed.to(device)
        # One more column for more atoms than there are columns.
        self._may = torch.nn.functional.pad(self._allowed, (0, 1)).flatten()
        self._index = torch.arange(n_kinds, device=device)
        self._columns = torch.arange(1, n_columns, device=device)
        self._first_starts, self._start_of_group = torch.unique(
            self._start[:-1], return_inverse=True
        )
        self._pure = self._pure_counts()
        self._add_pure_elements()
        groups = torch.arange(classes.n_groups, device=device)
        nothing = torch.zeros(len(groups), n_kinds, dtype=torch.int64, device=device)
        self.possible_groups = self.element_mask(nothing, groups).any(dim=1)
        """Groups that some composition fits, `(g,)` bool."""

    def element_mask(self, counts: Tensor, groups: Tensor) -> Tensor:
        """Elements that may come next, `(n, e)`: behind the last one, and completable."""
        return self._next_elements(self._progress(counts, groups))

    def done_mask(self, counts: Tensor, groups: Tensor) -> Tensor:
        """Whether the composition may end here, `(n,)`."""
        return self._may_end(self._progress(counts, groups))

    def next_mask(self, counts: Tensor, groups: Tensor) -> Tensor:
        """`element_mask` and, as the last column, `done_mask` in one go, `(n, e + 1)`."""
        at = self._progress(counts, groups)
        return torch.cat([self._next_elements(at), self._may_end(at)[:, None]], dim=1)

    def count_mask(self, counts: Tensor, groups: Tensor, pending: Tensor) -> Tensor:
        """Numbers of atoms 1 … most that element `pending` `(n,)` may have, `(n, c)`.

        None where `pending` is -1.
        """
        at = self._progress(counts, groups)
        element = pending.clamp_min(0)
        tables = self._counted.index_select(0, self._rows(at) * self._n_kinds + element)
        completable = _meets(at.charges, tables)
        is_next = (pending > at.last) & (pending <= at.first_bad)
        return completable & is_next[:, None]

    def group_mask(self, counts: Tensor) -> Tensor:
        """Groups that a finished composition fits, `(n, g)`; none where it breaks another rule."""
        at = self._progress(counts, torch.zeros_like(counts[:, 0]))
        slot = self._slot(counts)
        fits = slot < self._n_slots
        site = self._site(self._first_starts.expand(len(counts), -1), at.atoms)
        ends = self._ends[site, slot.clamp_max(self._n_slots - 1)[:, None]]
        mask: Tensor = (ends & (self._is_balanced(at) & fits)[:, None])[:, self._start_of_group]
        return mask

    def why_none(self) -> str:
        """One line on which rules conflict, for when there are no `possible_groups`."""
        rules, n_groups = self.rules, self.classes.n_groups
        free = any_sites(n_groups, self._n_columns - 1, self._most)
        sites = Formulas(replace(rules, charges=None), self.classes)
        ranges = f"n_elements {list(rules.n_elements)} and n_atoms {list(rules.n_atoms)}"
        if not bool(Formulas(replace(rules, charges=None), free).possible_groups.any()):
            return (
                f"no numbers of atoms that the elements may have agree with {ranges}; widen these, "
                "or what is allowed for each element"
            )
        if not bool(Formulas(rules, free).possible_groups.any()):
            return (
                f"no composition with {ranges} is charge-neutral; add elements of the opposite "
                "charge, or allow mixed_valence, pure_elements or charge_neutral: false"
            )
        if not bool(sites.possible_groups.any()):
            return (
                f"no composition with {ranges} fits the Wyckoff sites (and cells) of any space "
                "group; add space groups or widen the numbers of atoms"
            )
        return (
            f"with {ranges}, no charge-neutral composition fits the Wyckoff sites (and cells) of "
            "any space group, though some are neutral and others fit; add space groups or elements"
        )

    def _progress(self, counts: Tensor, groups: Tensor) -> _Progress:
        if not self.classes.is_joined and bool((groups < 0).any()):
            raise ValueError(
                "groups: -1, no space group yet, needs joined classes; use classes.joined()"
            )
        is_chosen = counts > 0
        n_chosen = is_chosen.sum(dim=1)
        last = (is_chosen * (self._index + 1)).amax(dim=1) - 1
        may = self._may[self._index * (self._n_columns + 1) + counts.clamp_max(self._n_columns)]
        first_bad = torch.where(may, self._n_kinds, self._index).amin(dim=1)
        first_bad = torch.where(n_chosen > self._most, -1, first_bad)
        # The charges stay inside their window only if elements are added in index order.
        key = (self._n_kinds - self._index << _SHIFT) + counts.clamp_max(self._n_columns - 1)
        key = (key * is_chosen).topk(self._most, dim=1).values
        # On the empty key the element is any, and the atoms are 0: nothing is added.
        elements = (self._n_kinds - (key >> _SHIFT)).clamp_max(self._n_kinds - 1)
        atoms = key & (1 << _SHIFT) - 1
        n_used = max(1, int((atoms > 0).any(dim=0).sum()))  # by the longest composition
        elements, atoms = elements[:, :n_used], atoms[:, :n_used]
        slot = self._slot(counts)
        site = self._site(self._start[groups], atoms)
        return _Progress(
            n_chosen=n_chosen.clamp_max(self._most),
            site=torch.where(slot < self._n_slots, site, 0),
            slot=slot.clamp_max(self._n_slots - 1),
            last=last,
            first_bad=first_bad,
            charges=self._charge_sets(elements, atoms),
            elements=elements,
            atoms=atoms,
        )

    def _slot(self, counts: Tensor) -> Tensor:
        """Atoms in all, or 0 where any number will do, `(n,)`; may lie beyond the last slot."""
        return counts.sum(dim=1) if self._n_slots > 1 else torch.zeros_like(counts[:, 0])

    def _site(self, site: Tensor, atoms: Tensor) -> Tensor:
        """Classes after `atoms` `(n, k)` of the chosen elements, from `site` `(n,)` or `(n, s)`."""
        if site.dim() == 2:
            atoms = atoms[:, None, :]
        for t in range(atoms.shape[-1]):
            site = self._flat_step[site * self._n_columns + atoms[..., t]]
        return site

    def _charge_sets(self, elements: Tensor, atoms: Tensor) -> Tensor:
        if self.rules.charges is None:
            return self._charges.zero(len(atoms))
        sets = self._charges.of(elements[:, 0], atoms[:, 0])
        for t in range(1, atoms.shape[1]):
            sets = self._charges.after(sets, elements[:, t], atoms[:, t])
        return sets

    def _rows(self, at: _Progress) -> Tensor:
        """Rows of the tables; row 0, which is empty, where no element can be added, `(n,)`."""
        n_chosen = at.n_chosen.clamp_max(self._most - 1)
        row = self._row[(n_chosen * self._n_sites + at.site) * self._n_slots + at.slot]
        return torch.where(at.n_chosen < self._most, row, 0)

    def _next_elements(self, at: _Progress) -> Tensor:
        is_next = (self._index > at.last[:, None]) & (self._index <= at.first_bad[:, None])
        tables = self._chosen.index_select(0, self._rows(at))
        return _meets(at.charges, tables) & is_next

    def _may_end(self, at: _Progress) -> Tensor:
        return self._is_balanced(at) & self._ends[at.site, at.slot]

    def _is_balanced(self, at: _Progress) -> Tensor:
        """Whether numbers of elements, their atoms and charges may be final, `(n,)`."""
        balanced = self._charges.has_zero(at.charges)
        if self.rules.pure_elements:
            balanced = balanced | (at.n_chosen == 1)
        is_enough = at.n_chosen >= self.rules.n_elements[0]
        is_allowed: Tensor = at.first_bad == self._n_kinds
        return balanced & is_enough & is_allowed

    def _pure_counts(self) -> Tensor:
        """Whether n atoms of one element, in a class of sites, are a whole crystal; `(w, e, c)`."""
        slot = self._columns if self._n_slots > 1 else torch.zeros_like(self._columns)
        fits = self._ends[self._step[:, 1:], slot.clamp_max(self._n_slots - 1)]
        fits = fits & (slot < self._n_slots)
        n_required = (~self._allowed[:, 0]).sum()
        others_may_lack = n_required - (~self._allowed[:, 0]).long() == 0
        alone = self._allowed[:, 1:] & others_may_lack[:, None]
        is_whole = self.rules.pure_elements and self.rules.n_elements[0] == 1
        whole: Tensor = fits[:, None, :] & alone & is_whole
        return whole

    def _add_pure_elements(self) -> None:
        """Let one element be the whole crystal, though with it nothing neutral follows."""
        sites = torch.unique(self._start)
        rows = self._row[sites * self._n_slots]
        zero = packed(self._charges.zero(1))[0]
        pure = self._pure[sites].long()
        counted = self._counted.view(-1, self._n_kinds, *self._counted.shape[1:])
        counted[rows] |= pure[..., None] * zero
        self._chosen[rows] |= pure.amax(dim=2)[..., None] * zero


def _meets(sets: Tensor, tables: Tensor) -> Tensor:
    """Whether `sets` `(n, l)` and each of packed `tables` `(n, …)` have a charge in common."""
    return (packed(sets)[:, None, :] & tables).any(dim=2)


def _check_size(rules: FormulaRules, classes: SiteClasses) -> None:
    most = min(rules.n_elements[1], len(rules.allowed))
    if most > classes.n_elements:
        raise ValueError(
            f"n_elements: expected at most {classes.n_elements}, for which the classes of sites "
            f"were made, got {most}"
        )
    n_columns = classes.step.shape[1]
    if rules.allowed.shape[1] > n_columns:
        raise ValueError(
            f"allowed: expected at most {n_columns} columns, for which the classes of sites were "
            f"made, got {rules.allowed.shape[1]}"
        )

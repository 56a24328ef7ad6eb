"""States of Wyckoff sites that differ in what can still follow: fewer rows for larger tables.

`SiteAutomaton` tells apart which sites are taken. A composition only cares which numbers of atoms
still fit, so states with the same future are one class (Moore's partition refinement, to the depth
of the elements that may follow). Where the space group is chosen last, what matters is that some
group stays possible: the union of the groups' futures, the subset construction with dominated
groups dropped.

Named axes: g space groups, s states, w classes, c numbers of atoms of an element 0 … most,
t total numbers of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampler.environments.crystal_site_automaton import SiteAutomaton

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_MAX_UNIONS = 100_000


@dataclass(frozen=True)
class SiteClasses:
    """Classes of site states; class 0 is dead. Shared by all rules for the same space groups."""

    start: Tensor
    """Class of each group with no atom placed, `(g + 1,)` int64; the last is "any group", dead
    unless `joined`. Index -1, no group chosen yet, is that one."""
    step: Tensor
    """Class once n atoms of one more element are placed, `(w, c)` int64; itself for n = 0."""
    ends: Tensor
    """Total numbers of atoms that have a cell, `(w, t)` bool; one column where all have."""
    n_elements: int
    """The classes are exact for at most as many elements."""
    is_joined: bool = False
    """Whether "any group" is known."""

    @property
    def n_groups(self) -> int:
        """Number of space groups, g."""
        return len(self.start) - 1

    def only(self, groups: Tensor) -> SiteClasses:
        """The same with the groups `(g,)` bool alone; the others are dead."""
        start = self.start.clone()
        start[:-1] *= groups.to(start.device)
        start[-1] = 0
        kept = replace(self, start=start, is_joined=False)._minimised()
        return kept.joined() if self.is_joined else kept

    def joined(self) -> SiteClasses:
        """The same with the class of "any group", for compositions chosen before the group."""
        step, ends = self.step.cpu().numpy(), self.ends.cpu().numpy()
        start = self.start.cpu().numpy().copy()
        union, steps, union_ends = _unions(start[:-1], step, ends, self.n_elements)
        start[-1] = union
        whole = SiteClasses(
            start=self.start.new_tensor(start),
            step=self.step.new_tensor(np.concatenate([step, steps])),
            ends=self.ends.new_tensor(np.concatenate([ends, union_ends])),
            n_elements=self.n_elements,
            is_joined=True,
        )
        return whole._minimised()

    def _minimised(self) -> SiteClasses:
        step, ends = self.step.cpu().numpy(), self.ends.cpu().numpy()
        start, step, ends = _minimal(self.start.cpu().numpy(), step, ends, self.n_elements)
        return replace(
            self,
            start=self.start.new_tensor(start),
            step=self.step.new_tensor(step),
            ends=self.ends.new_tensor(ends),
        )


def site_classes(
    automaton: SiteAutomaton, n_elements: int, cells: Tensor | None = None
) -> SiteClasses:
    """Classes for compositions of at most `n_elements` elements.

    `cells` `(g, t)` bool: whether a group has a cell for t = 0, 1, … atoms in all (numbers beyond
    have none); None: for any number. ValueError where `cells` is not one row a group.
    """
    start, step = automaton.start.cpu().numpy(), automaton.step.cpu().numpy()
    n_states = len(step)
    if cells is None:
        ends = (np.arange(n_states) > 0)[:, None]
    else:
        if len(cells) != len(start):
            raise ValueError(
                f"cells: expected one row for each of {len(start)} space groups, got {len(cells)}"
            )
        # Groups may share sites yet differ in cells: one copy of the states for each kind of row.
        kinds, kind = np.unique(cells.cpu().numpy(), axis=0, return_inverse=True)
        copies = np.arange(len(kinds))[:, None, None] * n_states
        step = np.where(step > 0, step + copies, 0).reshape(-1, step.shape[1])
        ends = np.repeat(kinds, n_states, axis=0)
        ends[::n_states] = False
        start = np.where(start > 0, start + kind.reshape(-1) * n_states, 0)
    step = np.concatenate([np.arange(len(step))[:, None], step], axis=1)
    start, step, ends = _minimal(np.append(start, 0), step, ends, n_elements)
    device = automaton.start.device
    return SiteClasses(
        start=torch.as_tensor(start, device=device),
        step=torch.as_tensor(step, device=device),
        ends=torch.as_tensor(ends, device=device),
        n_elements=n_elements,
    )


def any_sites(n_groups: int, most: int, n_elements: int) -> SiteClasses:
    """Classes of space groups whose sites take any number of atoms."""
    return SiteClasses(
        start=torch.ones(n_groups + 1, dtype=torch.int64),
        step=torch.tensor([[0] * (most + 1), [1] * (most + 1)]),
        ends=torch.tensor([[False], [True]]),
        n_elements=n_elements,
        is_joined=True,
    )


def _minimal(start: Ints, step: Ints, ends: Bools, depth: int) -> tuple[Ints, Ints, Bools]:
    """`start`, `step`, `ends` of the classes, those that `start` reaches.

    A class steps as its first state does. Other states of it may step elsewhere, but only to
    states that agree on the depth - 1 elements that are left then, and so on.
    """
    label = _refined(step, ends, depth)
    _, first = np.unique(label, return_index=True)
    step, ends, start = label[step[first]], ends[first], label[start]
    is_reached = np.zeros(len(step), dtype=bool)
    is_reached[np.append(start, 0)] = True
    for _ in range(depth):
        is_reached[step[is_reached]] = True
    new = np.cumsum(is_reached) - 1
    return new[start], new[step[is_reached]], ends[is_reached]


def _refined(step: Ints, ends: Bools, depth: int) -> Ints:
    """Label of each state by its future over at most `depth` elements; 0 for the dead."""
    label = _labels(ends.astype(np.int64))
    for _ in range(depth):
        finer = _labels(np.concatenate([label[:, None], label[step]], axis=1))
        if finer.max() == label.max():
            break
        label = finer
    # State 0 is dead: its label swaps places with label 0.
    dead = label[0]
    return np.where(label == dead, 0, np.where(label == 0, dead, label))


def _labels(rows: Ints) -> Ints:
    _, label = np.unique(rows, axis=0, return_inverse=True)
    return label.reshape(-1)


def _unions(
    groups: Ints, step: Ints, ends: Bools, depth: int
) -> tuple[int, NDArray[np.int64], Bools]:
    """Sets of classes of which one must go on: the set of `groups`, new rows of `step` and `ends`.

    A set of one class is that class; larger sets are numbered behind the classes.
    """
    below = _inclusion(step, ends, depth)
    index: dict[tuple[int, ...], int] = {}
    rows: list[list[int]] = []
    unions: list[tuple[int, ...]] = []

    def number(members: Ints) -> int:
        kept = _maximal(members, below)
        if len(kept) < 2:
            return kept[0] if kept else 0
        if kept not in index:
            index[kept] = len(step) + len(index)
            unions.append(kept)
        return index[kept]

    first = number(groups)
    while len(rows) < len(unions):
        if len(unions) > _MAX_UNIONS:
            raise ValueError(
                f"composition first: more than {_MAX_UNIONS:,} ways in which some space group "
                "stays possible; choose the space group first, or lower n_elements or "
                "n_atoms_per_element"
            )
        members = np.array(unions[len(rows)])
        row = [number(after) for after in step[members, 1:].T]
        rows.append([index[unions[len(rows)]], *row])
    new_step = np.array(rows, dtype=np.int64).reshape(-1, step.shape[1])
    new_ends = [ends[list(union)].any(axis=0) for union in unions]
    return first, new_step, np.array(new_ends, dtype=bool).reshape(-1, ends.shape[1])


def _maximal(members: Ints, below: Bools) -> tuple[int, ...]:
    """Live classes of `members` whose future no other one of them contains, ascending."""
    unique = np.unique(members[members > 0])
    inside = below[np.ix_(unique, unique)]
    is_first = np.tri(len(unique), k=-1, dtype=bool)  # of two equal ones keep the first
    dropped = (inside & (~inside.T | is_first)).any(axis=1)
    return tuple(unique[~dropped].tolist())


def _inclusion(step: Ints, ends: Bools, depth: int) -> Bools:
    """Whether all that class w can become, class v can too, `(w, v)`."""
    base: Bools = np.all(ends[:, None, :] <= ends[None, :, :], axis=2, keepdims=True)[..., 0]
    below: Bools = base
    for _ in range(depth):
        finer = base.copy()
        for after in step[:, 1:].T:
            finer &= below[np.ix_(after, after)]
        if (finer == below).all():
            break
        below = finer
    return below

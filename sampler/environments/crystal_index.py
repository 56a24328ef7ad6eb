"""The composition tree as tensors: what a batch of nodes may become, by look-up."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sampler.environments.crystal_composition import CompositionTree

_WORD = 64


class CompositionIndex:
    """Batched questions to a `CompositionTree`. Named axes: n rows, v nodes, e elements."""

    counts: Tensor
    """Atoms of each element at every node, `(v, e)` int16."""
    n_atoms: Tensor
    """Atoms in all, `(v,)` int64."""
    parent: Tensor
    action: Tensor
    """The node before, and the (element, count) action that leads here from it; `(v,)`."""

    def __init__(self, tree: CompositionTree, n_actions: int) -> None:
        self.counts = torch.from_numpy(tree.counts)
        self.n_atoms = self.counts.sum(dim=1)
        self.parent, self.action = torch.from_numpy(tree.parent), torch.from_numpy(tree.action)
        self._first_child = torch.from_numpy(tree.first_child)
        self._n_children = torch.from_numpy(tree.n_children)
        self._fits, self._can_fit = torch.from_numpy(tree.fits), torch.from_numpy(tree.can_fit)
        self._n_actions = n_actions
        # Ascending, since nodes are numbered by parent and then by action.
        self._edge = self.parent[1:] * n_actions + self.action[1:]

    def narrowed(self, is_wanted: Tensor) -> CompositionIndex:
        """The same tree with only compositions at wanted nodes `(v,)` complete."""
        narrowed = copy.copy(self)
        narrowed._fits = self._fits * is_wanted[:, None]
        reach = narrowed._fits.cpu().numpy().copy()
        depth = (self.counts > 0).sum(dim=1).cpu().numpy()
        parent = self.parent.cpu().numpy()
        for level in range(int(depth.max()), 0, -1):
            nodes = np.flatnonzero(depth == level)
            np.bitwise_or.at(reach, parent[nodes], reach[nodes])
        narrowed._can_fit = torch.from_numpy(reach).to(self._fits.device)
        return narrowed

    def possible_groups(self, n_groups: int) -> Tensor:
        """Which space groups some composition fits, `(g,)` bool."""
        groups = torch.arange(n_groups)
        return _has_bit(self._can_fit[torch.zeros_like(groups)], groups)

    def fits(self, nodes: Tensor, groups: Tensor) -> Tensor:
        """Whether the composition at each node is complete for its space group, `(n,)` bool."""
        return _has_bit(self._fits[nodes], groups)

    def open_actions(self, nodes: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Actions that lead on towards a composition that fits: (row, action) of each."""
        n_children = self._n_children[nodes]
        owner = torch.repeat_interleave(n_children)
        position = torch.arange(len(owner)) - (n_children.cumsum(0) - n_children)[owner]
        child = self._first_child[nodes][owner] + position
        is_open = _has_bit(self._can_fit[child], groups[owner])
        return owner[is_open], self.action[child[is_open]]

    def child(self, nodes: Tensor, actions: Tensor) -> Tensor:
        """The node that each allowed action leads to, `(n,)`."""
        return torch.searchsorted(self._edge, nodes * self._n_actions + actions) + 1

    def find(self, actions: Sequence[int]) -> int | None:
        """The node at the end of a path of actions in increasing order; None if there is none."""
        node = 0
        for action in actions:
            edge = node * self._n_actions + action
            place = int(torch.searchsorted(self._edge, edge))
            if place == len(self._edge) or int(self._edge[place]) != edge:
                return None
            node = place + 1
        return node


def _has_bit(words: Tensor, bits: Tensor) -> Tensor:
    """Whether each row of `words` `(n, w)` has its bit of `bits` `(n,)` set."""
    word = words.gather(1, (bits // _WORD)[:, None])[:, 0]
    return (word >> (bits % _WORD)) & 1 == 1

"""All compositions of a crystal space, as a prefix tree that knows what each prefix can become.

A composition is a path of (element, count) actions in increasing element order. The tree holds
exactly the prefixes of valid compositions, and each node two sets of space groups: those that the
composition itself fits, and those that some completion of it fits. Masks are then look-ups, and no
path ends in a dead end. Named axes: v nodes, e elements, g space groups, t count tuples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, product
from math import comb

import numpy as np
from numpy.typing import NDArray

from sampler.environments.crystal_symmetry import SpaceGroup, compatible_counts

_MAX_COMPOSITIONS = 20_000_000
_WORD = 64

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class CompositionRules:
    """What makes a composition valid; counts are of the conventional cell, ranges inclusive."""

    n_elements: tuple[int, int]
    n_atoms: tuple[int, int]
    n_atoms_per_element: tuple[int, int]
    oxidation_states: tuple[tuple[int, ...], ...] | None
    """Of each element in order; None: charges need not balance."""


@dataclass(frozen=True)
class CompositionTree:
    """The prefix tree; node 0 is the empty composition, children follow their parents in order.

    Action e · n_counts + (count - smallest count) adds `count` atoms of element e.
    """

    parent: Ints  # (v,); -1 at node 0
    action: Ints  # (v,): the action that leads from the parent here; -1 at node 0
    first_child: Ints  # (v,)
    n_children: Ints  # (v,)
    counts: NDArray[np.int16]  # (v, e)
    fits: Ints  # (v, words): bit g is set if the composition fits space group g
    can_fit: Ints  # (v, words): bit g is set if some composition below, or it, fits g


def build_tree(
    rules: CompositionRules, groups: Sequence[SpaceGroup], has_lattice: Bools, n_kinds: int
) -> CompositionTree:
    """The tree of all valid compositions of `n_kinds` elements.

    `has_lattice` `(g, n_max + 1)`: whether space group g has a lattice for n atoms. ValueError
    when no composition is left, with how many each rule let pass, or when there are too many.
    """
    levels: list[tuple[Ints, Ints]] = []
    n_possible = n_neutral = 0
    for size in range(rules.n_elements[0], min(rules.n_elements[1], n_kinds) + 1):
        tuples = count_tuples(rules, size)
        n_possible += len(tuples) * comb(n_kinds, size)
        if n_possible > _MAX_COMPOSITIONS:
            raise ValueError(
                f"more than {_MAX_COMPOSITIONS:,} compositions: lower n_elements, n_atoms or "
                "n_atoms_per_element"
            )
        fits = _packed(_fitting_groups(tuples, groups, has_lattice))
        actions, rows, n_balanced = _valid(rules, tuples, (fits != 0).any(axis=1), n_kinds)
        n_neutral += n_balanced
        levels.append((actions, fits[rows]))
    if sum(len(actions) for actions, _ in levels) == 0:
        raise ValueError(
            f"no crystal satisfies the options: {n_possible} compositions in range, {n_neutral} "
            "of them charge-neutral, none of which fits the sites and the volume window of a "
            "space group; widen n_atoms, elements, space_groups or volume_per_atom"
        )
    n_counts = rules.n_atoms_per_element[1] - rules.n_atoms_per_element[0] + 1
    return _tree(levels, rules.n_atoms_per_element[0], n_counts, n_kinds)


def count_tuples(rules: CompositionRules, size: int) -> Ints:
    """All ways to give `size` elements their numbers of atoms, `(t, size)`."""
    low, high = rules.n_atoms_per_element
    tuples = np.zeros((1, 0), dtype=np.int64)
    for n_left in range(size - 1, -1, -1):
        grown = [
            np.concatenate([tuples, np.full((len(tuples), 1), count)], axis=1)
            for count in range(low, high + 1)
        ]
        tuples = np.concatenate(grown)
        tuples = tuples[tuples.sum(axis=1) + n_left * low <= rules.n_atoms[1]]
    enough: Ints = tuples[tuples.sum(axis=1) >= rules.n_atoms[0]]
    return enough


def is_neutral(tuples: Ints, states: Sequence[tuple[int, ...]]) -> Bools:
    """Whether some choice of one oxidation state an element balances each count tuple, `(t,)`."""
    # float32 for the speed of BLAS; the integers are far below 2^24, so it is exact.
    choices = np.array(list(product(*states)), dtype=np.float32)
    return np.asarray((tuples.astype(np.float32) @ choices.T == 0).any(axis=1))


def _fitting_groups(tuples: Ints, groups: Sequence[SpaceGroup], has_lattice: Bools) -> Bools:
    """Which space groups each count tuple fits, sites and volume both; `(t, g)`."""
    answers: dict[tuple[object, object], Bools] = {}
    for group in groups:
        if (group.free, group.fixed) not in answers:
            answers[group.free, group.fixed] = compatible_counts(group, tuples)
    fits = np.stack([answers[group.free, group.fixed] for group in groups], axis=1)
    return fits & has_lattice[:, tuples.sum(axis=1)].T


def _packed(flags: Bools) -> Ints:
    """Booleans `(t, g)` as 64-bit words `(t, words)`, group g at bit g % 64 of word g // 64."""
    n_words = -(-flags.shape[1] // _WORD)
    padded = np.zeros((len(flags), n_words * _WORD), dtype=np.uint8)
    padded[:, : flags.shape[1]] = flags
    return (
        np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64).view(np.int64)
    )


def _valid(
    rules: CompositionRules, tuples: Ints, fits_any: Bools, n_kinds: int
) -> tuple[Ints, Ints, int]:
    """Valid compositions of one size as actions `(c, size)`, the tuple of each, and n neutral."""
    size = tuples.shape[1]
    low, high = rules.n_atoms_per_element
    neutral_by_states: dict[tuple[tuple[int, ...], ...], Bools] = {}
    n_neutral = 0
    chosen: list[Ints] = [np.zeros(0, dtype=np.int64)]
    actions: list[Ints] = [np.zeros((0, size), dtype=np.int64)]
    for subset in combinations(range(n_kinds), size):
        neutral = np.ones(len(tuples), dtype=bool)
        if rules.oxidation_states is not None:
            states = tuple(rules.oxidation_states[i] for i in subset)
            if states not in neutral_by_states:
                neutral_by_states[states] = is_neutral(tuples, states)
            neutral = neutral_by_states[states]
        n_neutral += int(neutral.sum())
        rows = (neutral & fits_any).nonzero()[0]
        chosen.append(rows)
        actions.append(tuples[rows] - low + np.array(subset) * (high - low + 1))
    return np.concatenate(actions), np.concatenate(chosen), n_neutral


def _tree(
    levels: list[tuple[Ints, Ints]], smallest: int, n_counts: int, n_kinds: int
) -> CompositionTree:
    """Assemble the nodes depth by depth, then sum up the space groups from the leaves."""
    n_actions = n_kinds * n_counts
    n_words = levels[0][1].shape[1]
    parents, actions = [np.array([-1])], [np.array([-1])]
    fits = [np.zeros((1, n_words), dtype=np.int64)]
    # The node that each composition's path has reached so far; all start at node 0.
    reached = [np.zeros(len(paths), dtype=np.int64) for paths, _ in levels]
    n_nodes = 1
    for depth in range(max(paths.shape[1] for paths, _ in levels)):
        longer = [i for i, (paths, _) in enumerate(levels) if paths.shape[1] > depth]
        codes = [reached[i] * n_actions + levels[i][0][:, depth] for i in longer]
        unique = np.unique(np.concatenate(codes))
        fits.append(np.zeros((len(unique), n_words), dtype=np.int64))
        for i, code in zip(longer, codes, strict=True):
            position = np.searchsorted(unique, code)
            reached[i] = n_nodes + position
            if levels[i][0].shape[1] == depth + 1:
                fits[-1][position] = levels[i][1]
        parents.append(unique // n_actions)
        actions.append(unique % n_actions)
        n_nodes += len(unique)
    parent, action = np.concatenate(parents), np.concatenate(actions)
    n_children = np.bincount(parent[1:], minlength=n_nodes)
    return CompositionTree(
        parent=parent,
        action=action,
        # Children stand in the order of their parents, behind node 0.
        first_child=1 + np.cumsum(n_children) - n_children,
        n_children=n_children,
        counts=_counts(parents, actions, smallest, n_counts, n_kinds),
        fits=np.concatenate(fits),
        can_fit=_can_fit(parents, fits),
    )


def _counts(
    parents: list[Ints], actions: list[Ints], smallest: int, n_counts: int, n_kinds: int
) -> NDArray[np.int16]:
    """Atoms of each element at every node, `(v, e)`, from the root down."""
    n_nodes = sum(map(len, parents))
    counts = np.zeros((n_nodes, n_kinds), dtype=np.int16)
    start = 1
    for parent, action in zip(parents[1:], actions[1:], strict=True):
        nodes = np.arange(start, start + len(parent))
        counts[nodes] = counts[parent]
        counts[nodes, action // n_counts] = action % n_counts + smallest
        start += len(parent)
    return counts


def _can_fit(parents: list[Ints], fits: list[Ints]) -> Ints:
    """Union of `fits` over the subtree of every node, from the deepest level up."""
    starts = np.cumsum([0, *(len(level) for level in parents)])
    union = [level.copy() for level in fits]
    for depth in range(len(parents) - 1, 0, -1):
        np.bitwise_or.at(union[depth - 1], parents[depth] - starts[depth - 1], union[depth])
    return reduce(lambda a, b: np.concatenate([a, b]), union)

"""Which atom counts fit the Wyckoff sites of a space group, as one table of states.

Elements are placed one after the other. What has gone before matters only through the fixed sites
it has taken (`SpaceGroup.fixed`: each holds one orbit in all), and of several ways to place the
same atoms only those count that no other beats at every multiplicity. So a state is a set of
minimal ways, the same for every order of the elements, and a table of states answers in one
look-up what Crystal-GFN (arXiv 2310.04925, section 3) asks a search at every step.

Named axes: g space groups, s states, c counts 1 … max_count, k minimal ways, f fixed
multiplicities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sampler.environments.crystal_symmetry import SpaceGroup, Uses, with_element

DEAD = 0
"""The state of atoms that cannot be placed."""

NEVER = 1 << 40
"""Pads `SiteAutomaton.uses`: more sites than any space group has."""

_Kind = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
"""What of a space group matters here: its free and its fixed multiplicities, as far as of use."""

_State = tuple[_Kind, frozenset[Uses]]


@dataclass(frozen=True)
class SiteAutomaton:
    """States of space groups as elements are placed; all tables int64. Row `DEAD` is the dead one.

    Groups with equal site multiplicities share states. Fixed multiplicities larger than max_count
    have no column: no element can take such a site.
    """

    start: Tensor
    """State of each space group with no atom placed, `(g,)`."""
    step: Tensor
    """`step[s, n - 1]`: state once n atoms of one more element are placed, `(s, c)`.

    All `DEAD` in states that only the last allowed element leads to.
    """
    uses: Tensor
    """Minimal numbers of fixed sites taken, `(s, k, f)`; rows of `NEVER` where there are fewer."""
    capacity: Tensor
    """Sites of each fixed multiplicity, 0 beyond a group's own, `(g, f)`."""
    multiplicity: Tensor
    """The fixed multiplicities, ascending, 0 beyond a group's own, `(g, f)`."""

    def after(self, states: Tensor, counts: Tensor) -> Tensor:
        """States once `counts` atoms of one more element are placed; none at all where 0.

        Both broadcast against each other; int64.
        """
        return torch.where(counts > 0, self.step[states, (counts - 1).clamp_min(0)], states)


def site_automaton(groups: Sequence[SpaceGroup], max_count: int, n_elements: int) -> SiteAutomaton:
    """All states that up to `n_elements` elements of 1 … `max_count` atoms each can reach.

    ValueError where a number is smaller than 1 or there is no space group.
    """
    for name, value in (("max_count", max_count), ("n_elements", n_elements)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if not groups:
        raise ValueError("groups: expected at least one space group, got none")
    groups = [_within(group, max_count) for group in groups]
    examples = {_kind(group): group for group in groups}
    index, rows = _explore(examples, max_count, n_elements)
    n_fixed = max(1, *(len(group.fixed) for group in groups))
    n_ways = max(len(ways) for _, ways in index)
    impossible = [[NEVER] * n_fixed] * n_ways
    ways = [_padded_ways(ways, n_ways, n_fixed) for _, ways in index]
    return SiteAutomaton(
        start=torch.tensor([index[_empty(_kind(group))] + 1 for group in groups]),
        step=torch.tensor([[DEAD] * max_count, *rows]),
        uses=torch.tensor([impossible, *ways]),
        capacity=torch.tensor([_padded([n for _, n in g.fixed], n_fixed) for g in groups]),
        multiplicity=torch.tensor([_padded([m for m, _ in g.fixed], n_fixed) for g in groups]),
    )


def _explore(
    examples: Mapping[_Kind, SpaceGroup], max_count: int, n_elements: int
) -> tuple[dict[_State, int], list[list[int]]]:
    """States in order of discovery, breadth first, and of each its row of `SiteAutomaton.step`.

    `examples` has a space group of each kind.
    """
    index = {_empty(kind): i for i, kind in enumerate(examples)}
    rows: list[list[int]] = []
    frontier = list(index)
    for _ in range(n_elements):
        found: list[_State] = []
        for kind, ways in frontier:
            row: list[int] = []
            for count in range(1, max_count + 1):
                after = frozenset(with_element(examples[kind], set(ways), count))
                if after and (kind, after) not in index:
                    index[kind, after] = len(index)
                    found.append((kind, after))
                row.append(index[kind, after] + 1 if after else DEAD)
            rows.append(row)
        frontier = found
    return index, rows + [[DEAD] * max_count for _ in frontier]


def _within(group: SpaceGroup, max_count: int) -> SpaceGroup:
    """`group` without the sites that hold more than `max_count` atoms."""
    return replace(
        group,
        free=tuple(m for m in group.free if m <= max_count),
        fixed=tuple((m, n) for m, n in group.fixed if m <= max_count),
    )


def _kind(group: SpaceGroup) -> _Kind:
    return group.free, group.fixed


def _empty(kind: _Kind) -> _State:
    return kind, frozenset({(0,) * len(kind[1])})


def _padded(values: Sequence[int], length: int) -> list[int]:
    return [*values, *[0] * (length - len(values))]


def _padded_ways(ways: frozenset[Uses], n_ways: int, n_fixed: int) -> list[list[int]]:
    rows = [_padded(way, n_fixed) for way in sorted(ways)]
    return rows + [[NEVER] * n_fixed] * (n_ways - len(rows))

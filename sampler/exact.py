"""Exact distributions over a discrete space small enough to enumerate, and distances of them.

The states and edges of a space do not depend on a policy: they are walked once and remembered as
long as the space lives, so that asking again costs one pass of the network over its states.
`sampler.evaluation` has estimates for larger and for continuous spaces.

Named axes: m states, e edges, n rows asked about, w state columns.
"""

from __future__ import annotations

import itertools
import math
import weakref
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sampler.asking import LogReward, checked
from sampler.environment import Environment
from sampler.rows import packed, rows_in, unique_rows

_CHUNK = 4096
"""States that the network sees at once: their activations stay in the cache."""
_SUM_TOLERANCE = 1e-3


class TooManyStatesError(ValueError):
    """The space is too large to enumerate."""


class ForwardPolicy(Protocol):
    """What is asked of a sampler here: its space and its forward policy."""

    environment: Environment

    def log_forward(self, states: Tensor) -> Tensor:
        """Return log P_F of every action `(n, a)`; -inf where forbidden."""
        ...


def terminal_distribution(gfn: ForwardPolicy, max_states: int = 1_000_000) -> tuple[Tensor, Tensor]:
    """Every terminal state `(n, w)` and the probability that `gfn` samples it, `(n,)` float64.

    By dynamic programming: probability mass starts at the initial state and is pushed along every
    edge, each state after all of its parents. Terminal states come in lexicographic order.
    TooManyStatesError, a ValueError, once more than `max_states` states were met; ValueError for a
    continuous space.
    """
    graph = _graph(gfn.environment, max_states)
    probabilities = _edge_probabilities(gfn, graph)
    mass = torch.zeros(len(graph.states), dtype=torch.float64, device=graph.states.device)
    mass[0] = 1.0
    for edges in graph.ranks:
        flow = mass[graph.parents[edges]] * probabilities[edges]
        mass.index_add_(0, graph.children[edges], flow)
    return graph.states[graph.terminal], mass[graph.terminal]


def target_distribution(
    environment: Environment, log_reward: LogReward, max_states: int = 1_000_000
) -> tuple[Tensor, Tensor]:
    """Every terminal state `(n, w)` and R(x) / Z, `(n,)` float64; lexicographic order.

    A log reward of -inf is a probability of 0. Errors as for `terminal_distribution`, and
    ValueError where a log reward is NaN or +inf, or all are -inf.
    """
    states, log_rewards = _all_rewards(environment, log_reward, max_states)
    return states, (log_rewards - log_rewards.logsumexp(dim=0)).exp()


def exact_log_z(
    environment: Environment, log_reward: LogReward, max_states: int = 1_000_000
) -> float:
    """Log of the total reward, log Σ R(x) over all terminal states; errors as for the target."""
    return float(_all_rewards(environment, log_reward, max_states)[1].logsumexp(dim=0))


def reachable(environment: Environment, max_states: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All states `(m, w)`, the initial one first, and all edges: parents, actions, children `(e,)`.

    Parents and children are numbers of states. Errors as for `terminal_distribution`.
    """
    graph = _graph(environment, max_states)
    return graph.states, graph.parents, graph.actions, graph.children


def lookup(states: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """The entry of `values` `(m,)` at the row of `known` `(m, w)` equal to each of `states`.

    ValueError when a state is not among them.
    """
    return values[_rows_in(states, known)]


def empirical_distribution(samples: Tensor, known_states: Tensor) -> Tensor:
    """Share of `samples` `(n, w)` that equals each of `known_states` `(m, w)`; `(m,)` float64.

    ValueError without samples, and for a sample that is not among the known states.
    """
    if len(samples) == 0:
        raise ValueError("empirical_distribution: expected at least one sample, got none")
    counts = torch.bincount(_rows_in(samples, known_states), minlength=len(known_states))
    return counts.double() / len(samples)


def l1(p: Tensor, q: Tensor) -> float:
    """Σ |p - q| of two probability vectors `(m,)`, from 0 to 2. ValueError if one is none."""
    p, q = _checked_pair(p, q)
    return float((p - q).abs().sum())


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half of `l1`: the largest difference that any event's probability can have, 0 to 1."""
    return l1(p, q) / 2


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """Jensen-Shannon divergence ½ KL(p | m) + ½ KL(q | m), m = (p + q) / 2, in nats: 0 to log 2.

    Lin 1991 (Divergence measures based on the Shannon entropy), equation 4.1 with equal weights.
    """
    p, q = _checked_pair(p, q)
    middle = (p + q) / 2
    divergences = torch.special.entr(middle) - (torch.special.entr(p) + torch.special.entr(q)) / 2
    return min(max(float(divergences.sum()), 0.0), math.log(2.0))


@dataclass(frozen=True)
class _Graph:
    """All states of a space that can be reached, each once, and the edges between them.

    States are sorted by rank, the length of the longest trajectory to them: every edge leads to a
    higher rank. Edges are sorted by parent; `ranks` are the slices of them that leave one rank.
    """

    states: Tensor  # (m, w), the initial one first
    terminal: Tensor  # indices of the terminal states, by their order
    parents: Tensor  # (e,)
    actions: Tensor  # (e,)
    children: Tensor  # (e,)
    ranks: list[slice]


_walks: dict[int, _Graph | int] = {}
"""What came of walking the space of this id: its graph, or a number of states that it exceeds."""


def _graph(environment: Environment, max_states: int) -> _Graph:
    """The graph of `environment`, walked at the first call. Errors: see `terminal_distribution`."""
    if environment.action_heads is not None:
        raise ValueError(
            f"expected a discrete space, {type(environment).__name__} is continuous: its states "
            "cannot be enumerated; sampler.evaluation estimates what is asked here"
        )
    known = _walks.get(id(environment), -1)
    if isinstance(known, int) and known < max_states:
        known = _walked_within(environment, max_states)
        if id(environment) not in _walks:
            weakref.finalize(environment, _walks.pop, id(environment), None)
        _walks[id(environment)] = known
    if isinstance(known, int) or len(known.states) > max_states:
        raise TooManyStatesError(
            f"expected a space of at most {max_states} states to enumerate, found more; "
            "take a smaller space, or raise max_states"
        )
    return known


def _walked_within(environment: Environment, max_states: int) -> _Graph | int:
    """The graph, or `max_states` if there are more states; walked level by level."""
    level = environment.initial_states(1)
    levels = [level]
    edges: list[Tensor] = []
    n_met = 1
    while n_met <= max_states:
        parents, actions = environment.forward_mask(level).nonzero(as_tuple=True)
        if len(parents) == 0:
            return _without_repeats(environment, levels, edges)
        offset = n_met - len(level)
        children = _children(environment, level, parents, actions, max_states - n_met)
        if children is None:
            return max_states
        level, index = unique_rows(children)
        edges.append(torch.stack([parents + offset, actions, index + n_met]))
        levels.append(level)
        n_met += len(level)
    return max_states


def _children(
    environment: Environment, level: Tensor, parents: Tensor, actions: Tensor, room: int
) -> Tensor | None:
    """Children of all edges `(e, w)`; None as soon as more than `room` of them are distinct.

    A level of a large space may have millions of edges: most of them need not be looked at.
    """
    if len(parents) <= max(room, _CHUNK):
        return environment.step(level[parents], actions)
    parts: list[Tensor] = []
    distinct = level[:0]
    for start in range(0, len(parents), _CHUNK):
        edges = slice(start, start + _CHUNK)
        parts.append(environment.step(level[parents[edges]], actions[edges]))
        distinct, _ = unique_rows(torch.cat([distinct, parts[-1]]))
        if len(distinct) > room:
            return None
    return torch.cat(parts)


def _without_repeats(environment: Environment, levels: list[Tensor], edges: list[Tensor]) -> _Graph:
    """The graph of levels of states, and edges `(3, e)` from one to the next.

    A state met at several levels stays at the last of them only: the end of its longest path.
    """
    met = torch.cat(levels)
    distinct, index = torch.unique(packed(met), return_inverse=True)
    place = torch.arange(len(met), device=met.device)
    last = torch.zeros_like(distinct).scatter_reduce(0, index, place, "amax")
    is_kept = torch.zeros(len(met), dtype=torch.bool, device=met.device)
    is_kept[last] = True
    # Where among the kept ones the state of each place stands.
    new_place = (is_kept.cumsum(0) - 1)[last[index]]
    kept_edges = [part[:, is_kept[part[0]]] for part in edges]
    parts = [
        (new_place[parents], actions, new_place[kids]) for parents, actions, kids in kept_edges
    ]
    parents, actions, children = (torch.cat(column) for column in zip(*parts, strict=True))
    bounds = [0, *torch.tensor([part.shape[1] for part in kept_edges]).cumsum(0).tolist()]
    ranks = [slice(a, b) for a, b in itertools.pairwise(bounds) if b > a]
    terminal = environment.is_terminal(met[last]).nonzero()[:, 0]
    return _Graph(met[is_kept], new_place[last[terminal]], parents, actions, children, ranks)


def _edge_probabilities(gfn: ForwardPolicy, graph: _Graph) -> Tensor:
    """P_F of each edge, float64 `(e,)`: one pass of the network over the states that have any."""
    inner, place = torch.unique_consecutive(graph.parents, return_inverse=True)
    parts = []
    for start in range(0, len(inner), _CHUNK):
        stop = min(start + _CHUNK, len(inner))
        with torch.no_grad():
            log_forward = gfn.log_forward(graph.states[inner[start:stop]])
        first, after = torch.searchsorted(place, torch.tensor([start, stop], device=place.device))
        edges = slice(int(first), int(after))
        parts.append(log_forward[place[edges] - start, graph.actions[edges]].double().exp())
    return torch.cat(parts)


def _all_rewards(
    environment: Environment, log_reward: LogReward, max_states: int
) -> tuple[Tensor, Tensor]:
    graph = _graph(environment, max_states)
    states = graph.states[graph.terminal]
    log_rewards = checked(environment, log_reward, -math.inf)(states)
    if not bool((log_rewards > -math.inf).any()):
        raise ValueError(
            f"log_reward: expected a reward above 0 somewhere, all {len(states)} candidates have "
            "a log reward of -inf"
        )
    return states, log_rewards


def _rows_in(states: Tensor, known: Tensor) -> Tensor:
    """Which row of `known` equals each of `states`, `(n,)`; ValueError if none does."""
    rows = rows_in(states, known)
    if bool((rows < 0).any()):
        missing = states[int((rows < 0).nonzero()[0])]
        raise ValueError(f"state {missing.tolist()} is not a terminal state of this space")
    return rows


def _checked_pair(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    if p.ndim != 1 or p.shape != q.shape:
        raise ValueError(
            f"expected two probability vectors of one length, got shapes {tuple(p.shape)} and "
            f"{tuple(q.shape)}"
        )
    for name, values in (("first", p), ("second", q)):
        total = float(values.double().sum())
        if not (bool((values >= 0).all()) and abs(total - 1) < _SUM_TOLERANCE):
            raise ValueError(
                f"the {name} vector: expected probabilities, 0 or more with a sum of 1, got a sum "
                f"of {total:g} and a smallest value of {float(values.min()):g}"
            )
    return p.double(), q.double().to(p.device)

"""Exact distributions of a sampler over a space small enough to enumerate."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sampler.environment import Environment


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
    allowed action, level by level, merging equal states (levels, so that a state which can be
    reached in different numbers of steps is counted right). States come in lexicographic order.
    TooManyStatesError, a ValueError, once more than `max_states` states were visited.
    """
    environment = gfn.environment
    states = environment.initial_states(1)
    mass = torch.ones(1, dtype=torch.float64)
    finished: list[tuple[Tensor, Tensor]] = []
    n_visited = 1
    while len(states) > 0:
        states, mass = _merged(*_pushed(gfn, states, mass))
        n_visited += len(states)
        if n_visited > max_states:
            raise TooManyStatesError(
                f"expected a space of at most {max_states} states to enumerate, found more; "
                "take a smaller space, or raise max_states"
            )
        is_done = environment.is_terminal(states)
        finished.append((states[is_done], mass[is_done]))
        states, mass = states[~is_done], mass[~is_done]
    return _merged(
        torch.cat([part for part, _ in finished]), torch.cat([part for _, part in finished])
    )


def lookup(states: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """The entry of `values` `(m,)` at the row of `known` `(m, w)` equal to each of `states`.

    ValueError when a state is not among them.
    """
    _, index = torch.unique(torch.cat([known, states]), dim=0, return_inverse=True)
    row_of = torch.full((int(index.max()) + 1,), -1, dtype=torch.int64)
    row_of[index[: len(known)]] = torch.arange(len(known))
    rows = row_of[index[len(known) :]]
    if bool((rows < 0).any()):
        missing = states[int((rows < 0).nonzero()[0])]
        raise ValueError(f"state {missing.tolist()} is not a terminal state of this space")
    return values[rows]


def _pushed(gfn: ForwardPolicy, states: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """All children of `states` and the mass that flows to each, equal children repeated."""
    probabilities = gfn.log_forward(states).double().exp() * mass[:, None]
    rows, actions = gfn.environment.forward_mask(states).nonzero(as_tuple=True)
    return gfn.environment.step(states[rows], actions), probabilities[rows, actions]


def _merged(states: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Equal rows as one, with their mass summed."""
    unique, index = torch.unique(states, dim=0, return_inverse=True)
    return unique, torch.zeros(len(unique), dtype=torch.float64).index_add(0, index, mass)

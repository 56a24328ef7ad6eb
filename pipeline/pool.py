"""The pool: every candidate that a round knows of, with its gain, before the sampler is trained.

Named axes: k known candidates, p candidates of the pool, w state columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.initial import distinct
from pipeline.reward import Gain
from sampler.environment import Environment
from sampler.genetic import Genetic

N_GENERATIONS = 40
"""Generations of the search for good gains: a few percent of what training asks for."""
GENERATION = 64
"""Candidates of one of them."""
N_FOUND = 1000
"""How many of the best that the search met come into the pool."""


@dataclass(frozen=True)
class GainPool:
    """Different terminal states `(p, w)`, best first, and their log gains `(p,)` at the target."""

    states: Tensor
    gains: Tensor

    def best(self, n: int) -> Tensor:
        """The n best, or all where there are fewer, `(<= n, w)`."""
        return self.states[:n]


def searched_pool(
    environment: Environment,
    acquisition: Gain,
    known: Tensor,
    seed: int,
    n_generations: int = N_GENERATIONS,
) -> GainPool:
    """`known` `(k, w)` and what a genetic search from the best of them meets, with their gains.

    In a large space the known candidates, the random ones above all, do not say how good the gain
    can get; a reward scaled by them is flat between the good ones. A short search shows the top,
    for the temperature and as examples to train on (as genetic-guided GFlowNets do, Kim et al.
    2024, arXiv 2402.05961). 0 generations: no search. ValueError where `known` is empty.
    """
    if len(known) == 0:
        raise ValueError("expected at least one known candidate for the pool, got none")

    def gain(states: Tensor) -> Tensor:
        return acquisition.target_log_gain(environment.features(states))

    states = distinct(known, environment.keys)
    gains = gain(states)
    if n_generations > 0:
        starts = states[gains.argsort(descending=True, stable=True)[: GENERATION // 2]]
        met = _met(environment, gain, starts, seed, n_generations)
        states = distinct(torch.cat([states, met]), environment.keys)
        gains = gain(states)
    order = gains.argsort(descending=True, stable=True)
    return GainPool(states[order], gains[order])


def _met(
    environment: Environment,
    gain: Callable[[Tensor], Tensor],
    starts: Tensor,
    seed: int,
    n_generations: int,
) -> Tensor:
    """The best that a search from `starts` meets, half of its first generation random."""
    search = Genetic(environment, seed, n_kept=N_FOUND, log_reward_floor=-torch.inf)
    search.train(gain, n_generations, GENERATION, examples=starts, example_fraction=0.5)
    return search.states

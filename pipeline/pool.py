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
from sampler.row_variation import row_operators

N_GENERATIONS = 40
"""Generations of the search for good gains: a few percent of what training asks for."""
GENERATION = 64
"""Candidates of one of them."""
N_NICHES, NICHE_SHARE = 8, 0.3
"""Short searches from the best observed words, and their generations as a share of the long's."""
N_OBSERVED = 200
"""How many of the best observed candidates they start from, ties of the best among them."""
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
    observed: Tensor | None = None,
) -> GainPool:
    """`known` `(k, w)` and what a genetic search from the best of them meets, with their gains.

    `observed` `(b, w)`: candidates of the best observed values, given in a space of words. There
    `N_NICHES` short searches start from them besides, each from other ones: what is gained near
    them lies in many places, and one search ends in one of them.

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
        met = [_met(environment, gain, starts, seed, n_generations, 0.5)]
        if observed is not None:
            met += _near(environment, gain, observed, seed, n_generations)
        states = distinct(torch.cat([states, *met]), environment.keys)
        gains = gain(states)
    order = gains.argsort(descending=True, stable=True)
    return GainPool(states[order], gains[order])


def is_of_words(environment: Environment) -> bool:
    """Whether a candidate is a word and nothing else."""
    return {kind for kind, _ in environment.feature_blocks or ()} == {"letter"}


def variants(environment: Environment, observed: Tensor, n: int, seed: int) -> Tensor:
    """N mutants of words `observed` `(b, w)`, whatever their gain, `(n, w)`; none without `b`.

    Of what a search keeps all is much alike. The batch has room for more kinds of candidates.
    """
    operators = row_operators(environment)
    if operators is None or len(observed) == 0:
        return observed[:0]
    generator = torch.Generator().manual_seed(seed)
    parents = torch.randint(len(observed), (n,), generator=generator)
    return operators.mutated(observed[parents], None, generator)


def _near(
    environment: Environment,
    gain: Callable[[Tensor], Tensor],
    observed: Tensor,
    seed: int,
    n_generations: int,
) -> list[Tensor]:
    """What short searches from random halves of `observed` meet, one tensor each."""
    generator = torch.Generator().manual_seed(seed)
    n, n_short = max(1, len(observed) // 2), max(1, round(NICHE_SHARE * n_generations))
    halves = [torch.randperm(len(observed), generator=generator)[:n] for _ in range(N_NICHES)]
    return [
        _met(environment, gain, observed[half], seed + 1 + i, n_short, 1.0)
        for i, half in enumerate(halves)
    ]


def _met(
    environment: Environment,
    gain: Callable[[Tensor], Tensor],
    starts: Tensor,
    seed: int,
    n_generations: int,
    share: float,
) -> Tensor:
    """The best that a search meets whose first generation is that `share` `starts`, else random."""
    search = Genetic(environment, seed, n_kept=N_FOUND, log_reward_floor=-torch.inf)
    search.train(gain, n_generations, GENERATION, examples=starts, example_fraction=share)
    return search.states

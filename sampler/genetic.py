"""A genetic algorithm with the interface of a sampler, over any space.

Named axes: n candidates, w state columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sampler.asking import LogReward, checked
from sampler.baselines import random_states
from sampler.checkpoint import read, write
from sampler.environment import Environment
from sampler.options import check_examples, n_examples_of
from sampler.row_variation import row_operators
from sampler.variation import Habit, bred, grown_inside, is_inside

_SURPLUS = 2
"""Children made for each that is needed: rows are cheaper than attempts."""


class Genetic:
    """Breeds the best candidates found so far; it seeks high rewards, not a distribution.

    A steady state (μ + λ) genetic algorithm (Eiben & Smith 2015, Introduction to Evolutionary
    Computing, chapter 5): parents win tournaments among the `population_size` best of all that
    were asked (so the best are never lost), children are never asked twice. In words and grids
    variation is that of rows (`sampler.row_variation`: point mutations, shifts, one-point and
    uniform crossover). In any other space, and with `n_back`, it goes back and forth in the
    environment's own steps (`sampler.variation`), so that every child is a candidate.

    `tournament_size`: of so many drawn from the population the best becomes a parent; 1: any.
    `crossover_rate`: the share of children with two parents; the others are mutants of one.
    `n_back`, `mutation_rate`: how far children are changed, see `sampler.variation.Habit`.
    `n_kept`: how many of the best are remembered, which `sample` answers.
    `n_steps` generations of `batch_size` children each, of a `train` whose caller names neither:
    as many rewards as a `GFlowNet` asks for with the same numbers.
    `log_reward_floor`: log rewards below it, -inf included, count as it.
    """

    is_baseline = True
    """A rival in races: a campaign adds nothing to what it draws."""

    def __init__(
        self,
        environment: Environment,
        seed: int = 0,
        *,
        population_size: int = 100,
        tournament_size: int = 2,
        crossover_rate: float = 0.5,
        mutation_rate: float | None = None,
        n_back: float | None = None,
        n_kept: int = 10_000,
        log_reward_floor: float = -100.0,
        n_steps: int = 1000,
        batch_size: int = 64,
    ) -> None:
        _check(population_size, tournament_size, crossover_rate, n_kept)
        self.environment = environment
        self.habit = Habit(n_back, mutation_rate)
        # A wish to go back some steps is about trajectories.
        self._rows = row_operators(environment) if n_back is None else None
        self.population_size, self.tournament_size = population_size, tournament_size
        self.crossover_rate, self.n_kept = crossover_rate, n_kept
        self.log_reward_floor = log_reward_floor
        self.n_steps, self.batch_size = n_steps, batch_size
        self.states = environment.initial_states(0)
        """The best candidates asked in the last `train`, best first, all different; `(k, w)`."""
        self.log_reward = torch.zeros(0, dtype=torch.float64, device=self.states.device)
        """Their log rewards `(k,)`."""
        self._device = self.states.device
        self._generator = torch.Generator(self._device).manual_seed(seed)

    def train(
        self,
        log_reward: LogReward,
        n_steps: int | None = None,
        batch_size: int | None = None,
        *,
        seed: int | None = None,
        examples: Tensor | None = None,
        example_fraction: float = 0.0,
        on_step: Callable[[int, float], None] | None = None,
    ) -> list[float]:
        """Breed up to `n_steps` generations; minus the population's mean log reward after each.

        Each asks for the rewards of `batch_size` candidates; fewer, where no more new ones are
        found, and none ends the training. The first generation is `example_fraction` candidates
        from `examples` `(m, w)`, up to half of it the best of the last training, whose
        rewards may be others now, and random ones. `seed` restarts the random stream.
        ValueError when a log reward is NaN or +inf, RuntimeError when `log_reward` raises: the
        message names the candidate.
        """
        n_steps = self.n_steps if n_steps is None else n_steps
        batch_size = self.batch_size if batch_size is None else batch_size
        n_examples = n_examples_of(batch_size, examples, example_fraction)
        check_examples(self.environment, examples)
        ask = checked(self.environment, log_reward, self.log_reward_floor)
        if seed is not None:
            self._generator.manual_seed(seed)
        losses: list[float] = []
        if n_steps < 1:
            return losses
        asked = _Asked(self.states)
        children = asked.new(self._first_generation(batch_size, examples, n_examples))
        self.states, self.log_reward = self.states[:0], self.log_reward[:0]
        while len(children) > 0:
            self._take_in(children, ask(children))
            losses.append(-float(self.log_reward[: self.population_size].mean()))
            if on_step is not None:
                on_step(len(losses) - 1, losses[-1])
            if len(losses) == n_steps:
                break
            children = self._next_generation(batch_size, asked)
        return losses

    def sample(
        self, n: int, seed: int | None = None, *, where: Mapping[str, Any] | None = None
    ) -> Tensor:
        """The n best different candidates met in training, `(n, w)`, best first.

        Those that `where` restricts the space to. Where fewer were met, descendants of the
        population that were never asked (and may be equal) follow, with a `seed` the same ones
        every time; they grow inside the restriction, as alike to their parents as it allows.
        """
        generator = self._generator
        if seed is not None:
            generator = torch.Generator(self._device).manual_seed(seed)
        if not where:
            met, space = self.states[:n], self.environment
        else:
            space = self.environment.restricted(where)
            met = self.states[is_inside(space, self.states, generator)][:n]
        n_left = n - len(met)
        if n_left == 0:
            return met.clone()
        if len(self.states) == 0:
            return random_states(space, n, generator)
        more = self._children(n_left, generator, self.population_size)
        if where:
            more = grown_inside(space, more, self.habit, generator)
        return torch.cat([met, more])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that goes on into another training; the file appears whole or not at all."""
        content = {
            "shape": self._shape(),
            "states": self.states.clone(),
            "log_reward": self.log_reward.clone(),
            "generator": self._generator.get_state(),
        }
        write(path, content)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from what `save` wrote, bit for bit. ValueError for another space or sampler."""
        content = read(path, self._shape(), self._device)
        self.states, self.log_reward = content["states"], content["log_reward"]
        self._generator.set_state(content["generator"].cpu())

    def _shape(self) -> dict[str, Any]:
        return {
            "sampler": "genetic",
            "n_columns": self.states.shape[1],
            "n_actions": self.environment.n_actions,
        }

    def _first_generation(self, n: int, examples: Tensor | None, n_examples: int) -> Tensor:
        parts = [self.states[: min((n + 1) // 2, n - n_examples)]]
        if examples is not None and n_examples > 0:
            drawn = torch.randperm(len(examples), generator=self._generator, device=self._device)[
                :n_examples
            ]
            parts.append(examples.to(self._device)[drawn])
        n_left = n - sum(len(part) for part in parts)
        parts.append(random_states(self.environment, n_left, self._generator))
        return torch.cat(parts)

    def _next_generation(self, n: int, asked: _Asked) -> Tensor:
        """Up to n candidates that were not asked before.

        Children of the population; where these are too few, of all that are kept, then random ones.
        """
        generator = self._generator
        attempts: tuple[Callable[[int], Tensor], ...] = (
            lambda m: self._children(m, generator, self.population_size),
            lambda m: self._children(m, generator, self.n_kept),
            lambda m: random_states(self.environment, m, generator),
        )
        parts, n_left = [self.states[:0]], n
        for attempt in attempts:
            parts.append(asked.new(attempt(_SURPLUS * n_left), n_left))
            n_left -= len(parts[-1])
            if n_left == 0:
                break
        return torch.cat(parts)

    def _children(self, n: int, generator: torch.Generator, n_best: int) -> Tensor:
        """N children of parents that won their tournaments among the `n_best`."""
        first, second = (self._parents(n, generator, n_best) for _ in range(2))
        draws = torch.rand(n, generator=generator, device=self._device)
        is_crossed = draws < self.crossover_rate
        if self._rows is not None:
            children = self._rows.crossed(first, second, generator)
            mutants = self._rows.mutated(first, self.habit.mutation_rate, generator)
            return torch.where(is_crossed[:, None], children, mutants)
        return bred(self.environment, first, second, is_crossed, self.habit, generator)

    def _parents(self, n: int, generator: torch.Generator, n_best: int) -> Tensor:
        """Winners of n tournaments; the candidates stand best first."""
        size = min(n_best, len(self.states))
        shape = (n, self.tournament_size)
        drawn = torch.randint(size, shape, generator=generator, device=self._device)
        return self.states[drawn.amin(dim=1)]

    def _take_in(self, states: Tensor, log_reward: Tensor) -> None:
        states = torch.cat([self.states, states])
        log_reward = torch.cat([self.log_reward, log_reward])
        order = log_reward.argsort(descending=True, stable=True)[: self.n_kept]
        self.states, self.log_reward = states[order], log_reward[order]


class _Asked:
    """The candidates asked so far, by a 64-bit hash of their rows."""

    def __init__(self, like: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        draws = torch.randint(-(2**62), 2**62, (like.shape[1],), generator=generator)
        self._multipliers = (draws | 1).to(like.device)
        self._codes = torch.zeros(0, dtype=torch.int64, device=like.device)

    def new(self, states: Tensor, n: int | None = None) -> Tensor:
        """The first n of `states` that were not asked, nor stand here before; now they are."""
        # The bits of real numbers; adding 0 makes -0 and 0 the same.
        bits = (states + 0.0).view(torch.int64) if states.is_floating_point() else states
        bits = bits ^ (bits >> 32)  # low bits of a real number are mostly zeros
        codes = (bits * self._multipliers).sum(dim=1)
        distinct, which = torch.unique(codes, return_inverse=True)
        places = torch.arange(len(codes), device=codes.device)
        first = places.new_full((len(distinct),), len(codes))
        first.scatter_reduce_(0, which, places, "amin")
        is_new = (first[which] == places) & ~torch.isin(codes, self._codes)
        kept = is_new.nonzero()[:n, 0]
        self._codes = torch.cat([self._codes, codes[kept]])
        return states[kept]


def _check(population_size: int, tournament_size: int, crossover_rate: float, n_kept: int) -> None:
    """ValueError for an option that cannot be."""
    for name, value in (("population_size", population_size), ("tournament_size", tournament_size)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if not 0 <= crossover_rate <= 1:
        raise ValueError(f"crossover_rate: expected a share from 0 to 1, got {crossover_rate}")
    if n_kept < population_size:
        raise ValueError(
            f"n_kept: expected at least population_size = {population_size}, got {n_kept}"
        )

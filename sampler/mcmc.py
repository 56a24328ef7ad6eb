"""Markov chain Monte Carlo with the interface of a sampler, over any space.

Named axes: n candidates or chains, w state columns.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sampler.asking import LogReward, checked
from sampler.baselines import random_states
from sampler.checkpoint import read, write
from sampler.environment import Environment
from sampler.options import check_examples, n_examples_of
from sampler.variation import Habit, grown_inside, is_inside, mutated


class Mcmc:
    """Parallel Metropolis-Hastings chains whose samples approach R(x)^β / Z.

    A proposal goes some steps back along a random trajectory to the candidate and forward again,
    mostly as before (back-and-forth, Zhang et al. 2022, arXiv 2202.01361). Both ways
    are trajectories of known density, so the acceptance is exact, for the pair of them:
    min(1, R(x')^β q(τ | x') / (R(x)^β q(τ' | x))). Any candidate can be reached in one proposal.
    In a continuous space the reward is a density over the states, as for a `GFlowNet`.

    `n_chains`: how many; `beta`: the exponent of the reward, an inverse temperature.
    `n_back`, `mutation_rate`: how far a proposal goes, see `sampler.variation.Habit`; a
    mutation_rate of 1 is the proposal of the paper. With an `n_back` of exactly 1 a chain cannot
    go everywhere.
    `burn_in`: the share of each training whose states are not kept. Of the others as many as
    `n_kept` are (those of all chains at every so many steps), which `sample` draws from.
    `n_steps` of a `train` whose caller does not name it: n_steps · n_chains rewards are asked for.
    `log_reward_floor`: log rewards below it, -inf included, count as it.
    """

    is_baseline = True
    """A rival in races: a campaign adds nothing to what it draws."""

    def __init__(
        self,
        environment: Environment,
        seed: int = 0,
        *,
        n_chains: int = 64,
        n_back: float | None = None,
        mutation_rate: float | None = None,
        beta: float = 1.0,
        burn_in: float = 0.5,
        n_kept: int = 10_000,
        log_reward_floor: float = -100.0,
        n_steps: int = 1000,
    ) -> None:
        _check(n_chains, beta, burn_in, n_kept)
        self.environment = environment
        self.habit = Habit(n_back, mutation_rate)
        self.n_chains, self.beta, self.burn_in, self.n_kept = n_chains, beta, burn_in, n_kept
        self.log_reward_floor, self.n_steps = log_reward_floor, n_steps
        self.chains = environment.initial_states(0)
        """Where the chains stand, `(n_chains, w)`; none before the first training."""
        self.kept = self.chains
        """States of the chains after burn-in, `(k, w)`."""
        self.acceptance_rate = 0.0
        """The share of the last training's proposals that were accepted."""
        self._device = self.chains.device
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
        """Move the chains `n_steps` - 1 times; minus their mean log reward at each step.

        The first step asks where they stand, since the reward may be another one than in the
        training before, whose samples are forgotten. `batch_size` is the number of chains, which
        go on from where they were; further ones begin at random. A share `example_fraction` of
        the chains begins in candidates from `examples` `(m, w)`. `seed` restarts the random stream.
        ValueError when a log reward is NaN or +inf, RuntimeError when `log_reward` raises: the
        message names the candidate.
        """
        n_steps = self.n_steps if n_steps is None else n_steps
        n_chains = self.n_chains if batch_size is None else batch_size
        n_examples = n_examples_of(n_chains, examples, example_fraction)
        check_examples(self.environment, examples)
        ask = checked(self.environment, log_reward, self.log_reward_floor)
        if seed is not None:
            self._generator.manual_seed(seed)
        if n_steps < 1:
            return []
        self.chains = self._started(n_chains, examples, n_examples)
        rewards = ask(self.chains)
        is_kept = self._kept_steps(n_steps, n_chains)
        kept, losses, n_accepted = [], [], 0
        for step in range(n_steps):
            if step > 0:
                rewards, n_moved = self._move(rewards, ask)
                n_accepted += n_moved
            if is_kept(step):
                kept.append(self.chains)
            losses.append(-float(rewards.mean()))
            if on_step is not None:
                on_step(step, losses[-1])
        self.kept = torch.cat(kept)
        self.acceptance_rate = n_accepted / max(1, (n_steps - 1) * n_chains)
        return losses

    def sample(
        self, n: int, seed: int | None = None, *, where: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Draw n terminal states `(n, w)` from those that the chains passed through.

        None of these comes again before each has come. With a `seed` the answer depends on them and
        it alone. Those inside the restriction `where` follow the distribution given it; if they
        are fewer than n, the rest is grown inside it, as alike to others as it allows (UserWarning:
        these follow no known distribution). An untrained sampler draws as `Random` does.
        """
        generator = self._generator
        if seed is not None:
            generator = torch.Generator(self._device).manual_seed(seed)
        space = self.environment.restricted(where) if where else self.environment
        if len(self.kept) == 0:
            return random_states(space, n, generator)
        if not where:
            return _drawn(self.kept, n, generator)
        inside = self.kept[is_inside(space, self.kept, generator)]
        if len(inside) >= n:
            return _drawn(inside, n, generator)
        warnings.warn(
            f"where: of {len(self.kept)} states that the chains passed through, {len(inside)} are "
            f"inside this restriction; the other {n - len(inside)} of the {n} wanted are grown "
            "inside it from states near by; train with more n_steps, or keep more with n_kept",
            stacklevel=2,
        )
        seeds = _drawn(self.kept, n - len(inside), generator)
        return torch.cat([inside, grown_inside(space, seeds, self.habit, generator)])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that goes on into another training; the file appears whole or not at all."""
        content = {
            "shape": self._shape(),
            "chains": self.chains.clone(),
            "kept": self.kept.clone(),
            "acceptance_rate": self.acceptance_rate,
            "generator": self._generator.get_state(),
        }
        write(path, content)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from what `save` wrote, bit for bit. ValueError for another space or sampler."""
        content = read(path, self._shape(), self._device)
        self.chains, self.kept = content["chains"], content["kept"]
        self.acceptance_rate = content["acceptance_rate"]
        self._generator.set_state(content["generator"].cpu())

    def _shape(self) -> dict[str, Any]:
        return {
            "sampler": "mcmc",
            "n_columns": self.chains.shape[1],
            "n_actions": self.environment.n_actions,
        }

    def _started(self, n: int, examples: Tensor | None, n_examples: int) -> Tensor:
        """Where n chains begin: in examples, then where they were, then at random."""
        begun = self.chains[:0]
        if examples is not None and n_examples > 0:
            begun = _drawn(examples.to(self._device), n_examples, self._generator)
        begun = torch.cat([begun, self.chains])[:n]
        return torch.cat([begun, random_states(self.environment, n - len(begun), self._generator)])

    def _kept_steps(self, n_steps: int, n_chains: int) -> Callable[[int], bool]:
        """Which steps' states are kept: evenly many after burn-in, the last one among them."""
        n_after = max(1, n_steps - int(self.burn_in * n_steps))
        every = math.ceil(n_after * n_chains / self.n_kept)
        return lambda step: step >= n_steps - n_after and (n_steps - 1 - step) % every == 0

    def _move(self, rewards: Tensor, ask: LogReward) -> tuple[Tensor, int]:
        """Propose and accept or not, in every chain; rewards of where they are now, and how many.

        Metropolis-Hastings: Hastings 1970, Biometrika 57, 97.
        """
        proposal = mutated(
            self.environment, self.chains, self.habit, self._generator, has_ratio=True
        )
        proposed = ask(proposal.states)
        log_acceptance = self.beta * (proposed - rewards) + proposal.log_ratio
        draws = torch.rand(
            len(rewards), generator=self._generator, dtype=torch.float64, device=self._device
        )
        is_accepted = draws.log() < log_acceptance
        self.chains = torch.where(is_accepted[:, None], proposal.states, self.chains)
        return torch.where(is_accepted, proposed, rewards), int(is_accepted.sum())


def _drawn(states: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """N of `states`, each as often as any other, give or take one; in random order."""
    if n == 0:
        return states[:0]
    orders = [
        torch.randperm(len(states), generator=generator, device=states.device)
        for _ in range(math.ceil(n / len(states)))
    ]
    return states[torch.cat(orders)[:n]]


def _check(n_chains: int, beta: float, burn_in: float, n_kept: int) -> None:
    """ValueError for an option that cannot be."""
    for name, value in (("n_chains", n_chains), ("n_kept", n_kept)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if not 0 < beta < math.inf:
        raise ValueError(f"beta: expected above 0, got {beta}")
    if not 0 <= burn_in < 1:
        raise ValueError(f"burn_in: expected a share from 0 to below 1, got {burn_in}")

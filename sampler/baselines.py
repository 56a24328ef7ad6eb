"""Samplers that learn nothing: what a GFlowNet has to beat."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sampler.environment import Environment
from sampler.policy import masked_log_softmax
from sampler.rollout import Behaviour, roll_out


class Random:
    """Draws candidates at random and learns nothing; the interface of `GFlowNet`.

    Evenly over the candidates where the space can (`Environment.random_states`); else, and under a
    restriction, a uniformly random allowed action at every state, by which a candidate behind many
    choices, or few alternatives, is more or less likely than another.
    """

    is_baseline = True
    """A rival in races: a campaign adds nothing to what it draws."""

    def __init__(self, environment: Environment, seed: int = 0) -> None:
        self.environment = environment
        self._generator = torch.Generator().manual_seed(seed)

    def train(
        self,
        log_reward: Callable[[Tensor], Tensor],
        n_steps: int | None = None,
        batch_size: int | None = None,
        *,
        seed: int | None = None,
        examples: Tensor | None = None,
        example_fraction: float = 0.0,
        on_step: Callable[[int, float], None] | None = None,
    ) -> list[float]:
        """Nothing to learn: takes what `GFlowNet.train` takes, returns no losses."""
        return []

    def sample(
        self, n: int, seed: int | None = None, *, where: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Draw n terminal states `(n, w)`, those that `where` restricts the space to.

        With a `seed`, the same ones every time.
        """
        generator = self._generator if seed is None else torch.Generator().manual_seed(seed)
        return random_states(
            self.environment.restricted(where) if where else self.environment, n, generator
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Nothing was learned, so nothing is written."""

    def load(self, path: str | os.PathLike[str]) -> None:
        """Nothing was learned, so nothing is read."""

    def log_forward(self, states: Tensor) -> Tensor:
        """Return log P_F of a uniformly random allowed action, `(n, a)`."""
        mask = self.environment.forward_mask(states)
        return masked_log_softmax(torch.zeros(mask.shape), mask)


def random_states(environment: Environment, n: int, generator: torch.Generator) -> Tensor:
    """N candidates: spread evenly where the space can do that, else by random actions."""
    drawn = environment.random_states(n, generator)
    if drawn is not None:
        return drawn
    return roll_out(environment, _nothing, n, generator, Behaviour()).terminal_states


def _nothing(states: Tensor, rows: Tensor) -> Tensor:
    return states

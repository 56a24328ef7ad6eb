"""How a rollout chooses: random numbers, masks, and what is wrong when a choice is not allowed.

Named axes: m rows, a actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sampler.activations import Floats


@dataclass(frozen=True)
class Behaviour:
    """How actions are drawn from the policy's outputs.

    `exploration`: the probability of a uniformly random action (and amount). `temperature`: logits
    are divided by it. `logits`, `mixture`: where in the outputs they are found; None: uniform.
    """

    logits: Callable[[Tensor], Tensor] | None = None
    mixture: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None
    exploration: float = 0.0
    temperature: float = 1.0


class Noise:
    """Random numbers for the choices of a rollout, drawn for several steps at once."""

    _AT_ONCE = 4096

    def __init__(self, n_actions: int, generator: torch.Generator, exploration: float) -> None:
        self._n_actions, self.generator, self._exploration = n_actions, generator, exploration
        self.never = torch.tensor(-math.inf, device=generator.device)
        self._gumbel: list[Tensor] = []
        self._keeps: list[Tensor] = []
        self._arrays: list[Floats] = []
        self._keep_arrays: list[Floats] = []

    def draw(self, m: int) -> tuple[Tensor, Tensor | None]:
        """Negative Gumbel variates `(m, a)`, and 0 for rows that explore, else 1, `(m, 1)`."""
        if not self._gumbel or len(self._gumbel[-1]) < m:
            self._refill(m)
        gumbel = self._gumbel.pop()
        keeps = self._keeps.pop() if self._exploration > 0 else None
        if len(gumbel) > m:
            return gumbel[:m], None if keeps is None else keeps[:m]
        return gumbel, keeps

    def draw_here(self, m: int) -> tuple[Floats, Floats | None]:
        """The same as arrays, on the CPU."""
        if not self._gumbel or len(self._gumbel[-1]) < m:
            self._refill(m)
            self._arrays = [gumbel.numpy() for gumbel in self._gumbel]
            self._keep_arrays = [keeps.numpy() for keeps in self._keeps]
        self._gumbel.pop()
        gumbel = self._arrays.pop()[:m]
        if self._exploration <= 0:
            return gumbel, None
        self._keeps.pop()
        return gumbel, self._keep_arrays.pop()[:m]

    def _refill(self, m: int) -> None:
        n_steps = max(1, min(16, self._AT_ONCE // max(1, m * self._n_actions)))
        device = self.generator.device
        drawn = torch.empty(n_steps, m, self._n_actions, device=device)
        # The logarithm of an exponential variate is a negative Gumbel variate.
        drawn.exponential_(generator=self.generator).log_()
        self._gumbel = list(drawn.unbind(0))
        if self._exploration > 0:
            uniform = torch.rand(n_steps, m, 1, generator=self.generator, device=device)
            self._keeps = list((uniform >= self._exploration).float().unbind(0))


def choose(outputs: Tensor, mask: Tensor, noise: Noise, behaviour: Behaviour) -> Tensor:
    """One allowed action a row, `(m,)`, by the Gumbel-max trick: argmax of logits + Gumbel noise.

    Where none is allowed the answer is arbitrary: see `check_choices`.
    """
    gumbel, keeps = noise.draw(len(mask))
    if behaviour.logits is None:
        scores = gumbel.neg()
    else:
        logits = behaviour.logits(outputs)
        if behaviour.temperature != 1.0:
            logits = logits / behaviour.temperature
        if keeps is not None:
            logits = logits * keeps
        scores = logits - gumbel
    return torch.where(mask, scores, noise.never).argmax(dim=1)


def check_choices(states: Tensor, masks: Tensor, actions: Tensor) -> None:
    """RuntimeError, naming the state, where a chosen action was not allowed."""
    if len(actions) == 0:
        return
    is_allowed = masks.gather(1, actions[:, None])[:, 0]
    if not bool(is_allowed.all()):
        row = int((~is_allowed).nonzero()[0])
        state = states[row].tolist()
        if bool(masks[row].any()):
            raise RuntimeError(
                f"the policy's logits are not finite in the state {state}: training diverged, "
                "take a lower learning_rate"
            )
        raise RuntimeError(f"dead end: the state {state} allows no action")


def check_length(max_steps: int, n_steps: int, states: Tensor) -> None:
    """RuntimeError, naming a state, when trajectories go on after `max_steps` steps."""
    if n_steps >= max_steps and len(states) > 0:
        raise RuntimeError(
            f"a trajectory is longer than max_steps = {max_steps}, "
            f"in the state {states[0].tolist()}"
        )

"""Asking a reward function, and naming the candidate where it goes wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sampler.environment import Environment

LogReward = Callable[[Tensor], Tensor]
"""From terminal states `(n, w)` to log rewards `(n,)`."""


def checked(environment: Environment, log_reward: LogReward, floor: float) -> LogReward:
    """`log_reward` in float64, values below `floor` (-inf included) raised to it.

    ValueError when a value is NaN or +inf, or the shape is not `(n,)`; RuntimeError when the
    function raises. Both name the first candidate concerned.
    """
    home = environment.initial_states(0).device

    def ask(states: Tensor) -> Tensor:
        device, states = states.device, states.to(home)
        try:
            values = torch.as_tensor(log_reward(states)).detach().to(device).double()
        except Exception as error:
            culprit = _culprit(environment, log_reward, states)
            raise RuntimeError(
                f"log_reward raised {type(error).__name__}: {error}, for candidate {culprit}"
            ) from error
        if values.shape != (len(states),):
            raise ValueError(
                f"log_reward: expected shape ({len(states)},), got {tuple(values.shape)}"
            )
        is_bad = values.isnan() | (values == torch.inf)
        if bool(is_bad.any()):
            worst = int(is_bad.nonzero()[0])
            key = environment.keys(states[worst : worst + 1])[0]
            raise ValueError(
                f"log_reward: expected a finite number or -inf, got {values[worst].item()} "
                f"for candidate {key!r}"
            )
        return values.clamp_min(floor)

    return ask


def _culprit(environment: Environment, log_reward: LogReward, states: Tensor) -> str:
    """The key of the first state that `log_reward` cannot take alone."""
    for i in range(len(states)):
        try:
            log_reward(states[i : i + 1])
        except Exception:
            return repr(environment.keys(states[i : i + 1])[0])
    return f"no single one: only for all {len(states)} of the batch together"

"""What was found before, to be trained on again: the best terminal states, all different."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sampler.environment import Environment
from sampler.rows import unique_rows

ReplayKind = Literal["reward_ranked", "prioritized"]
_TOP_SHARE = 0.1
_OPTIONS = ("kind", "capacity", "fraction", "min_distance", "exponent")


class Replay:
    """The `capacity` terminal states of highest reward so far, no two equal.

    `kind`: "reward_ranked" draws half from the best tenth and half from the rest (Shen et al. 2023,
    arXiv 2305.07170, section 4.1); "prioritized" draws in proportion to R^`exponent`. `fraction`:
    the share of a training batch that is drawn from here, see `n_of`. `min_distance`: a state is
    kept only if no better one lies within this Euclidean distance of its features, so that one mode
    does not fill the buffer. Drawn states are trained on along trajectories of the backward policy.
    """

    def __init__(
        self,
        environment: Environment,
        kind: ReplayKind = "reward_ranked",
        capacity: int = 1000,
        fraction: float = 0.25,
        min_distance: float = 0.0,
        exponent: float = 1.0,
    ) -> None:
        if kind not in get_args(ReplayKind):
            raise ValueError(f"replay kind: expected {get_args(ReplayKind)}, got {kind!r}")
        if capacity < 1:
            raise ValueError(f"replay capacity: expected at least 1, got {capacity}")
        if not 0 <= fraction <= 1:
            raise ValueError(f"replay fraction: expected a share from 0 to 1, got {fraction}")
        if min_distance < 0:
            raise ValueError(f"replay min_distance: expected 0 or more, got {min_distance}")
        self.kind, self.capacity, self.fraction = kind, capacity, fraction
        self.min_distance, self.exponent = min_distance, exponent
        self._environment = environment
        self.states = environment.initial_states(0)
        self.log_reward = torch.zeros(0, dtype=torch.float64, device=self.states.device)

    def __len__(self) -> int:
        return len(self.states)

    def n_of(self, n: int, n_taken: int = 0) -> int:
        """How many of a batch of n are drawn from here, where `n_taken` are taken by examples.

        The nearest whole number to `fraction` · n, at least one if `fraction` is above zero, and
        at most one less than what the examples leave: one trajectory comes from the policy, or the
        buffer would hear of nothing new. So a `fraction` of 1 means all but one, and where there is
        room for one alone, or nothing was found yet, none comes from here.
        """
        if len(self) == 0 or self.fraction == 0:
            return 0
        wanted = max(1, math.floor(self.fraction * n + 0.5))
        return max(0, min(wanted, n - n_taken - 1))

    def add(self, states: Tensor, log_reward: Tensor) -> None:
        """Take in terminal states `(m, w)` with their log rewards `(m,)`."""
        if len(self) == self.capacity:
            is_better = log_reward > self.log_reward[-1]
            states, log_reward = states[is_better], log_reward[is_better]
        if len(states) == 0:
            return
        states = torch.cat([self.states, states])
        log_reward = torch.cat([self.log_reward, log_reward])
        order = log_reward.argsort(descending=True, stable=True)
        states, log_reward = states[order], log_reward[order]
        keep = _is_first(states)
        states, log_reward = states[keep], log_reward[keep]
        if self.min_distance > 0:
            keep = self._spread(states)
            states, log_reward = states[keep], log_reward[keep]
        self.states, self.log_reward = states[: self.capacity], log_reward[: self.capacity]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """N terminal states `(n, w)`, some perhaps more than once."""
        if self.kind == "prioritized":
            weights = (self.exponent * (self.log_reward - self.log_reward.max())).exp()
            return self.states[torch.multinomial(weights, n, True, generator=generator)]
        n_top = max(1, round(_TOP_SHARE * len(self)))
        device = self.states.device
        top = torch.randint(n_top, (n,), generator=generator, device=device)
        rest = torch.randint(
            min(n_top, len(self) - 1), len(self), (n,), generator=generator, device=device
        )
        is_top = torch.rand(n, generator=generator, device=device) < 0.5
        return self.states[torch.where(is_top, top, rest)]

    def rescore(self, log_reward: Callable[[Tensor], Tensor]) -> None:
        """Give the states their rewards of today, which another round may have changed."""
        if len(self) > 0:
            values = log_reward(self.states)
            order = values.argsort(descending=True, stable=True)
            self.states, self.log_reward = self.states[order], values[order]

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs, in memory of its own: what is kept is a slice of more."""
        return {"states": self.states.clone(), "log_reward": self.log_reward.clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        device = self.states.device
        self.states, self.log_reward = state["states"].to(device), state["log_reward"].to(device)

    def _spread(self, states: Tensor) -> Tensor:
        """Which of the states, best first, lie far enough from every better one that is kept."""
        features = self._environment.features(states)
        is_near = torch.cdist(features, features) < self.min_distance
        is_kept = torch.ones(len(states), dtype=torch.bool, device=states.device)
        for i in is_near.triu(1).any(dim=1).nonzero()[:, 0].tolist():
            if bool(is_kept[i]):
                is_kept[i + 1 :] &= ~is_near[i, i + 1 :]
        return is_kept


def _is_first(states: Tensor) -> Tensor:
    """Which rows equal no row before them, `(m,)` bool."""
    if states.is_floating_point():  # whose columns `unique_rows` would have to rank one by one
        distinct, index = torch.unique(states, dim=0, return_inverse=True)
    else:
        distinct, index = unique_rows(states)
    places = torch.arange(len(states), device=states.device)
    first = places.new_full((len(distinct),), len(states))
    first.scatter_reduce_(0, index, places, "amin")
    return first[index] == places


def make_replay(environment: Environment, options: Mapping[str, Any] | None) -> Replay | None:
    """A buffer from the options of a config, None without any. ValueError for an unknown one."""
    if options is None:
        return None
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ValueError(f"replay: unknown option {unknown[0]!r}; expected {', '.join(_OPTIONS)}")
    return Replay(environment, **options)

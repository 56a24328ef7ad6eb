"""The trajectories of a training step: from the policy, examples, replay and local search.

Named axes: n trajectories, w state columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sampler.activations import QUIET, Activations
from sampler.balance import Batch, inputs_of
from sampler.environment import Environment
from sampler.policy import Policy
from sampler.replay import Replay
from sampler.rollout import (
    Behaviour,
    Outputs,
    Trajectories,
    forward_order,
    joined,
    roll_back,
    roll_out,
)
from sampler.spelled import roll_out_spelled
from sampler.spelling import spelling_of
from sampler.tabulated import Table, roll_out_tabulated

Acceptance = Literal["greedy", "stochastic"]
_N_GROUPS = 8


@dataclass(frozen=True)
class LocalSearch:
    """Improve sampled candidates by going back and forth (Kim et al. 2024, arXiv 2310.02710).

    `n_rounds` times a trajectory is taken back by the share `back` of the batch's mean length with
    the backward policy, and completed anew with the forward policy. "greedy" keeps the better of
    both, "stochastic" the new one with probability min(1, R(x') / R(x)), of R^β with `beta_range`.
    The candidates that remain are trained on along trajectories of the backward policy.
    """

    n_rounds: int = 4
    back: float = 0.5
    acceptance: Acceptance = "greedy"

    def __post_init__(self) -> None:
        if self.n_rounds < 1 or not 0 < self.back <= 1:
            raise ValueError(
                "local_search: expected n_rounds of 1 or more and back above 0 up to 1, "
                f"got {self.n_rounds} and {self.back}"
            )
        if self.acceptance not in get_args(Acceptance):
            raise ValueError(
                f"local_search acceptance: expected {get_args(Acceptance)}, got {self.acceptance!r}"
            )


def beta_of(beta_range: tuple[float, float], conditions: Tensor) -> Tensor:
    """The exponents of the reward, float64 `(n,)`, that conditions from -1 to 1 stand for."""
    low, high = map(math.log, beta_range)
    return (low + (conditions.double() + 1) / 2 * (high - low)).exp()


def make_local_search(options: Mapping[str, Any] | None) -> LocalSearch | None:
    """From the options of a config, None without any. ValueError for an unknown one."""
    if options is None:
        return None
    unknown = sorted(set(options) - set(LocalSearch.__dataclass_fields__))
    if unknown:
        expected = ", ".join(LocalSearch.__dataclass_fields__)
        raise ValueError(f"local_search: unknown option {unknown[0]!r}; expected {expected}")
    return LocalSearch(**options)


@dataclass(frozen=True)
class Sources:
    """How many trajectories of a batch come from where; the rest comes from the policy."""

    n: int
    examples: Tensor | None = None
    n_examples: int = 0


class Collector:
    """Draws the batches that a policy is trained on."""

    def __init__(
        self,
        environment: Environment,
        policy: Policy,
        generator: torch.Generator,
        replay: Replay | None,
        local_search: LocalSearch | None,
        beta_range: tuple[float, float] | None,
        *,
        merges_states: bool = True,
    ) -> None:
        self.merges_states = merges_states
        self.environment, self.policy, self.generator = environment, policy, generator
        self.replay, self.local_search, self.beta_range = replay, local_search, beta_range
        self.activations = Activations(policy.widths, generator.device)
        self.table: Table | None = None
        self.spelling = spelling_of(environment, generator.device)

    @torch.no_grad()
    @QUIET
    def collect(
        self,
        sources: Sources,
        behaviour: Behaviour,
        log_reward: Callable[[Tensor], Tensor],
    ) -> tuple[Batch, Tensor]:
        """A batch of `sources.n` trajectories, and their rewards `(n,)` before any temperature."""
        self.activations.clear()
        n_replayed = 0
        if self.replay is not None:
            n_replayed = self.replay.n_of(sources.n, sources.n_examples)
        n_drawn = sources.n - sources.n_examples - n_replayed
        conditions, groups = self._conditions(sources.n)
        parts = []
        if n_drawn > 0:
            parts.append(self._drawn(n_drawn, conditions, behaviour))
        offset = n_drawn
        for states in self._known_ends(sources, n_replayed):
            told = None if conditions is None else conditions[offset : offset + len(states)]
            parts.append(self._back_from(states, told))
            offset += len(states)
        batch = Batch(forward_order(joined(parts)), conditions, groups)
        rewards = log_reward(batch.trajectories.terminal_states)
        if self.replay is not None and n_drawn > 0:
            self.replay.add(batch.trajectories.terminal_states[:n_drawn], rewards[:n_drawn])
        if self.local_search is None or n_drawn == 0:
            return batch, rewards
        return self._with_local_search(batch, rewards, behaviour, log_reward, n_drawn)

    def _drawn(self, n: int, conditions: Tensor | None, behaviour: Behaviour) -> Trajectories:
        """Draw trajectories from the policy, whose answers stay in `activations`."""
        if self.table is not None and conditions is None:
            return roll_out_tabulated(
                self.table,
                lambda inputs: self.policy.run(inputs, self.activations),
                n,
                self.generator,
                behaviour,
                can_merge=self.merges_states,
            )
        if self.spelling is not None:
            start = self.environment.initial_states(n)
            is_shared = self.merges_states and conditions is None
            return roll_out_spelled(
                self.spelling,
                self.policy,
                self.activations,
                start,
                inputs_of(self.environment, start[:1] if is_shared else start, conditions),
                self.generator,
                behaviour,
            )
        return roll_out(
            self.environment,
            self._remembered(conditions),
            n,
            self.generator,
            behaviour,
            can_merge=self.merges_states and conditions is None,
        )

    def _known_ends(self, sources: Sources, n_replayed: int) -> list[Tensor]:
        """Terminal states whose trajectories are drawn backward."""
        ends = []
        if sources.examples is not None and sources.n_examples > 0:
            drawn = torch.randint(
                len(sources.examples),
                (sources.n_examples,),
                generator=self.generator,
                device=self.generator.device,
            )
            ends.append(sources.examples[drawn])
        if self.replay is not None and n_replayed > 0:
            ends.append(self.replay.draw(n_replayed, self.generator))
        return ends

    def _conditions(self, n: int) -> tuple[Tensor | None, Tensor | None]:
        """A position from -1 to 1 in the range of β a trajectory, equal within its group."""
        if self.beta_range is None:
            return None, None
        device = self.generator.device
        n_groups = min(_N_GROUPS, max(1, n // 2))
        drawn = torch.rand(n_groups, generator=self.generator, device=device) * 2 - 1
        groups = torch.arange(n, device=device) % n_groups
        return drawn[groups], groups

    def _remembered(self, conditions: Tensor | None) -> Outputs:
        def outputs(states: Tensor, rows: Tensor) -> Tensor:
            told = None if conditions is None else conditions[rows]
            return self.policy.run(inputs_of(self.environment, states, told), self.activations)

        return outputs

    def _back_from(self, states: Tensor, conditions: Tensor | None) -> Trajectories:
        return roll_back(
            self.environment,
            states,
            backward_outputs(self.environment, self.policy, conditions),
            self.generator,
            Behaviour(logits=self.policy.backward_logits),
        )

    def _with_local_search(
        self,
        batch: Batch,
        rewards: Tensor,
        behaviour: Behaviour,
        log_reward: Callable[[Tensor], Tensor],
        n_drawn: int,
    ) -> tuple[Batch, Tensor]:
        """The batch, and as many trajectories again that end where local search led to."""
        assert self.local_search is not None  # noqa: S101
        conditions = None if batch.conditions is None else batch.conditions[:n_drawn]
        states, best = batch.trajectories.terminal_states[:n_drawn], rewards[:n_drawn]
        n_steps = len(batch.trajectories.rows) / len(batch.trajectories)
        n_back = max(1, math.ceil(self.local_search.back * n_steps))
        for _ in range(self.local_search.n_rounds):
            found = self._went_back_and_forth(states, conditions, n_back, behaviour)
            values = log_reward(found)
            is_taken = values > best
            if self.local_search.acceptance == "stochastic":
                drawn = torch.rand(len(best), generator=self.generator, device=best.device)
                gain = values - best
                if conditions is not None and self.beta_range is not None:
                    gain = gain * beta_of(self.beta_range, conditions)
                is_taken = drawn.double().log() < gain
            states = torch.where(is_taken[:, None], found, states)
            best = torch.where(is_taken, values, best)
        if self.replay is not None:
            self.replay.add(states, best)
        trajectories = joined([batch.trajectories, self._back_from(states, conditions)])
        if batch.conditions is None or batch.groups is None:
            return Batch(trajectories), torch.cat([rewards, best])
        told = torch.cat([batch.conditions, batch.conditions[:n_drawn]])
        groups = torch.cat([batch.groups, batch.groups[:n_drawn]])
        return Batch(trajectories, told, groups), torch.cat([rewards, best])

    def _went_back_and_forth(
        self, states: Tensor, conditions: Tensor | None, n_back: int, behaviour: Behaviour
    ) -> Tensor:
        back = forward_order(
            roll_back(
                self.environment,
                states,
                backward_outputs(self.environment, self.policy, conditions),
                self.generator,
                Behaviour(logits=self.policy.backward_logits),
                n_back,
            )
        )
        lengths = torch.bincount(back.rows, minlength=len(states))
        partial = back.states[back.ordered[lengths.cumsum(0) - lengths]]
        forward = forward_outputs(self.environment, self.policy, conditions)
        return roll_out(
            self.environment, forward, len(states), self.generator, behaviour, partial
        ).terminal_states


def forward_outputs(environment: Environment, policy: Policy, conditions: Tensor | None) -> Outputs:
    """The policy's outputs for states of trajectories with `conditions` `(n,)`."""

    def outputs(states: Tensor, rows: Tensor) -> Tensor:
        told = None if conditions is None else conditions[rows]
        return policy(inputs_of(environment, states, told))  # type: ignore[no-any-return]

    return outputs


def backward_outputs(
    environment: Environment, policy: Policy, conditions: Tensor | None
) -> Outputs | None:
    """The same for rolling back; None where the backward policy is uniform."""
    return forward_outputs(environment, policy, conditions) if policy.has_backward else None

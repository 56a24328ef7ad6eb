"""What a trained policy answers: samples, and how probable candidates are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sampler.balance import inputs_of
from sampler.collection import forward_outputs
from sampler.environment import Environment
from sampler.exact import TooManyStatesError, lookup, terminal_distribution
from sampler.losses import Need
from sampler.policy import Policy, masked_log_softmax
from sampler.probabilities import backward_log_ratio, log_ratio, summed_log_prob
from sampler.restricted_sampling import n_at_once, sample_restricted
from sampler.rollout import Behaviour, roll_out

_MAX_STATES_ENUMERATED = 50_000


class Sampling:
    """The part of a `GFlowNet` that asks its policy, or the average of its weights."""

    environment: Environment
    policy: Policy
    device: torch.device
    _outside: Environment
    _average: Policy | None
    _generator: torch.Generator
    _beta_range: tuple[float, float] | None
    _loss_needs: Need
    _merges_states: bool

    @property
    def _home(self) -> torch.device:
        """Where the caller's space has its states."""
        return self._outside.initial_states(0).device

    @property
    def log_z(self) -> float:
        """The learned log of Σ over candidates of R; of R^β with β as `sample` takes it."""
        return self.log_z_at(None)

    @torch.no_grad()
    def log_z_at(self, beta: float | None) -> float:
        """The learned log of Σ R^β; `beta` as `sample` takes it."""
        conditions = self._conditions(beta, 1)
        log_z = float(self.policy.log_z_at(conditions))
        if self._loss_needs not in ("log_flow", "edges"):
            return log_z
        states = self.environment.initial_states(1)
        outputs = self.policy(inputs_of(self.environment, states, conditions))
        if self._loss_needs == "log_flow":
            return log_z + float(self.policy.log_flow(outputs))
        mask = self.environment.forward_mask(states)
        logits = self.policy.forward_logits(outputs).masked_fill(~mask, -math.inf)
        return log_z + float(logits.double().logsumexp(dim=1))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        seed: int | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        beta: float | None = None,
        n_tries: int = 64,
    ) -> Tensor:
        """Draw n terminal states `(n, w)` from the trained policy, without exploration.

        With a `seed` the answer depends on the weights and it alone; without, the sampler's own
        stream moves on. `where` restricts the space, see the environment's `restricted`: up to
        `n_tries` times as many trajectories are drawn under its masks, and n of them kept such that
        they approach the trained distribution inside the restriction (UserWarning where these
        were too few). `beta`: the exponent of the reward, with `beta_range`.
        """
        generator = self._generator
        if seed is not None:
            generator = torch.Generator(self.device).manual_seed(seed)
        policy = self.policy if self._average is None else self._average
        if not all(bool(weight.isfinite().all()) for weight in policy.parameters()):
            raise RuntimeError(
                "the weights hold NaN or infinity: training diverged; take a lower learning_rate"
            )
        behaviour = Behaviour(policy.forward_logits, policy.amount_outputs)
        if where:
            restricted = self.environment.restricted(where)
            conditions = self._conditions(beta, n_at_once(n, n_tries))
            outputs = forward_outputs(self.environment, policy, conditions)
            found = sample_restricted(
                self.environment, restricted, outputs, n, n_tries, generator, behaviour
            )
            return found.to(self._home)
        conditions = self._conditions(beta, n)
        can_merge = self._merges_states and conditions is None
        outputs = forward_outputs(self.environment, policy, conditions)
        return roll_out(
            self.environment, outputs, n, generator, behaviour, can_merge=can_merge
        ).terminal_states.to(self._home)

    @torch.no_grad()
    def log_prob(
        self, states: Tensor, n_samples: int = 100, seed: int = 0, *, beta: float | None = None
    ) -> Tensor:
        """Log-probability (density) of sampling each terminal state, `(n,)` float64.

        Exact where one trajectory leads to each state (a tree) or a few (`Environment.n_ways`), and
        by enumeration in a discrete space of at most 50 000 states without `beta_range`. Elsewhere
        an estimate from `n_samples` backward trajectories τ, log mean P_F(τ) / P_B(τ | x), which is
        too low on average and exact in the limit;
        `sampler.evaluation.estimated_log_prob` gives its standard error.
        """
        states = states.to(self.device)
        if self.environment.n_ways is not None:
            policy = self.policy if self._average is None else self._average
            conditions = self._conditions(beta, len(states))
            return summed_log_prob(self.environment, policy, states, conditions)
        generator = torch.Generator(self.device).manual_seed(seed)
        ratio, has_branches = self._backward_log_ratio(states, generator, beta)
        if self.environment.is_tree or not has_branches:
            return ratio
        if self.environment.action_heads is None and self._beta_range is None:
            try:
                known, probabilities = terminal_distribution(self, _MAX_STATES_ENUMERATED)
                return lookup(states, known, probabilities).log()
            except TooManyStatesError:
                pass
        ratios = [ratio, *self.log_ratios(states, n_samples - 1, generator, beta)]
        return torch.stack(ratios).logsumexp(dim=0) - math.log(n_samples)

    @torch.no_grad()
    def log_ratios(
        self,
        states: Tensor,
        n_samples: int,
        generator: torch.Generator,
        beta: float | None = None,
    ) -> list[Tensor]:
        """Return log P_F(τ) - log P_B(τ | x) of `n_samples` trajectories τ to each state, `(n,)`s.

        The mean of their exponentials is the probability of sampling the state.
        """
        drawn = (self._backward_log_ratio(states, generator, beta) for _ in range(n_samples))
        return [ratio for ratio, _ in drawn]

    @torch.no_grad()
    def forward_log_ratios(
        self, n: int, generator: torch.Generator, beta: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw n terminal states `(n, w)` as `sample` does, and return them with
        log P_F(τ) - log P_B(τ | x) of the trajectories that led there, float64 `(n,)`.
        """
        policy = self.policy if self._average is None else self._average
        conditions = self._conditions(beta, n)
        outputs = forward_outputs(self.environment, policy, conditions)
        behaviour = Behaviour(policy.forward_logits, policy.amount_outputs)
        trajectories = roll_out(self.environment, outputs, n, generator, behaviour)
        ratio = log_ratio(self.environment, policy, trajectories, conditions)
        return trajectories.terminal_states, ratio

    @torch.no_grad()
    def log_forward(self, states: Tensor) -> Tensor:
        """Return log P_F of every action `(n, a)`; -inf if forbidden."""
        policy = self.policy if self._average is None else self._average
        states = states.to(self.device)
        outputs = policy(inputs_of(self.environment, states, self._conditions(None, len(states))))
        mask = self.environment.forward_mask(states)
        return masked_log_softmax(policy.forward_logits(outputs), mask)

    def _backward_log_ratio(
        self, states: Tensor, generator: torch.Generator, beta: float | None
    ) -> tuple[Tensor, bool]:
        """Of one backward trajectory a state; see `sampler.probabilities`."""
        policy = self.policy if self._average is None else self._average
        conditions = self._conditions(beta, len(states))
        return backward_log_ratio(self.environment, policy, states, conditions, generator)

    def _conditions(self, beta: float | None, n: int) -> Tensor | None:
        """Where β lies in its range, from -1 to 1, `(n,)`; None without a range."""
        if self._beta_range is None:
            if beta is not None:
                raise ValueError("beta: this sampler was made without beta_range")
            return None
        low, high = self._beta_range
        beta = nearest_to_one(self._beta_range) if beta is None else beta
        if not low <= beta <= high:
            raise ValueError(f"beta: expected one in {self._beta_range}, got {beta}")
        place = 2 * (math.log(beta) - math.log(low)) / (math.log(high) - math.log(low)) - 1
        return torch.full((n,), place, device=self.device)


def nearest_to_one(beta_range: tuple[float, float]) -> float:
    """1, or the end of the range that is nearest to it."""
    return min(max(1.0, beta_range[0]), beta_range[1])

"""How probable the policy makes candidates, from trajectories that lead to them.

Named axes: n trajectories or states, w state columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sampler.activations import QUIET, Activations
from sampler.backward_rollout import every_way_back
from sampler.balance import Batch, evaluate
from sampler.collection import backward_outputs
from sampler.environment import Environment
from sampler.losses import Balance
from sampler.policy import Policy
from sampler.rollout import Behaviour, Trajectories, roll_back

_AT_ONCE = 1024
"""States whose trajectories are in memory together."""


def backward_log_ratio(
    environment: Environment,
    policy: Policy,
    states: Tensor,
    conditions: Tensor | None,
    generator: torch.Generator,
) -> tuple[Tensor, bool]:
    """Return log P_F(τ) - log P_B(τ | x) of a backward trajectory from each state, float64 `(n,)`.

    And whether any of them had a choice of parents.
    """
    ratios, has_branches = [], False
    for start in range(0, max(1, len(states)), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        told = None if conditions is None else conditions[part]
        outputs = backward_outputs(environment, policy, told)
        behaviour = Behaviour(logits=policy.backward_logits)
        trajectories = roll_back(environment, states[part], outputs, generator, behaviour)
        ratios.append(log_ratio(environment, policy, trajectories, told))
        has_branches = has_branches or _has_branches(environment, trajectories)
    return torch.cat(ratios), has_branches


@QUIET
def summed_log_prob(
    environment: Environment, policy: Policy, states: Tensor, conditions: Tensor | None
) -> Tensor:
    """Log of the sum of P_F(τ) over all τ to each state, `(n,)`; needs `Environment.n_ways`."""
    n_at_once = max(1, _AT_ONCE // (environment.n_ways or 1))
    parts = [torch.empty(0, dtype=torch.float64, device=states.device)]
    for start in range(0, len(states), n_at_once):
        part = states[start : start + n_at_once]
        trajectories, origins = every_way_back(environment, part)
        told = None if conditions is None else conditions[start : start + n_at_once][origins]
        log_forward = _balance(environment, policy, trajectories, told).log_forward.double()
        of_way = log_forward.new_zeros(len(origins)).index_add(0, trajectories.rows, log_forward)
        most = of_way.new_full((len(part),), -math.inf)
        most = most.scatter_reduce(0, origins, of_way, "amax")
        sums = torch.zeros_like(most).index_add(0, origins, (of_way - most[origins]).exp())
        parts.append(most + sums.log())
    return torch.cat(parts)


@QUIET
def log_ratio(
    environment: Environment,
    policy: Policy,
    trajectories: Trajectories,
    conditions: Tensor | None,
) -> Tensor:
    """Return log P_F(τ) - log P_B(τ | x) of each trajectory, float64 `(n,)`."""
    return _balance(environment, policy, trajectories, conditions).log_ratio()


def _balance(
    environment: Environment,
    policy: Policy,
    trajectories: Trajectories,
    conditions: Tensor | None,
) -> Balance:
    """Both policies' log-probabilities of `trajectories`."""
    device = trajectories.rows.device
    log_reward = torch.zeros(len(trajectories), dtype=torch.float64, device=device)
    activations, batch = Activations(policy.widths, device), Batch(trajectories, conditions)
    # "nothing": the decay of sub-trajectory balance has no part in the ratio
    return evaluate(environment, policy, activations, batch, log_reward, "nothing", decay=1.0)


def _has_branches(environment: Environment, trajectories: Trajectories) -> bool:
    if environment.action_heads is not None:
        return True
    if environment.is_tree:
        return False
    n_parents = environment.backward_mask(trajectories.children).sum(dim=1)
    return bool((n_parents > 1).any())

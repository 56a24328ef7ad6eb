"""Sampling inside a restriction, in proportion to what the unrestricted sampler gives it.

Under the narrower masks a trajectory τ is drawn with Q(τ), not with P_F(τ). Their ratio is the
product over its steps of the probability that the policy leaves to what is allowed; weighted by it,
the trajectories follow P_F given the restriction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sampler import amounts as mixtures
from sampler.environment import Environment
from sampler.policy import log_probability
from sampler.rollout import Behaviour, Outputs, Trajectories, heads_of, roll_out


def sample_restricted(
    environment: Environment,
    restricted: Environment,
    outputs: Outputs,
    n: int,
    n_tries: int,
    generator: torch.Generator,
    behaviour: Behaviour,
) -> Tensor:
    """n terminal states `(n, w)` of `restricted`, chosen from n · `n_tries` by their weights.

    Chosen without replacement by Gumbel top-k (Kool et al. 2019, arXiv 1903.06059): the first is
    distributed as by importance resampling, and no trajectory comes twice.
    """
    if n_tries < 1:
        raise ValueError(f"n_tries: expected at least 1, got {n_tries}")
    recorded: list[Tensor] = []

    def recording(states: Tensor, rows: Tensor) -> Tensor:
        recorded.append(outputs(states, rows))
        return recorded[-1]

    drawn = roll_out(restricted, recording, n * n_tries, generator, behaviour)
    weights = log_weights(environment, restricted, drawn, torch.cat(recorded), behaviour)
    noise = torch.empty_like(weights).exponential_(generator=generator).log_()
    return drawn.terminal_states[(weights - noise).topk(n).indices]


def log_weights(
    environment: Environment,
    restricted: Environment,
    drawn: Trajectories,
    outputs: Tensor,
    behaviour: Behaviour,
) -> Tensor:
    """Return log P_F(τ) - log Q(τ) of trajectories drawn in `restricted`, float64 `(n,)`.

    `outputs` are those of the policy for each transition. -inf where P_F is 0.
    """
    assert behaviour.logits is not None  # noqa: S101
    logits = behaviour.logits(outputs)
    wide = environment.forward_mask(drawn.states)
    ratio = log_probability(logits, wide, drawn.actions) - log_probability(
        logits, drawn.masks, drawn.actions
    )
    ratio = ratio.double()
    if drawn.amounts is not None and behaviour.mixture is not None:
        ratio = ratio + _amount_ratio(restricted, drawn, outputs, behaviour)
    zeros = ratio.new_zeros(len(drawn))
    return zeros.index_add(0, drawn.rows, ratio).nan_to_num(nan=-math.inf)


def _amount_ratio(
    restricted: Environment, drawn: Trajectories, outputs: Tensor, behaviour: Behaviour
) -> Tensor:
    """Log of the policy's density of each amount over the one it was drawn from, `(t,)`."""
    assert drawn.amounts is not None and behaviour.mixture is not None  # noqa: S101, PT018
    heads, is_circular = heads_of(restricted, drawn.actions)
    low, high = restricted.amount_range(drawn.states, drawn.actions)
    is_narrow = (mixtures.range_width(low, high) < 1) & (heads >= 0)
    parameters = behaviour.mixture(outputs, heads)
    wide = mixtures.log_density(parameters, drawn.amounts, is_circular)
    narrow = mixtures.log_density_within(parameters, is_circular, low, high, drawn.amounts)
    return torch.where(is_narrow, wide - narrow, 0.0)

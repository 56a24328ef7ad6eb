"""Sampling inside a restriction, in proportion to what the unrestricted sampler gives it.

Under the narrower masks a trajectory τ is drawn with Q(τ), not with P_F(τ). Their ratio is the
product over its steps of the probability that the policy leaves to what is allowed; weighted by it,
the trajectories follow P_F given the restriction.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from sampler import amounts as mixtures
from sampler.environment import Environment
from sampler.policy import log_probability
from sampler.rollout import Behaviour, Outputs, Trajectories, heads_of, roll_out

_WAVE = 8
_ENOUGH = 6.0
_SMALLEST_WAVE = 256


def sample_restricted(
    environment: Environment,
    restricted: Environment,
    outputs: Outputs,
    n: int,
    n_tries: int,
    generator: torch.Generator,
    behaviour: Behaviour,
) -> Tensor:
    """Draw n terminal states `(n, w)` of `restricted`, chosen by their weights.

    Trajectories are drawn, `n_at_once` each time, until their effective sample size (Kong 1992)
    is `_ENOUGH` times n, or until there are n · `n_tries`: a restriction that the trained sampler
    finds improbable needs more. UserWarning where that was too few. They are chosen without
    replacement by Gumbel top-k (Kool et al. 2019, arXiv 1903.06059): the first is distributed as by
    importance resampling, and no trajectory comes twice.
    """
    if n_tries < 1:
        raise ValueError(f"n_tries: expected at least 1, got {n_tries}")
    states, weights = environment.initial_states(0), torch.zeros(0, dtype=torch.float64)
    weights = weights.to(generator.device)
    n_left, enough = max(n * n_tries, n_at_once(n, n_tries)), n == 0
    while n_left > 0 and not enough:
        n_now = min(n_at_once(n, n_tries), n_left)
        n_left -= n_now
        drawn, own = _wave(environment, restricted, outputs, n_now, generator, behaviour)
        states = torch.cat([states.to(drawn), drawn])
        weights = torch.cat([weights, own])
        enough = effective_size(weights) >= _ENOUGH * n
    if not enough and n > 0 and effective_size(weights) < n and n_tries > 1:
        warnings.warn(
            f"where: the sampler finds this restriction improbable; {len(weights)} trajectories "
            f"count as {effective_size(weights):.0f} of the {n} wanted, so the samples lean to "
            "what the masks alone would draw; raise n_tries",
            stacklevel=3,
        )
    noise = torch.empty_like(weights).exponential_(generator=generator).log_()
    return states[(weights - noise).topk(n).indices]


def n_at_once(n: int, n_tries: int) -> int:
    """Trajectories of a wave: few would often miss the heavy ones, and seem to be enough."""
    return n if n_tries == 1 else max(n * min(_WAVE, n_tries), _SMALLEST_WAVE)


def effective_size(log_weights: Tensor) -> float:
    """How many equally weighted samples these are worth: (Σ w)² / Σ w²."""
    if len(log_weights) == 0:
        return 0.0
    return float((2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp())


def _wave(
    environment: Environment,
    restricted: Environment,
    outputs: Outputs,
    n: int,
    generator: torch.Generator,
    behaviour: Behaviour,
) -> tuple[Tensor, Tensor]:
    """Draw terminal states of `restricted` under its masks, and their log weights."""
    recorded: list[Tensor] = []

    def recording(states: Tensor, rows: Tensor) -> Tensor:
        recorded.append(outputs(states, rows))
        return recorded[-1]

    drawn = roll_out(restricted, recording, n, generator, behaviour)
    weights = log_weights(environment, restricted, drawn, torch.cat(recorded), behaviour)
    return drawn.terminal_states, weights


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
    narrow = is_narrow.nonzero()[:, 0]
    parameters = behaviour.mixture(outputs, heads[narrow], narrow)
    amounts, is_circular = drawn.amounts[narrow], is_circular[narrow]
    wide = mixtures.log_density(parameters, amounts, is_circular)
    inside = mixtures.log_density_within(
        parameters, is_circular, low[narrow], high[narrow], amounts
    )
    return torch.zeros_like(low).index_copy_(0, narrow, wide - inside)

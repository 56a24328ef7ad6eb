"""From acquisition to the sampler's log-reward, at a temperature that adapts each round.

Named axes: n states, p candidates of the pool, r random candidates, d features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

import torch
from torch import Tensor

from sampler.environment import Environment
from sampler.variation import weighed_states
from surrogate.acquisition import LOG_FLOOR

EFFECTIVE_SHARE = 0.1
"""The share of the pool that carries the reward, at most."""
N_RANDOM = 512
"""Random walks that estimate how much of the reward ordinary candidates hold."""
MIN_KNEE = 20.0
"""Nats below the best at which the log-reward begins to flatten out, in a small space."""
MARGIN = 10.0
"""Nats by which all candidates at the knee together are worth less than the best one."""
_LEAST = 1e-12
_N_HALVINGS = 60


class Gain(Protocol):
    """What candidates are worth: an `Acquisition`, or `pipeline.trajectory_fidelity`'s."""

    def target_log_gain(self, features: Tensor) -> Tensor:
        """Log gain of terminal states by their features `(n, d)`, `(n,)`."""


@dataclass(frozen=True)
class Temperature:
    """β, and what it came from: see `temperature`."""

    beta: float
    top: float
    """The best gain of the pool."""
    effective_share: float
    """The share of the pool that carries the reward."""
    log_random: float
    """Log of the reward that ordinary candidates hold all together; the best one has 0."""
    knee: float
    """Nats below the best at which `bent` begins to flatten out."""


@dataclass(frozen=True)
class AcquisitionReward:
    """log R(x) = bent(β (log a(x) - top)) + log dx, where a(x) is x's gain at the target.

    An acquisition spans anything from a tenth of a nat (a flat reward teaches the sampler nothing)
    to millions (a needle that it never finds). β brings every round to a scale that can be learned
    and that tells the good from the many, see `temperature`. `bent` keeps a slope where candidates
    are poor, so that training sees from anywhere which way is up. The best of the pool has log R
    0; better ones lie above. dx is the environment's measure, `Environment.log_measure`.
    """

    environment: Environment
    acquisition: Gain
    temperature: Temperature

    def __call__(self, states: Tensor) -> Tensor:
        """Log-rewards of terminal states, `(n,)` float64."""
        gains = self.acquisition.target_log_gain(self.environment.features(states))
        return self.of_gains(gains) + self.environment.log_measure(states)

    def of_gains(self, gains: Tensor) -> Tensor:
        """Log-rewards of log gains, `(n,)` each, without the measure."""
        told = self.temperature
        return bent(told.beta * (gains - told.top), told.knee)

    @property
    def beta(self) -> float:
        """The inverse temperature."""
        return self.temperature.beta

    @property
    def top(self) -> float:
        """The gain whose log-reward is 0."""
        return self.temperature.top

    def notes(self) -> dict[str, float]:
        """What a person wants to see of it in the round's notes."""
        return asdict(self.temperature)


def scaled_reward(
    environment: Environment, acquisition: Gain, pool_features: Tensor, seed: int = 0
) -> AcquisitionReward:
    """The reward at the temperature of the pool, features `(p, d)` of all that is known so far.

    That is random candidates, observed ones, the last round's proposals and what a search found
    (`pipeline.pool`): random ones alone say nothing about the top of a large space. `seed` is that
    of the random walks. ValueError for an empty pool.
    """
    if len(pool_features) == 0:
        raise ValueError("expected at least one candidate in the pool of the reward, got none")
    gains = acquisition.target_log_gain(pool_features)
    generator = torch.Generator().manual_seed(seed)
    states, log_weights = weighed_states(environment, N_RANDOM, generator)
    random_gains = acquisition.target_log_gain(environment.features(states))
    # A measure is a density's: the reward's integral weighs with it, its order does not.
    log_weights = log_weights + environment.log_measure(states)
    return AcquisitionReward(
        environment, acquisition, temperature(gains, random_gains, log_weights)
    )


def temperature(
    gains: Tensor,
    random_gains: Tensor,
    log_weights: Tensor,
    share: float = EFFECTIVE_SHARE,
) -> Temperature:
    """The least inverse temperature β at which the good ones among `gains` `(p,)` stand out.

    Two things are asked of it. At most `share` of the pool carries the reward: the effective
    sample size of weights w = exp(β gain), (Σ w)² / Σ w² (Kish 1965), falls with β. And ordinary
    candidates do not outweigh the pool by their number, as the 20^15 words of a space would: of
    random ones with `random_gains` and `log_weights` (`sampler.variation.weighed_states`), `(r,)`
    each, the sum Σ exp(β (gain - top)) over the space is estimated, and no more than twice the
    pool's is allowed, unless one with half the best gain had to fall below the knee for it.
    β is 1 where all gains are equal.
    """
    log_size = float(log_weights.logsumexp(0)) - math.log(len(log_weights))
    knee = max(MIN_KNEE, log_size + MARGIN)
    top = float(gains.max())

    def log_mass(beta: float, gains: Tensor, log_weights: Tensor | float) -> float:
        return float((log_weights + bent(beta * (gains - top), knee)).logsumexp(0))

    def log_random(beta: float) -> float:
        return log_mass(beta, random_gains, log_weights) - math.log(len(log_weights))

    def excess(beta: float) -> float:
        return log_random(beta) - log_mass(beta, gains, 0.0) - math.log(2)

    beta = max(_of_share(gains, share), _bisected(excess, _LEAST, knee / math.log(2)))
    beta = beta if beta > _LEAST else 1.0
    return Temperature(beta, top, effective_share(gains, beta), log_random(beta), knee)


def effective_share(gains: Tensor, beta: float) -> float:
    """Kish's effective sample size of the weights exp(β gain), as a share of the p gains."""
    weights = torch.softmax(beta * (gains - gains.max()), dim=0)
    return 1.0 / (float(weights.square().sum()) * len(gains))


def bent(log_reward: Tensor, knee: float) -> Tensor:
    """Log-rewards x as they are above -knee, and -knee (1 + log(x / -knee)) below.

    `(n,) → (n,)`. Strictly increasing, with one slope at the knee and ever less below it.
    """
    depth = (-log_reward / knee).clamp_min(1.0)
    return torch.where(log_reward >= -knee, log_reward, -knee * (1 + depth.log()))


def _of_share(gains: Tensor, share: float) -> float:
    """The β at which `share` of the pool carries the reward; 0 where all are equal.

    Within bounds: the typical gain of the others ends 1 nat (never flat) to `MIN_KNEE` nats (where
    too many are tied at the top, or one stands out) below it.
    """
    gap = _gap(gains)
    if gap == 0:
        return 0.0
    wanted = max(share, 1.0 / len(gains))
    return _bisected(lambda beta: effective_share(gains, beta) - wanted, 1 / gap, MIN_KNEE / gap)


def _gap(gains: Tensor) -> float:
    """From the median gain below the top up to the top; 0 where all are equal.

    Gains at the floor are left out, unless there is nothing else.
    """
    below = gains[gains < gains.max()]
    told = below[below > LOG_FLOOR]
    below = told if len(told) > 0 else below
    return float(gains.max() - below.median()) if len(below) > 0 else 0.0


def _bisected(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function of a positive number crosses 0; the bound where it does not."""
    if falling(low) <= 0:
        return low
    if falling(high) >= 0:
        return high
    for _ in range(_N_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high

"""From acquisition to the sampler's log-reward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sampler.environment import Environment
from surrogate.acquisition import Acquisition

SHARPNESS = 4.0
"""Nats between the best tenth and the best hundredth of the reference candidates."""
FLOOR = -20.0
"""The least log-reward: far below anything worth sampling, near enough to keep losses tame."""


@dataclass(frozen=True)
class AcquisitionReward:
    """log R(x) = max(β (log a(x) − top), FLOOR) + log dx, where a(x) is x's gain at the target.

    An acquisition spans anything from a tenth of a nat (a flat reward teaches the sampler nothing)
    to thousands (a needle that it never finds). β = SHARPNESS / (q₉₉ − q₉₀) of the reference sample
    brings every round to the same scale, whatever the length of the lower tail; `top` is q₉₉. dx is
    the environment's measure, `Environment.log_measure`.
    """

    environment: Environment
    acquisition: Acquisition
    top: float
    beta: float

    def __call__(self, states: Tensor) -> Tensor:
        """Log-rewards of terminal states, `(n,)` float64."""
        gain = self.acquisition.log_gain(self.environment.features(states))[:, -1]
        scaled = ((gain - self.top) * self.beta).clamp(min=FLOOR)
        return scaled + self.environment.log_measure(states)


def scaled_reward(
    environment: Environment, acquisition: Acquisition, reference: Tensor
) -> AcquisitionReward:
    """The reward scaled by the gains of `reference`, features `(r, d)` of typical candidates."""
    gains = acquisition.log_gain(reference)[:, -1]
    good, top = torch.quantile(gains, torch.tensor([0.9, 0.99], dtype=gains.dtype)).tolist()
    beta = SHARPNESS / max(top - good, 1e-6)
    return AcquisitionReward(environment, acquisition, top, beta)

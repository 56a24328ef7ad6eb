"""Training objectives: from the log-probabilities of a batch of trajectories to one scalar.

A loss is a function of `Balance`; a new one is a function here and a line in `sampler.LOSSES`.
Named axes: n trajectories, t transitions of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Balance:
    """Both sides of the flow equations for a batch of trajectories."""

    log_forward: Tensor  # (t,): log P_F of each transition
    log_backward: Tensor  # (t,): log P_B of each transition
    rows: Tensor  # (t,): the trajectory that a transition belongs to
    log_reward: Tensor  # (n,)
    log_z: Tensor  # ()

    def residuals(self) -> Tensor:
        """Imbalance log Z + Σ log P_F - log R - Σ log P_B of each trajectory, `(n,)`."""
        # Sums in float64: with long trajectories float32 would lose the small difference.
        log_ratio = (self.log_forward - self.log_backward).double()
        sums = torch.zeros_like(self.log_reward, dtype=torch.float64)
        return self.log_z + sums.index_add(0, self.rows, log_ratio) - self.log_reward


def trajectory_balance(balance: Balance) -> Tensor:
    """Mean over trajectories of (log Z + Σ log P_F - log R - Σ log P_B)².

    Malkin et al. 2022 (arXiv 2201.13259), equation 14 in logarithms.
    """
    return balance.residuals().square().mean()

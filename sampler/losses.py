"""Training objectives: from a batch of trajectories to one scalar.

A loss is a function of `Balance`; `Loss` says which parts of it the function needs. A new one is a
function here and a line in `sampler.LOSSES`. Logarithms are summed in float64: along a long
trajectory float32 would lose the small difference of large numbers.
Named axes: n trajectories, t transitions of all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Need = Literal["log_z", "log_flow", "edges", "nothing"]


@dataclass(frozen=True)
class Balance:
    """Both sides of the flow equations for a batch of trajectories."""

    log_forward: Tensor  # (t,): log P_F of each transition
    log_backward: Tensor  # (t,): log P_B of each transition
    rows: Tensor  # (t,): the trajectory that a transition belongs to
    log_reward: Tensor  # (n,)
    log_z: Tensor  # () or (n,)
    log_flow: Tensor | None = None  # (t,): log F of each parent
    following: Tensor | None = None  # (t,): transition that leaves the child, t + row at the end
    ordered: Tensor | None = None  # (t,): indices of the transitions by trajectory and step
    log_inflow: Tensor | None = None  # (t,): into each child, over all of its parents
    log_outflow: Tensor | None = None  # (t,): out of each child; its reward if it is terminal
    groups: Tensor | None = None  # (n,): trajectories of equal number share one log Z
    decay: float = 0.9  # λ of sub-trajectory balance

    def log_ratio(self) -> Tensor:
        """Σ log P_F - Σ log P_B of each trajectory, float64 `(n,)`."""
        steps = (self.log_forward - self.log_backward).double()
        return torch.zeros_like(self.log_reward, dtype=torch.float64).index_add(0, self.rows, steps)

    def residuals(self) -> Tensor:
        """Imbalance log Z + Σ log P_F - log R - Σ log P_B of each trajectory, `(n,)`."""
        return self.log_z + self.log_ratio() - self.log_reward


@dataclass(frozen=True)
class Loss:
    """A training objective and what it needs besides the policies."""

    value: Callable[[Balance], Tensor]
    needs: Need

    def __call__(self, balance: Balance) -> Tensor:
        """The loss `()`."""
        return self.value(balance)


def _trajectory_balance(balance: Balance) -> Tensor:
    """Mean over trajectories of (log Z + Σ log P_F - log R - Σ log P_B)².

    Malkin et al. 2022 (arXiv 2201.13259), equation 14 in logarithms.
    """
    return balance.residuals().square().mean()


def _log_partition_variance(balance: Balance) -> Tensor:
    """Variance over trajectories of log R + Σ log P_B - Σ log P_F, which is log Z at the optimum.

    Zhang et al. 2023 (arXiv 2302.05446), equation 6, after VarGrad (Richter et al. 2020, arXiv
    2010.10436, equation 8). Trajectories of equal `groups` share their mean.
    """
    estimates = balance.log_reward - balance.log_ratio()
    if balance.groups is None:
        return (estimates - estimates.mean()).square().mean()
    n_groups = int(balance.groups.max()) + 1
    sums = torch.zeros(n_groups, dtype=estimates.dtype, device=estimates.device)
    counts = sums.index_add(0, balance.groups, torch.ones_like(estimates))
    means = sums.index_add(0, balance.groups, estimates) / counts
    return (estimates - means[balance.groups]).square().mean()


def _detailed_balance(balance: Balance) -> Tensor:
    """Mean over transitions of (log F(s) + log P_F - log F(s') - log P_B)²; F(x) = R(x) at the end.

    Bengio et al. 2023 (GFlowNet Foundations, arXiv 2111.09266), equation 23 in logarithms.
    """
    assert balance.log_flow is not None and balance.following is not None  # noqa: S101, PT018
    flows = torch.cat([balance.log_flow.double(), balance.log_reward])
    forward = balance.log_flow + balance.log_forward
    backward = flows[balance.following] + balance.log_backward
    return (forward - backward).square().mean()


def _sub_trajectory_balance(balance: Balance) -> Tensor:
    """Mean over trajectories of the λ-weighted mean of squared residuals of all sub-trajectories.

    Madan et al. 2023 (arXiv 2209.12782), equation 6: sub-trajectory i … j has the weight λ^(j - i)
    over the sum of these. Its residual is A_i - A_j with A_k = log F(s_k) - Σ_{l<k} log P_F / P_B,
    so that all pairs together are a product with one Toeplitz matrix.
    """
    assert balance.log_flow is not None and balance.ordered is not None  # noqa: S101, PT018
    order, n = balance.ordered, len(balance.log_reward)
    rows = balance.rows[order]
    lengths = torch.bincount(rows, minlength=n)
    width = int(lengths.max()) + 1
    step = torch.arange(len(rows), device=rows.device) - (lengths.cumsum(0) - lengths)[rows]
    ratio = (balance.log_forward - balance.log_backward).double()[order]
    padded = ratio.new_zeros(n, width).index_put((rows, step + 1), ratio).cumsum(dim=1)
    every = torch.arange(n, device=rows.device)
    flows = (
        ratio.new_zeros(n, width)
        .index_put((rows, step), balance.log_flow.double()[order])
        .index_put((every, lengths), balance.log_reward)
    )
    place = torch.arange(width, device=rows.device)
    is_real = place <= lengths[:, None]
    potential = (flows - padded) * is_real
    centre = potential.sum(dim=1, keepdim=True) / (lengths[:, None] + 1)
    potential = (potential - centre.detach()) * is_real  # so that the squares below do not cancel
    gap = (place[None, :] - place[:, None]).double()
    weight = torch.where(gap > 0, torch.pow(balance.decay, gap.clamp_min(0)), 0.0)
    real = is_real.double()
    symmetric = weight + weight.t()
    total = ((real @ weight) * real).sum(dim=1)
    pairs = (potential.square() * (real @ symmetric)).sum(dim=1)
    cross = ((potential @ weight) * potential).sum(dim=1)
    return ((pairs - 2 * cross) / total).mean()


def _flow_matching(balance: Balance) -> Tensor:
    """Mean over visited states of (log inflow - log outflow)²; the outflow of x is R(x).

    Bengio et al. 2021 (arXiv 2106.04399), equation 12, without ε: flows are kept as logarithms.
    Not defined where parents form a continuum.
    """
    assert balance.log_inflow is not None and balance.log_outflow is not None  # noqa: S101, PT018
    return (balance.log_inflow - balance.log_outflow).double().square().mean()


trajectory_balance = Loss(_trajectory_balance, "log_z")
log_partition_variance = Loss(_log_partition_variance, "nothing")
detailed_balance = Loss(_detailed_balance, "log_flow")
sub_trajectory_balance = Loss(_sub_trajectory_balance, "log_flow")
flow_matching = Loss(_flow_matching, "edges")

"""How good a trained sampler is, where its space is continuous or too large to enumerate.

All estimates rest on one quantity: w(τ) = R(x) P_B(τ | x) / P_F(τ) of a trajectory τ that ends in
x. Its mean over the forward policy is Z; its logarithm is at most log Z on average over the forward
policy, and at least log Z over trajectories drawn backward from the target. `sampler.exact` has
the exact values of small spaces.

Rewards are asked as in training: log rewards below `gfn.log_reward_floor` count as it, and with
`beta`, for a sampler made with `beta_range`, the reward is R^β. In a continuous space everything
is a density.

Named axes: n states, s samples, m modes, w state columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sampler.asking import LogReward, checked
from sampler.environment import Environment
from sampler.rows import rows_in, unique_rows

if TYPE_CHECKING:
    from sampler.gflownet import GFlowNet

_BATCH = 1024
"""Trajectories at once: enough for speed, few enough that their activations fit in memory."""


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    standard_error: float


class Correlation(NamedTuple):
    """Between the logarithms of probability and reward: linear, and of ranks; -1 to 1."""

    pearson: float
    spearman: float


def estimated_log_prob(
    gfn: GFlowNet,
    states: Tensor,
    n_samples: int = 100,
    seed: int = 0,
    *,
    beta: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability (density) of sampling each state, and its standard error; `(n,)` float64.

    log of the mean of P_F(τ) / P_B(τ | x) over `n_samples` trajectories τ drawn backward from x
    (Zhang et al. 2022, arXiv 2202.01361): too low on average, exact in the limit. The
    standard error is that of the mean over the mean (delta method), itself from the same samples:
    too small where they missed the important trajectories. 0 where one trajectory leads to x.
    """
    if n_samples < 2:
        raise ValueError(
            f"n_samples: expected at least 2 samples for a standard error, got {n_samples}"
        )
    return _log_mean(_backward_log_ratios(gfn, states, n_samples, seed, beta))


def reward_correlation(
    gfn: GFlowNet,
    states: Tensor,
    log_reward: LogReward,
    n_samples: int = 100,
    seed: int = 0,
    *,
    beta: float | None = None,
) -> Correlation:
    """Correlation over `states` `(n, w)` of log p(x) with log R(x): 1 for a perfect sampler.

    log p(x) as `gfn.log_prob` gives it: exact where that is possible, else from `n_samples`
    trajectories a state. The states should span rewards, such as a test set; samples of `gfn` show
    only what it already finds. ValueError where a correlation is undefined: fewer than three
    states, or equal values throughout.
    """
    from scipy import stats

    if len(states) < 3:
        raise ValueError(f"reward_correlation: expected at least 3 states, got {len(states)}")
    states = states.to(gfn.device)
    log_rewards = _asker(gfn, log_reward, beta)(states)
    log_probs = gfn.log_prob(states, n_samples, seed, beta=beta)
    for name, values in (("log reward", log_rewards), ("log-probability", log_probs)):
        if not bool(values.isfinite().all()) or bool((values == values[0]).all()):
            raise ValueError(
                f"reward_correlation: expected finite values of the {name} that differ, got from "
                f"{float(values.min()):g} to {float(values.max()):g}; take other states"
            )
    x, y = log_probs.cpu().numpy(), log_rewards.cpu().numpy()
    return Correlation(float(stats.pearsonr(x, y)[0]), float(stats.spearmanr(x, y)[0]))


def evidence_lower_bound(
    gfn: GFlowNet, log_reward: LogReward, n: int = 1000, seed: int = 0, *, beta: float | None = None
) -> Estimate:
    """Mean of log w(τ) over n trajectories of the forward policy: on average at most log Z.

    The gap is KL(P_F(τ) | R(x) P_B(τ | x) / Z), which does not notice a mode that is never drawn;
    `evidence_upper_bound` does. Blessing et al. 2024 (arXiv 2406.07423), there ELBO.
    """
    return _mean(_forward_log_weights(gfn, log_reward, n, seed, beta))


def evidence_upper_bound(
    gfn: GFlowNet,
    states_from_target: Tensor,
    log_reward: LogReward,
    n_samples: int = 1,
    seed: int = 0,
    *,
    beta: float | None = None,
) -> Estimate:
    """Mean of log w(τ) over τ drawn backward from samples of the target: on average at least log Z.

    `states_from_target` `(n, w)`, n of 2 or more: independent draws of R(x) / Z (with `beta`, of
    R^β), such as `sampler.exact.target_distribution` allows; other states give no bound.
    `n_samples` trajectories from each. Blessing et al. 2024 (arXiv 2406.07423), there EUBO.
    """
    states = states_from_target.to(gfn.device)
    if len(states) < 2:
        raise ValueError(
            f"states_from_target: expected at least 2 for a standard error, got {len(states)}"
        )
    log_ratios = _backward_log_ratios(gfn, states, n_samples, seed, beta)
    return _mean(_asker(gfn, log_reward, beta)(states) - log_ratios.mean(dim=0))


def estimated_log_z(
    gfn: GFlowNet, log_reward: LogReward, n: int = 1000, seed: int = 0, *, beta: float | None = None
) -> Estimate:
    """Log of the mean of w(τ) over n trajectories of the forward policy, and its standard error.

    Importance sampling: too low on average, exact in the limit, and tighter than the lower bound.
    The error by the delta method; both are blind to what the policy never draws.
    """
    log_weights = _forward_log_weights(gfn, log_reward, n, seed, beta)
    value, standard_error = _log_mean(log_weights[:, None])
    return Estimate(float(value), float(standard_error))


def count_modes(
    samples: Tensor,
    modes: Tensor,
    features: Callable[[Tensor], Tensor] | None = None,
    distance: float = 0.0,
) -> int:
    """How many of the given `modes` `(m, w)` have been drawn among `samples` `(s, w)`.

    A mode has been drawn once a sample equals it; with `features`, such as those of the
    environment, once a sample lies within the Euclidean `distance` of it in them. There each
    mode counts of which that is true, so modes should lie further apart.
    """
    if features is None:
        if distance != 0.0:
            raise ValueError(
                f"count_modes: distance = {distance} needs features in which to measure it; pass "
                "features=environment.features"
            )
        return int((rows_in(modes, samples) >= 0).sum())
    if not distance >= 0:
        raise ValueError(f"count_modes: expected a distance of 0 or more, got {distance}")
    centres = features(modes)
    is_found = torch.zeros(len(modes), dtype=torch.bool, device=centres.device)
    for start in range(0, len(samples), _BATCH):
        points = features(samples[start : start + _BATCH]).to(centres.device)
        # Not by matrix products: their rounding would miss equal points.
        gaps = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
        is_found |= (gaps <= distance).any(dim=1)
    return int(is_found.sum())


def coverage(
    samples: Tensor,
    modes: Tensor,
    features: Callable[[Tensor], Tensor] | None = None,
    distance: float = 0.0,
) -> float:
    """Share of `modes` that `count_modes` finds, 0 to 1. ValueError without modes."""
    if len(modes) == 0:
        raise ValueError("coverage: expected at least one mode, got none")
    return count_modes(samples, modes, features, distance) / len(modes)


def top_k(
    environment: Environment, samples: Tensor, log_reward: LogReward, k: int
) -> tuple[Tensor, Tensor]:
    """The k best distinct candidates among `samples`, `(k, w)`, and their log rewards, `(k,)`.

    Best first; of equal rewards the lexicographically first state. Candidates of one key count
    once. Fewer than k where there are not so many.
    """
    if k < 1:
        raise ValueError(f"top_k: expected k of 1 or more, got {k}")
    states, _ = unique_rows(samples)
    log_rewards = checked(environment, log_reward, -math.inf)(states)
    order = log_rewards.argsort(descending=True, stable=True)
    first_of_key: dict[str, int] = {}
    for start in range(0, len(order), k):
        part = order[start : start + k]
        for key, row in zip(environment.keys(states[part]), part.tolist(), strict=True):
            first_of_key.setdefault(key, row)
        if len(first_of_key) >= k:
            break
    best = torch.tensor(list(first_of_key.values())[:k], dtype=torch.int64, device=states.device)
    return states[best], log_rewards[best]


def _backward_log_ratios(
    gfn: GFlowNet, states: Tensor, n_samples: int, seed: int, beta: float | None
) -> Tensor:
    """Return log P_F(τ) - log P_B(τ | x) of `n_samples` trajectories to each state, `(s, n)`."""
    if n_samples < 1:
        raise ValueError(f"n_samples: expected at least 1, got {n_samples}")
    states = states.to(gfn.device)
    generator = torch.Generator(gfn.device).manual_seed(seed)
    rows = torch.arange(n_samples * len(states), device=gfn.device) % max(len(states), 1)
    parts = [
        gfn.log_ratios(states[rows[start : start + _BATCH]], 1, generator, beta)[0]
        for start in range(0, len(rows), _BATCH)
    ]
    drawn = torch.cat([*parts, torch.empty(0, dtype=torch.float64, device=gfn.device)])
    return drawn.reshape(n_samples, len(states))


def _forward_log_weights(
    gfn: GFlowNet, log_reward: LogReward, n: int, seed: int, beta: float | None
) -> Tensor:
    """Return log w of n trajectories of the forward policy, `(n,)`."""
    generator = torch.Generator(gfn.device).manual_seed(seed)
    if n < 2:
        raise ValueError(f"n: expected at least 2 samples for a standard error, got {n}")
    sizes = [min(_BATCH, n - start) for start in range(0, n, _BATCH)]
    ask = _asker(gfn, log_reward, beta)
    drawn = [gfn.forward_log_ratios(size, generator, beta) for size in sizes]
    return torch.cat([ask(states) - log_ratio for states, log_ratio in drawn])


def _asker(gfn: GFlowNet, log_reward: LogReward, beta: float | None) -> LogReward:
    """Log rewards as the sampler is trained on them."""
    ask = checked(gfn.environment, log_reward, gfn.log_reward_floor)
    return ask if beta is None else lambda states: beta * ask(states)


def _mean(values: Tensor) -> Estimate:
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def _log_mean(log_values: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the mean over axis 0, and its standard error by the delta method; `(s, n) → (n,)`s."""
    s = len(log_values)
    log_mean = log_values.logsumexp(dim=0) - math.log(s)
    relative = (log_values - log_mean).exp()  # of mean 1
    return log_mean, (relative - 1).square().sum(dim=0).div(s * (s - 1)).sqrt()

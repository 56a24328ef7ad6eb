"""`selection.fidelity: trajectory`: the sampler chooses the fidelity together with the candidate.

As in multi-fidelity active learning with GFlowNets (Hernandez-Garcia et al. 2024, arXiv
2306.11715): the sampler works on pairs (candidate, fidelity), and the reward of a pair is the gain
of asking for it over what that costs.

Named axes: n pairs, q candidates, m fidelities (the last is the target), d features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.initial import distinct
from sampler.environment import Environment
from sampler.environments.multi_fidelity import MultiFidelity, Step
from surrogate.acquisition import LOG_FLOOR, Acquisition


@dataclass(frozen=True)
class GainPerCost:
    """What a pair is worth to a sampler: its log gain less its log cost.

    Stands where an acquisition does in `pipeline.reward` and `pipeline.pool`, over the features of
    the `MultiFidelity` space.
    """

    acquisition: Acquisition
    costs: tuple[float, ...]
    is_open: tuple[bool, ...]
    """False for a fidelity that is not paid for any more: its pairs are worth nothing."""

    def target_log_gain(self, features: Tensor) -> Tensor:
        """log(gain / cost) of pairs by their features `(n, d + 1)`, `(n,)`; finite."""
        last = len(self.costs) - 1
        fidelity = (features[:, -1:] * last).round().long()
        gains = self.acquisition.log_gain(features[:, :-1]).gather(1, fidelity)[:, 0]
        log_cost = features.new_tensor([math.log(cost) for cost in self.costs])[fidelity[:, 0]]
        is_open = torch.tensor(self.is_open, device=features.device)[fidelity[:, 0]]
        return torch.where(is_open, gains - log_cost, LOG_FLOOR).clamp_min(LOG_FLOOR)


class TrajectoryFidelity:
    """Between the candidates of a campaign and the pairs that its sampler draws.

    `space` is the sampler's environment: the candidates of `environment`, each with one of
    `fidelities`, cheapest first, which cost `costs`; `step` says when in a trajectory the fidelity
    is chosen, see `MultiFidelity`. ValueError where costs and fidelities are not of one number, or
    a cost is not above 0.
    """

    def __init__(
        self,
        environment: Environment,
        fidelities: Sequence[str],
        costs: Sequence[float],
        step: Step = "last",
    ) -> None:
        if len(costs) != len(fidelities):
            raise ValueError(
                f"expected a cost for each of {len(fidelities)} fidelities, got {len(costs)}"
            )
        wrong = [cost for cost in costs if not 0 < cost < math.inf]
        if wrong:
            raise ValueError(f"expected costs above 0, got {wrong[0]}")
        self.space = MultiFidelity(environment, fidelities, step)
        self._costs = tuple(costs)

    def gain(self, acquisition: Acquisition, stopped: Sequence[str] = ()) -> GainPerCost:
        """The gain per cost of pairs; those at a `stopped` fidelity are worth nothing.

        ValueError for a name that is no fidelity, and where none is left.
        """
        unknown = [name for name in stopped if name not in self.space.fidelities]
        if unknown:
            known = ", ".join(self.space.fidelities)
            raise ValueError(f"stopped: expected fidelities of {known}, got {unknown[0]!r}")
        is_open = tuple(name not in stopped for name in self.space.fidelities)
        if not any(is_open):
            raise ValueError("stopped: expected to leave at least one fidelity, got all of them")
        return GainPerCost(acquisition, self._costs, is_open)

    def paired(self, states: Tensor) -> Tensor:
        """Each of the candidates `(q, w)` at each fidelity, `(q m, w + 1)`."""
        m = len(self._costs)
        numbers = torch.arange(1, m + 1, dtype=states.dtype, device=states.device)
        pairs = states.repeat_interleave(m, dim=0)
        return torch.cat([pairs, numbers.repeat(len(states))[:, None]], dim=1)

    def split(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates `(n, w)`, and the place of their fidelity in the ladder, `(n,)` int64."""
        return pairs[:, :-1], pairs[:, -1].long() - 1

    def offered(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """The different candidates of `pairs`, `(q, w)`, and which were drawn at which fidelity.

        The latter `(q, m)` bool: what the selection may choose from.
        """
        states, fidelity = self.split(pairs)
        keys = self.space.base.keys(states)
        rows = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        is_offered = torch.zeros(len(rows), len(self._costs), dtype=torch.bool)
        is_offered[torch.tensor([rows[key] for key in keys], dtype=torch.long), fidelity] = True
        return distinct(states, self.space.base.keys), is_offered

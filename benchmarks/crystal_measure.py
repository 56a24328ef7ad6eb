"""How many compositions each space group has, and a measure that does not drown the others in P1.

A sampler that follows R alone lives where crystals are most numerous: five elements in a group of
low symmetry. A cubic group has a ten-thousandth as many compositions, and would not turn up among
10,000 samples however good its crystals are. `LogMeasure` weighs each crystal by

    m(x) = 1 / N(space group of x, number of elements of x)

so that each pair of a group and a number of elements counts alike before the reward speaks, and
compositions inside a pair do. Within a lattice system the cells already count by the uniform
measure of their free parameters. Named axes: n rows, g space groups, k numbers of elements.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.crystal_spaces import REFERENCE, VOLUME_PER_ATOM
from sampler.environments.crystal import Crystal
from sampler.environments.crystal_part import STAGE, Columns

_BATCH = 5000


def log_n_compositions(space: Crystal, n_rollouts: int, seed: int) -> tuple[Tensor, Tensor]:
    """Log of N for each group and number of elements, `(g, k + 1)`, and its standard error.

    One trajectory leads from a space group to a composition, so over uniformly random actions
    1 / P(trajectory) is an unbiased estimate of N, as Knuth 1975 (doi 10.2307/2005469) counts the
    leaves of a tree. -inf where no trajectory came.
    """
    generator = torch.Generator().manual_seed(seed)
    n_groups = len(space.space_groups)
    most = min(len(space.elements), 7)
    first, second = (torch.zeros(n_groups, most + 1, dtype=torch.float64) for _ in range(2))
    n_of_group = torch.zeros(n_groups, dtype=torch.float64)
    for start in range(0, n_rollouts, _BATCH):
        states, log_weights = _rollouts(space, min(_BATCH, n_rollouts - start), generator)
        group = states[:, Columns.group].long() - 1
        n_elements = (space.counts(states) > 0).sum(dim=1)
        weights = log_weights.exp()
        first.index_put_((group, n_elements), weights, accumulate=True)
        second.index_put_((group, n_elements), weights.square(), accumulate=True)
        n_of_group += torch.bincount(group, minlength=n_groups)
    mean = first / n_of_group[:, None].clamp_min(1)
    variance = second / n_of_group[:, None].clamp_min(1) - mean.square()
    return mean.log(), (variance / n_of_group[:, None].clamp_min(1)).sqrt() / mean


class LogMeasure:
    """Log of m(x) of terminal states of `dense_space`, `(n,)`.

    A group with a number of elements that was never counted weighs as N = 1.
    """

    def __init__(self, space: Crystal, n_rollouts: int = 300_000, seed: int = 0) -> None:
        self._space = space
        self._log_n = _counted(space, n_rollouts, seed).clamp_min(0.0)

    def __call__(self, states: Tensor) -> Tensor:
        """`(n, w) → (n,)` float64."""
        group = states[:, Columns.group].long() - 1
        return -self._log_n[group, (self._space.counts(states) > 0).sum(dim=1)]


def _counted(space: Crystal, n_rollouts: int, seed: int) -> Tensor:
    """Log of N, kept on disk as long as the options stay the same."""
    options = f"{REFERENCE} {VOLUME_PER_ATOM} {n_rollouts} {seed}"
    digest = hashlib.sha256(options.encode()).hexdigest()[:12]
    path = Path(__file__).parent / "results" / f"crystal_measure_{digest}.pt"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        torch.save(log_n_compositions(space, n_rollouts, seed)[0], path)
    log_n: Tensor = torch.load(path, weights_only=True)
    return log_n


def _rollouts(space: Crystal, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """States with space group and composition, and -log P of the composition's part, `(n,)`."""
    states = space.initial_states(n)
    log_weights = torch.zeros(n, dtype=torch.float64)
    while bool((is_open := states[:, STAGE] < 2).any()):
        rows = is_open.nonzero()[:, 0]
        mask = space.forward_mask(states[rows]).double()
        actions = torch.multinomial(mask, 1, generator=generator)[:, 0]
        is_composition = states[rows, STAGE] == 1
        log_weights[rows] += torch.where(is_composition, mask.sum(dim=1).log(), 0.0)
        states[rows] = space.step(states[rows], actions)
    return states, log_weights

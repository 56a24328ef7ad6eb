"""Acquisitions that ask what a query would tell about the maximum of f at the target, in nats.

Given a sampled maximum m*, f at the target lies below it: with g = (m* - mean) / sd, a normal cut
off above g. What an observation shares with that cut is its information about m*, which is then
averaged over the sampled maxima (max-value entropy search: Wang & Jegelka 2017, arXiv 1703.01968).
`mes` and `gibbon` know the target alone; `mf_mes` and `mf_gibbon` are the information that an
observation at each fidelity brings. Named axes as in `acquisition`, and k maxima.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surrogate.acquisition import Acquisition, damp_cheaper
from surrogate.cut_information import log_cut_information
from surrogate.log_normal import (
    log_minus_log1m_exp,
    log_truncation_information,
    log_truncation_loss,
)
from surrogate.max_values import sample_max_values


class MaxValueAcquisition(Acquisition):
    """An acquisition that is a mean over `n_max_samples` sampled maxima of f at the target.

    The maxima follow the Gumbel approximation of the reference's posterior and are not below
    `best` (Wang & Jegelka 2017, section 3.1).
    """

    def __init__(self, *, n_max_samples: int = 16) -> None:
        if n_max_samples < 1:
            raise ValueError(f"expected n_max_samples of 1 or more, got {n_max_samples}")
        self._n_max_samples = n_max_samples

    def _learn_reference(self, mean: Tensor, sd: Tensor, seed: int) -> None:
        drawn = sample_max_values(mean, sd, self._n_max_samples, seed)
        self._max_values = drawn.clamp_min(self._best)

    def _cuts(self, mean: Tensor, sd: Tensor) -> Tensor:
        """Where each maximum cuts f at each x, in its standard deviations, `(q, k)`."""
        return (self._max_values - mean[:, None]) / sd[:, None]

    def _log_mean(self, log_nats: Tensor) -> Tensor:
        """Log of the mean over the maxima, the last axis."""
        return log_nats.logsumexp(-1) - math.log(self._n_max_samples)


class MaxValueEntropySearch(MaxValueAcquisition):
    """Information that f at the target brings about its maximum.

    The mean over maxima of g pdf(g) / (2 cdf(g)) - log cdf(g) (Wang & Jegelka 2017, eq. 6): of f
    itself, without noise. Cheaper fidelities are damped as in `ucb`.
    """

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        log_nats = log_truncation_information(self._cuts(mean, sd))
        return damp_cheaper(self._log_mean(log_nats), log_rho2)


class Gibbon(MaxValueAcquisition):
    """GIBBON's lower bound on the information of a noisy observation at the target.

    As `mf_gibbon` at the target (Moss et al. 2021, arXiv 2102.03324); cheaper fidelities are
    damped as in `ucb`.
    """

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        log_loss = log_truncation_loss(self._cuts(mean, sd))
        return damp_cheaper(self._log_mean(_log_gibbon(log_loss, log_rho2[:, -1:])), log_rho2)


class MultiFidelityGibbon(MaxValueAcquisition):
    """Lower bound on the information that an observation at each fidelity brings.

    The mean over sampled maxima m* of -1/2 log(1 - rho^2 h (g + h)), with g = (m* - mean) / sd
    at the target, h = pdf(g) / cdf(g), and rho the correlation of the noisy observation at the
    fidelity with f at the target (GIBBON: Moss et al. 2021, arXiv 2102.03324, for a batch of
    one; multi-fidelity max-value entropy search: Takeno et al. 2020, arXiv 1901.08275).
    """

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        log_loss = log_truncation_loss(self._cuts(mean, sd))
        columns = [self._log_mean(_log_gibbon(log_loss, of[:, None])) for of in log_rho2.T]
        return torch.stack(columns, 1)


class MultiFidelityMaxValueEntropySearch(MaxValueAcquisition):
    """Information that a noisy observation at each fidelity brings about the target's maximum.

    Takeno et al. 2020 (arXiv 1901.08275): the fall of the observation's entropy when f at the
    target is known to lie below m*, by quadrature (see `cut_information`). `mf_gibbon` bounds it
    from below at a quarter of the time.
    """

    def _log_gain(self, mean: Tensor, sd: Tensor, log_rho2: Tensor) -> Tensor:
        cuts = self._cuts(mean, sd)
        columns = [self._log_mean(log_cut_information(cuts, of[:, None])) for of in log_rho2.T]
        return torch.stack(columns, 1)


def _log_gibbon(log_loss: Tensor, log_rho2: Tensor) -> Tensor:
    """Log of -1/2 log(1 - rho^2 loss): the entropy lost, were the cut normal a normal."""
    return log_minus_log1m_exp(log_rho2 + log_loss) - math.log(2)

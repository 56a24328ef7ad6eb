"""How much of the target's process, and of discrepancies, each fidelity shows.

Each kind gives two matrices `(m, m)` over the fidelities, cheapest first: what the kernel k_t of
the target's process is multiplied with, and what the kernel k_d of the discrepancies is. Both are
positive semi-definite, and the target, the last, has no discrepancies.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_PARTIAL_PRIOR = (0.5, 1.0)
"""Normal prior on atanh of each partial correlation: fidelities are mostly, weakly, kin."""
_LOG_SIGNAL_PRIOR = (0.0, 0.5)
"""Normal prior on the log signal sd: outcomes are standardised."""
_LOG_BIAS_PRIOR = (0.0, 1.0)
"""Normal prior on the log variance of what the lowest fidelity, 0, adds, over the target's."""
_LOG_POWER_PRIOR = (0.0, 0.5)
"""Normal prior on the log of the power with which what it adds falls towards the target."""


class FidelitySignals(nn.Module):
    """Covariances between the fidelities at one x that each of two kernels carries."""

    name: str

    def __init__(self, n_fidelities: int) -> None:
        super().__init__()
        self.n_fidelities = n_fidelities

    @abstractmethod
    def covariances(self) -> tuple[Tensor, Tensor]:
        """Of k_t and of k_d, `(m, m)` each."""

    @abstractmethod
    def signal_sd(self) -> Tensor:
        """Prior sd of what each fidelity shows, without its level, `(m,)`."""

    @abstractmethod
    def log_prior(self) -> Tensor:
        """Log density of the parameters up to a constant, a scalar."""

    def correlation(self) -> Tensor:
        """Correlation between the signals of the fidelities at one x, `(m, m)`."""
        target, rest = self.covariances()
        total = target + rest
        sd = total.diagonal().sqrt()
        return total / sd[:, None] / sd


class Autoregressive(FidelitySignals):
    """Any correlations: L diag(s), with L the Cholesky factor of a correlation, target first.

    With `is_correlated=False` the fidelities are independent of each other.
    """

    name = "autoregressive"

    def __init__(self, n_fidelities: int, is_correlated: bool) -> None:
        super().__init__(n_fidelities)
        n_pairs = n_fidelities * (n_fidelities - 1) // 2
        start = _PARTIAL_PRIOR[0] if is_correlated else 0.0
        self.partials = nn.Parameter(torch.full((n_pairs,), start), requires_grad=is_correlated)
        self.log_signal = nn.Parameter(torch.full((n_fidelities,), _LOG_SIGNAL_PRIOR[0]))
        self.double()

    def loadings(self) -> Tensor:
        """Loadings L of each fidelity on the target's process and the discrepancies, `(m, m)`.

        Rows of unit length from partial correlations tanh(u) (Lewandowski et al. 2009, section
        2.4); the target's is (1, 0, ...) and column 0 the correlation of each with the target.
        """
        partials = torch.tanh(self.partials)
        rows, used = [], 0
        for i in range(self.n_fidelities):
            rows.append(_cholesky_row(partials[used : used + i], self.n_fidelities))
            used += i
        return torch.stack(rows).flip(0)

    def covariances(self) -> tuple[Tensor, Tensor]:
        """Of k_t and of k_d, `(m, m)` each."""
        scaled = self.loadings() * self.log_signal.exp()[:, None]
        return scaled[:, :1] @ scaled[:, :1].T, scaled[:, 1:] @ scaled[:, 1:].T

    def signal_sd(self) -> Tensor:
        """Prior sd of what each fidelity shows, without its level, `(m,)`."""
        return self.log_signal.exp()

    def log_prior(self) -> Tensor:
        """Log density of the parameters up to a constant, a scalar."""
        return log_normal(self.partials, _PARTIAL_PRIOR) + log_normal(
            self.log_signal, _LOG_SIGNAL_PRIOR
        )


class NumericFidelities(FidelitySignals):
    """Fidelities that are numbers s in [0, 1], the target 1: what is missing falls with 1 - s.

    A power p and a size b of what is missing are learned, and one signal sd of the target's.
    """

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__(len(values))
        self._values = torch.tensor(values, dtype=torch.float64)
        self.log_signal = nn.Parameter(torch.full((1,), _LOG_SIGNAL_PRIOR[0]))
        self.log_bias = nn.Parameter(torch.full((), _LOG_BIAS_PRIOR[0]))
        self.log_power = nn.Parameter(torch.full((), _LOG_POWER_PRIOR[0]))
        self.double()

    @abstractmethod
    def missing(self) -> Tensor:
        """Covariance of what is missing at each fidelity, over the target's variance, `(m, m)`."""

    def signal_sd(self) -> Tensor:
        """Prior sd of what each fidelity shows, without its level, `(m,)`."""
        target, rest = self.covariances()
        return (target + rest).diagonal().sqrt()

    def log_prior(self) -> Tensor:
        """Log density of the parameters up to a constant, a scalar."""
        return (
            log_normal(self.log_signal, _LOG_SIGNAL_PRIOR)
            + log_normal(self.log_bias, _LOG_BIAS_PRIOR)
            + log_normal(self.log_power, _LOG_POWER_PRIOR)
        )


class LinearTruncated(NumericFidelities):
    """k_t + k_d b (1 - s)(1 - s')(1 + s s')^p: BoTorch's `LinearTruncatedFidelityKernel`."""

    name = "linear truncated"

    def missing(self) -> Tensor:
        """Covariance of what is missing at each fidelity, over the target's variance, `(m, m)`."""
        s = self._values
        falls = (1 - s)[:, None] * (1 - s)
        return self.log_bias.exp() * falls * (1 + s[:, None] * s) ** self.log_power.exp()

    def covariances(self) -> tuple[Tensor, Tensor]:
        """Of k_t and of k_d, `(m, m)` each."""
        variance = (2 * self.log_signal).exp()
        return variance * torch.ones_like(self.missing()), variance * self.missing()


class Downsampling(NumericFidelities):
    """k_t (1 + b ((1 - s)(1 - s'))^(1 + p)): BoTorch's `DownsamplingKernel` times k_t."""

    name = "downsampling"

    def missing(self) -> Tensor:
        """Covariance of what is missing at each fidelity, over the target's variance, `(m, m)`."""
        falls = (1 - self._values)[:, None] * (1 - self._values)
        return self.log_bias.exp() * falls ** (1 + self.log_power.exp())

    def covariances(self) -> tuple[Tensor, Tensor]:
        """Of k_t and of k_d, `(m, m)` each."""
        variance = (2 * self.log_signal).exp()
        return variance * (1 + self.missing()), torch.zeros_like(self.missing())


def _cholesky_row(partials: Tensor, width: int) -> Tensor:
    """One row of a correlation's Cholesky factor from `partials (i,)`, `(width,)`."""
    entries, left = [], torch.ones((), dtype=torch.float64)
    for partial in partials:
        entries.append(partial * left.sqrt())
        left = left * (1 - partial**2)
    entries.append(left.sqrt())
    padding = torch.zeros(width - len(entries), dtype=torch.float64)
    return torch.cat([torch.stack(entries), padding])


def log_normal(values: Tensor, prior: tuple[float, float]) -> Tensor:
    """Log density of independent normals with `prior`'s mean and sd, up to a constant."""
    mean, sd = prior
    return -0.5 * ((values - mean) / sd).square().sum()

"""The joint prior of all fidelities: the target's process, and what a cheap fidelity adds to it.

In standard units (see `outcomes`), an observation of x at fidelity i is

    y = mu_i + s_i (L_i0 t(x) + sum_k L_ik d_k(x)) + noise_i

with independent processes: t, the target's, with kernel k_t, and discrepancies d_k, with kernel
k_d. L is the Cholesky factor of a learned correlation matrix R, target first, so the target is
s t(x) alone and R holds the correlations between fidelities at one x. It is the autoregressive
model of Kennedy & O'Hagan 2000 (eq. 1) read from the target down, a linear model of
coregionalisation with two kernels: with one kernel (Bonilla et al. 2007) an unrelated cheap
fidelity would still impose its lengthscales on the target. mu_i ~ N(0, 1) is integrated out, so
that the level of a fidelity with few observations is honestly uncertain. Both kernels are
BoTorch's Matérn-5/2 with a lengthscale for each feature and the dimension-scaled prior of
Hvarfner et al. 2024 (features in the unit cube).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.constraints import GreaterThan
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor, nn

MEAN_VARIANCE = 1.0
"""Prior variance of the level mu of each fidelity, in standard units."""

_PARTIAL_PRIOR = (0.5, 1.0)
"""Normal prior on atanh of each partial correlation: fidelities are mostly, weakly, kin."""
_LOG_SIGNAL_PRIOR = (0.0, 0.5)
"""Normal prior on the log signal sd: outcomes are standardised."""
_LOG_NOISE_PRIOR = (-4.0, 1.5)
"""Normal prior on the log noise variance: Hvarfner et al. 2024, but wider (sd 1 there), because
what a cheap fidelity sees and the target does not looks like noise."""

_SMOOTH, _NOISY = 1.0, -1.0
"""Lengthscales over sqrt(d), and log noise variance, of a start that explains by noise."""

_MIN_LENGTHSCALE = 2.5e-2
BOUNDS: dict[str, tuple[float, float]] = {
    "target_kernel.raw_lengthscale": (-7.0, 9.0),
    "discrepancy_kernel.raw_lengthscale": (-7.0, 9.0),
    "partials": (-3.0, 3.0),
    "log_signal": (-4.0, 3.0),
    "log_noise": (-13.8, 3.0),
}
"""Bounds of each free parameter; the noise variance stays above 1e-6 of the outcomes'."""


class JointPrior(nn.Module):
    """Prior covariance between any two (x, fidelity), in standard units.

    With `is_correlated=False` the fidelities are independent of each other.
    """

    def __init__(self, n_features: int, n_fidelities: int, is_correlated: bool) -> None:
        super().__init__()
        self.n_features, self.n_fidelities = n_features, n_fidelities
        self.target_kernel: Any = _matern(n_features)
        self.discrepancy_kernel: Any = _matern(n_features)
        n_pairs = n_fidelities * (n_fidelities - 1) // 2
        start = _PARTIAL_PRIOR[0] if is_correlated else 0.0
        self.partials = nn.Parameter(torch.full((n_pairs,), start), requires_grad=is_correlated)
        self.log_signal = nn.Parameter(torch.full((n_fidelities,), _LOG_SIGNAL_PRIOR[0]))
        self.log_noise = nn.Parameter(torch.full((n_fidelities,), _LOG_NOISE_PRIOR[0]))
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

    def correlation(self) -> Tensor:
        """Correlation R between the signals of the fidelities at one x, `(m, m)`."""
        loadings = self.loadings()
        return loadings @ loadings.T

    def signal_covariances(self) -> tuple[Tensor, Tensor]:
        """Covariance between the fidelities that k_t and that k_d carries, `(m, m)` each."""
        scaled = self.loadings() * self.log_signal.exp()[:, None]
        return scaled[:, :1] @ scaled[:, :1].T, scaled[:, 1:] @ scaled[:, 1:].T

    def noise_variance(self) -> Tensor:
        """Observation noise variance of each fidelity, `(m,)`."""
        return self.log_noise.exp()

    def between(self, x_a: Tensor, x_b: Tensor) -> tuple[Tensor, Tensor]:
        """Kernels k_t and k_d between rows of features `(a, d)` and `(b, d)`, `(a, b)` each."""
        return (
            matern(x_a, x_b, self.target_kernel.lengthscale),
            matern(x_a, x_b, self.discrepancy_kernel.lengthscale),
        )

    def covariance(self, x_a: Tensor, of_a: Tensor, x_b: Tensor, of_b: Tensor) -> Tensor:
        """Prior covariance of f; `of_a (a, m)` and `of_b (b, m)` are one-hot fidelities."""
        total = MEAN_VARIANCE * (of_a @ of_b.T)
        pairs = zip(self.between(x_a, x_b), self.signal_covariances(), strict=True)
        for kernel, signal in pairs:
            total = total + kernel * (of_a @ signal @ of_b.T)
        return total

    def log_prior(self) -> Tensor:
        """Log density of the free parameters up to a constant, a scalar."""
        return (
            _log_lengthscale_prior(self.target_kernel)
            + _log_lengthscale_prior(self.discrepancy_kernel)
            + _log_normal(self.partials, _PARTIAL_PRIOR)
            + _log_normal(self.log_signal, _LOG_SIGNAL_PRIOR)
            + _log_normal(self.log_noise, _LOG_NOISE_PRIOR)
        )

    def explain_by_noise(self) -> None:
        """Set long lengthscales and much noise, the rival of the priors' wiggly, exact modes.

        Noise and a process with short lengthscales explain the same data; each holds an optimum.
        """
        with torch.no_grad():
            for kernel in (self.target_kernel, self.discrepancy_kernel):
                kernel.lengthscale = _SMOOTH * math.sqrt(self.n_features)
            self.log_noise.fill_(_NOISY)

    def randomise(self, generator: torch.Generator) -> None:
        """Draw the free parameters near their priors, for another start of the optimiser."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    step = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    low, high = BOUNDS[name]
                    parameter.copy_((parameter + step).clamp(low, high))


def matern(x_a: Tensor, x_b: Tensor, lengthscale: Tensor) -> Tensor:
    """Matérn-5/2 correlation of rows `(a, d)` and `(b, d)`, `(a, b)`; `lengthscale (1, d)`.

    Rasmussen & Williams 2006, eq. 4.17. GPyTorch's own, which the tests compare with, takes
    twice as long forwards and backwards.
    """
    a, b = x_a / lengthscale, x_b / lengthscale
    squares = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * (a @ b.T)
    # Below rounding the gradient of the root would be infinite; clamping makes it 0.
    r = (5 * squares.clamp_min(1e-30)).sqrt()
    return (1 + r + r.square() / 3) * torch.exp(-r)


def stable_cholesky(matrix: Tensor) -> Tensor:
    """Lower Cholesky factor `(n, n)`, with up to 1e-4 of the mean diagonal added if it must.

    RuntimeError when even that does not make `matrix` positive definite.
    """
    # psd_safe_cholesky's jitter is absolute: measure it against the matrix.
    size = float(matrix.diagonal().mean()) if len(matrix) else 1.0
    try:
        factor: Tensor = psd_safe_cholesky(matrix / size, jitter=1e-8, max_tries=5)
        return factor * math.sqrt(size)
    except (NotPSDError, NanError) as error:
        raise RuntimeError(
            "expected a positive definite covariance of the observations, got one that is not, "
            "even with 1e-4 of its diagonal added: look for absurd features or values"
        ) from error


def _matern(n_features: int) -> Any:
    """BoTorch's Matérn-5/2 kernel with its lengthscale parametrised by a logarithm."""
    kernel = get_covar_module_with_dim_scaled_prior(n_features, use_rbf_kernel=False)
    kernel.register_constraint(
        "raw_lengthscale",
        GreaterThan(_MIN_LENGTHSCALE, transform=torch.exp, inv_transform=torch.log),
    )
    kernel.lengthscale = max(float(kernel.lengthscale_prior.mode), 2 * _MIN_LENGTHSCALE)
    return kernel


def _log_lengthscale_prior(kernel: Any) -> Tensor:
    density: Tensor = kernel.lengthscale_prior.log_prob(kernel.lengthscale).sum()
    return density


def _cholesky_row(partials: Tensor, width: int) -> Tensor:
    """One row of a correlation's Cholesky factor from `partials (i,)`, `(width,)`."""
    entries, left = [], torch.ones((), dtype=torch.float64)
    for partial in partials:
        entries.append(partial * left.sqrt())
        left = left * (1 - partial**2)
    entries.append(left.sqrt())
    padding = torch.zeros(width - len(entries), dtype=torch.float64)
    return torch.cat([torch.stack(entries), padding])


def _log_normal(values: Tensor, prior: tuple[float, float]) -> Tensor:
    """Log density of independent normals up to a constant."""
    mean, sd = prior
    return -0.5 * ((values - mean) / sd).square().sum()

"""The joint prior of all fidelities: the target's process, and what a cheap fidelity adds to it.

In standard units (see `outcomes`), an observation of x at fidelity i is

    y = mu_i + s_i (L_i0 t(x) + sum_k L_ik d_k(x)) + noise_i

with independent processes: t, the target's, with kernel k_t, and discrepancies d_k, with kernel
k_d. L is the Cholesky factor of a learned correlation matrix R, target first, so the target is
s t(x) alone and R holds the correlations between fidelities at one x. It is the autoregressive
model of Kennedy & O'Hagan 2000 (eq. 1) read from the target down, a linear model of
coregionalisation with two kernels: with one kernel (Bonilla et al. 2007) an unrelated cheap
fidelity would still impose its lengthscales on the target. mu_i ~ N(0, 1) is integrated out, so
that the level of a fidelity with few observations is honestly uncertain. Both kernels are made
for what the features are (see `correlations`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor, nn

from surrogate.against import Against
from surrogate.blocks import Blocks, layout
from surrogate.correlations import Correlation
from surrogate.encoded import Encoded, Pairs, compare, encode
from surrogate.fidelity_signals import Autoregressive, FidelitySignals, log_normal

MEAN_VARIANCE = 1.0
"""Prior variance of the level mu of each fidelity, in standard units."""

_LOG_NOISE_PRIOR = (-4.0, 1.5)
"""Normal prior on the log noise variance: Hvarfner et al. 2024, but wider (sd 1 there), because
what a cheap fidelity sees and the target does not looks like noise."""

_NOISY = -1.0
"""Log noise variance of a start that explains by noise."""

_LEAST_NOISE_OF_WORDS = 0.01
"""Least noise variance of few words. Values of words often come in steps, and equal
ones would be explained best by letters that cannot matter at all, known without any noise."""

BOUNDS: dict[str, tuple[float, float]] = {
    "raw_lengthscale": (-7.0, 9.0),
    "log_rates": (-12.0, 5.0),
    "log_similarity_rates": (-7.0, 5.0),
    "log_bias": (-7.0, 5.0),
    "log_power": (-3.0, 3.0),
    "linear_logit": (-5.0, 5.0),
    "additive_logit": (-5.0, 5.0),
    "gap_logits": (-5.0, 5.0),
    "partials": (-3.0, 3.0),
    "log_signal": (-4.0, 3.0),
    "log_noise": (-13.8, 3.0),
}
"""Bounds of each free parameter, by a word of its name.

The noise variance stays above 1e-6 of the outcomes'.
"""


class JointPrior(nn.Module):
    """Prior covariance between any two (x, fidelity), in standard units.

    With `is_correlated=False` the fidelities are independent of each other. `blocks` say what
    the features are (None: all continuous); `signals` how the fidelities hang together (None: any
    correlations); `is_of_many` that there are many observations (see `Correlation`).
    """

    def __init__(
        self,
        n_features: int,
        n_fidelities: int,
        is_correlated: bool,
        blocks: Blocks | None = None,
        signals: FidelitySignals | None = None,
        is_of_many: bool = False,
        is_of_motifs: bool = False,
    ) -> None:
        super().__init__()
        self.n_fidelities = n_fidelities
        self.columns = layout(blocks, n_features)
        self.target_kernel = Correlation(self.columns, is_of_many, is_of_motifs)
        self.discrepancy_kernel = Correlation(self.columns, is_of_many, is_of_motifs)
        self.signals = signals or Autoregressive(n_fidelities, is_correlated)
        self._least_noise = _LEAST_NOISE_OF_WORDS if self.columns.words and not is_of_many else 0.0
        self.log_noise = nn.Parameter(torch.full((n_fidelities,), _LOG_NOISE_PRIOR[0]))
        self.double()

    def correlation(self) -> Tensor:
        """Correlation R between the signals of the fidelities at one x, `(m, m)`."""
        return self.signals.correlation()

    def signal_covariances(self) -> tuple[Tensor, Tensor]:
        """Covariance between the fidelities that k_t and that k_d carries, `(m, m)` each."""
        return self.signals.covariances()

    def fix_noise(self, variance: Tensor) -> None:
        """Take the noise variance of each fidelity, `(m,)`, as given: it is not learned.

        None is below what keeps the covariance of duplicated points positive definite.
        """
        self._least_noise = 0.0
        self.log_noise.requires_grad_(False)
        self.log_noise.copy_(variance.log().clamp_min(bounds_of("log_noise")[0]))

    def noise_variance(self) -> Tensor:
        """Observation noise variance of each fidelity, `(m,)`."""
        return self.log_noise.exp() + self._least_noise

    def compare(self, x_a: Tensor | Encoded, x_b: Tensor | Encoded) -> Pairs:
        """What rows of features `(a, d)` and `(b, d)` have in common, once for many kernels."""
        return compare(self.encode(x_a), self.encode(x_b))

    def encode(self, x: Tensor | Encoded) -> Encoded:
        """Rows of features, taken apart."""
        return x if isinstance(x, Encoded) else encode(x, self.columns)

    def covariance(
        self, x_a: Tensor | Encoded, of_a: Tensor, x_b: Tensor | Encoded, of_b: Tensor
    ) -> Tensor:
        """Prior covariance of f; `of_a (a, m)` and `of_b (b, m)` are one-hot fidelities."""
        return self.covariance_of(self.compare(x_a, x_b), of_a, of_b)

    def covariance_of(self, pairs: Pairs, of_a: Tensor, of_b: Tensor) -> Tensor:
        """`covariance` of rows that have been compared."""
        kernel = self.discrepancy_kernel
        return self._joint(self.target_kernel(pairs), lambda: kernel(pairs), of_a, of_b)

    def against(self, fixed: Encoded) -> tuple[Against, Against]:
        """k_t and k_d of any rows with `fixed` ones, with the parameters as they are now.

        k_d is k_t where there is one fidelity, which has no discrepancies.
        """
        target = self.target_kernel.against(fixed)
        is_alone = self.n_fidelities == 1
        return target, target if is_alone else self.discrepancy_kernel.against(fixed)

    def covariance_with(
        self, against: tuple[Against, Against], asked: Encoded, of_a: Tensor, of_b: Tensor
    ) -> Tensor:
        """`covariance` of `asked` rows with fixed ones, what `against` made of them."""
        target, rest = against
        return self._joint(target(asked), lambda: rest(asked), of_a, of_b)

    def _joint(self, k_t: Tensor, k_d: Callable[[], Tensor], of_a: Tensor, of_b: Tensor) -> Tensor:
        target, rest = self.signal_covariances()
        signal = of_a @ target @ of_b.T
        total: Tensor = MEAN_VARIANCE * (of_a @ of_b.T) + k_t * signal
        # The target has no discrepancies: half the work is saved where it is alone.
        if bool(of_a[:, :-1].any()) and bool(of_b[:, :-1].any()):
            total = total + k_d() * (of_a @ rest @ of_b.T)
        return total

    def log_prior(self) -> Tensor:
        """Log density of the free parameters up to a constant, a scalar."""
        return (
            self.target_kernel.log_prior()
            + self.discrepancy_kernel.log_prior()
            + self.signals.log_prior()
            + log_normal(self.log_noise, _LOG_NOISE_PRIOR)
        )

    def explain_by_noise(self) -> None:
        """Set smooth kernels and much noise, the rival of the priors' wiggly, exact modes.

        Noise and a process with short lengthscales explain the same data; each holds an optimum.
        """
        with torch.no_grad():
            for kernel in (self.target_kernel, self.discrepancy_kernel):
                kernel.smooth()
            if self.log_noise.requires_grad:
                self.log_noise.fill_(_NOISY)

    def randomise(self, generator: torch.Generator) -> None:
        """Draw the free parameters near their priors, for another start of the optimiser."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    step = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    low, high = bounds_of(name)
                    parameter.copy_((parameter + step).clamp(low, high))


def bounds_of(name: str) -> tuple[float, float]:
    """Lowest and highest value of the parameter `name` of a `JointPrior`."""
    (bounds,) = (BOUNDS[part] for part in name.split(".") if part in BOUNDS)
    return bounds


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

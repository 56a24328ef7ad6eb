"""The surrogate that chooses by how much there is to learn from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surrogate.deep_kernel import DeepKernel
from surrogate.gp import GP, MultiFidelityGP
from surrogate.surrogate import Surrogate


class Auto(Surrogate):
    """An exact GP up to `max_exact` finite observations, and `deep_kernel` beyond.

    The exact GP is `gp` with one fidelity, else `multi_fidelity_gp`. Its time grows with the cube
    of the observations; `benchmarks/surrogates.py` measures where it stops being worth it.
    `n_starts` and `max_iterations` are the exact GP's, `outlier_mads` goes to either. `summary()`
    says which was chosen, and why.
    """

    def __init__(
        self,
        *,
        max_exact: int = 1000,
        n_starts: int = 2,
        max_iterations: int = 100,
        outlier_mads: float | None = 6.0,
    ) -> None:
        if max_exact < 0:
            raise ValueError(f"expected max_exact of 0 or more, got {max_exact}")
        self._max_exact, self._outlier_mads = max_exact, outlier_mads
        self._fit_options = {"n_starts": n_starts, "max_iterations": max_iterations}
        self._exact(n_fidelities=1)  # an impossible option is told now
        self.n_fidelities = 0

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        """Choose, and learn from `features (n, d)`, `fidelities (n,)` and `values (n,)`.

        ValueError as the chosen surrogate's.
        """
        n = int(torch.isfinite(values).sum())
        chosen = self._choice(n, n_fidelities)
        chosen.fit(features, fidelities, values, n_fidelities, seed)
        self._chosen, self._n, self.n_fidelities = chosen, n, n_fidelities

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f at one fidelity, without noise; `(q,)` each."""
        return self._fitted().predict(features, fidelity)

    def covariance(
        self, features_a: Tensor, fidelities_a: Tensor, features_b: Tensor, fidelities_b: Tensor
    ) -> Tensor:
        """Posterior covariance of f between two sets of (x, fidelity), `(q_a, q_b)`."""
        return self._fitted().covariance(features_a, fidelities_a, features_b, fidelities_b)

    def fidelity_covariance(self, features: Tensor) -> Tensor:
        """Posterior covariance between the fidelities at each x, `(q, m, m)`, without noise."""
        return self._fitted().fidelity_covariance(features)

    def noise_variance(self) -> Tensor:
        """Observation noise variance at each fidelity, `(m,)`."""
        return self._fitted().noise_variance()

    def summary(self) -> dict[str, Any]:
        """The chosen surrogate's summary, with `chosen` and `because` before it."""
        model = self._fitted()
        kinds = {GP: "gp", MultiFidelityGP: "multi_fidelity_gp", DeepKernel: "deep_kernel"}
        side = "no more than" if self._n <= self._max_exact else "more than"
        because = f"{self._n} observations, {side} {self._max_exact}"
        return {"chosen": kinds[type(model)], "because": because} | model.summary()

    def _choice(self, n: int, n_fidelities: int) -> Surrogate:
        if n > self._max_exact:
            return DeepKernel(outlier_mads=self._outlier_mads)
        return self._exact(n_fidelities)

    def _exact(self, n_fidelities: int) -> MultiFidelityGP:
        kind = MultiFidelityGP if n_fidelities > 1 else GP
        return kind(**self._fit_options, outlier_mads=self._outlier_mads)

    def _fitted(self) -> Surrogate:
        if self.n_fidelities == 0:
            raise RuntimeError("expected a fitted surrogate: call fit(...) first")
        return self._chosen

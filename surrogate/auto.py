"""The surrogate that chooses by the kind of space and by how much there is to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from surrogate.averaged import Averaged
from surrogate.blocks import Layout, layout
from surrogate.deep_kernel import DeepKernel
from surrogate.floor import floor_of
from surrogate.floored import Floored
from surrogate.gp import GP, MultiFidelityGP
from surrogate.surrogate import Surrogate

_KINDS = {GP: "gp", MultiFidelityGP: "multi_fidelity_gp", DeepKernel: "deep_kernel"}


class Auto(Surrogate):
    """An exact GP up to `max_exact` finite observations, and `deep_kernel` beyond.

    Where the worst value is shared by many words or choices of one fidelity, it is a floor
    that is learned apart (see `floored`), and what is above it by an exact GP, whatever
    `max_exact` says: from 1500 observations of it at most. Of words that GP is averaged with one
    whose motifs may stand anywhere (see `averaged`).

    The exact GP is `gp` with one fidelity, else `multi_fidelity_gp`; the kernel of either is made
    for what the features are (see `correlations`). The exact GP's time grows with the cube
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
        self._n_starts, self._max_iterations = n_starts, max_iterations
        self._exact(n_fidelities=1)  # an impossible option is told now
        self._warm: Mapping[str, Any] = {}
        self.n_fidelities = 0

    def fit(
        self, features: Tensor, fidelities: Tensor, values: Tensor, n_fidelities: int, seed: int
    ) -> None:
        """Choose, and learn from `features (n, d)`, `fidelities (n,)` and `values (n,)`.

        ValueError as the chosen surrogate's.
        """
        floor = self._floor(values, n_fidelities, features.shape[1])
        is_told = values.isfinite() if floor is None else values.isfinite() & (values != floor)
        n = int(is_told.sum())
        chosen = self._choice(n, n_fidelities) if floor is None else self._exact(n_fidelities)
        chosen.feature_blocks, chosen.sign = self.feature_blocks, self.sign
        self._kind = _KINDS[type(chosen)]
        if self._warm.get("kind") == self._kind:
            chosen.warm_start(self._warm["state"])
        self._warm = {}
        self._chosen = (
            chosen if floor is None else Floored(self._above(chosen, features.shape[1]), floor)
        )
        self._chosen.fit(features, fidelities, values, n_fidelities, seed)
        self.n_fidelities = n_fidelities
        why = _reason(n, self._max_exact, n_fidelities) if floor is None else f"{n} above a floor; "
        self._because = why + _reason_of_space(layout(self.feature_blocks, features.shape[1]))

    def predict(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f at one fidelity, without noise; `(q,)` each."""
        return self._fitted().predict(features, fidelity)

    def mixture(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor, Tensor]:
        """Means, sds and log weights of the Gaussians that f is a mixture of, `(p, q)` each."""
        return self._fitted().mixture(features, fidelity)

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

    def state(self) -> dict[str, Any]:
        """The chosen surrogate's state, and its kind."""
        chosen = self._fitted()
        return {"kind": self._kind, "state": chosen.state()}

    def warm_start(self, state: Mapping[str, Any]) -> None:
        """Let the next `fit` start from `state`, should it choose the same kind again.

        ValueError for what is no state of `auto`.
        """
        if state and set(state) != {"kind", "state"}:
            raise ValueError(f"expected a state with kind and state, got {sorted(state)}")
        self._warm = dict(state)

    def summary(self) -> dict[str, Any]:
        """The chosen surrogate's summary, with `chosen` and `because` before it."""
        model = self._fitted()
        return {"chosen": self._kind, "because": self._because} | model.summary()

    def _choice(self, n: int, n_fidelities: int) -> MultiFidelityGP | DeepKernel:
        if n > self._max_exact:
            return DeepKernel(outlier_mads=self._outlier_mads)
        return self._exact(n_fidelities)

    def _exact(self, n_fidelities: int) -> MultiFidelityGP:
        kind = MultiFidelityGP if n_fidelities > 1 else GP
        return kind(
            n_starts=self._n_starts,
            max_iterations=self._max_iterations,
            outlier_mads=self._outlier_mads,
        )

    def _above(self, chosen: Surrogate, n_features: int) -> Surrogate:
        """Of words, with equal belief, a model too whose motifs may stand anywhere."""
        if not layout(self.feature_blocks, n_features).words:
            return chosen
        motifs = GP(
            n_starts=self._n_starts,
            max_iterations=self._max_iterations,
            outlier_mads=self._outlier_mads,
            is_of_motifs=True,
        )
        both = Averaged(chosen, motifs)
        both.feature_blocks, both.sign = self.feature_blocks, self.sign
        return both

    def _floor(self, values: Tensor, n_fidelities: int, n_features: int) -> float | None:
        """The floor of what is observed; None where there is none, or no way to learn of it."""
        columns = layout(self.feature_blocks, n_features)
        if self.sign is None or n_fidelities > 1 or columns.continuous or not columns.choices:
            return None
        return floor_of(values[values.isfinite()], self.sign)

    def _fitted(self) -> Surrogate:
        if self.n_fidelities == 0:
            raise RuntimeError("expected a fitted surrogate: call fit(...) first")
        return self._chosen


def _reason(n: int, max_exact: int, n_fidelities: int) -> str:
    side = "no more than" if n <= max_exact else "more than"
    plural = "fidelity" if n_fidelities == 1 else "fidelities"
    return f"{n} observations, {side} {max_exact}; {n_fidelities} {plural}; "


def _reason_of_space(columns: Layout) -> str:
    """What the features are, which the kernel is made for."""
    kinds = {
        "numbers": columns.continuous,
        "choices": columns.choices,
        "words": columns.words,
        "sets": columns.sets,
    }
    return "features: " + ", ".join(f"{kind} ({len(of)})" for kind, of in kinds.items() if of)

"""A deep ensemble: small networks whose disagreement is the doubt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from surrogate.ensemble_posterior import (
    EnsemblePosterior,
    as_inputs,
    member_values,
    stretch_and_noise,
)
from surrogate.held_out import split
from surrogate.members import Members, training
from surrogate.posterior import Observations, one_hot
from surrogate.standardised import Standardised, StandardPosterior

_LEARNING_RATE, _FINISHING_RATE = 2e-2, 1e-3
_N_SNAPSHOTS = 12
_LEAST_STEPS, _STEPS_A_POINT = 200, 4
"""Few observations: fewer steps."""
_LEAST_HELD_OUT = 16
"""With fewer held-out observations to judge by, training runs to its end on all."""


class Ensemble(Standardised):
    """A deep ensemble over every fidelity: `n_members` networks with random priors, one batch.

    Lakshminarayanan et al. 2017 (arXiv 1612.01474), with randomised priors (Osband et al. 2018,
    arXiv 1806.03335) in place of the bootstrap, which takes from every member a part of the
    observations and, as measured here, made errors larger. The fidelity is an input beside the
    features. A held-out part of the observations says when to stop, how far the members'
    disagreement must be stretched, and what is noise at each fidelity; then all observations take
    part in a last, gentle stretch of training. At most `n_steps` steps of `batch_size`
    observations; `width` hidden units a layer.

    The members' covariance has a rank below their number, so a part 1 / n_members of it gives way
    to one of the same variances in which only near points at one fidelity vary together.
    """

    def __init__(
        self,
        *,
        n_members: int = 8,
        n_steps: int = 2000,
        batch_size: int = 256,
        width: int = 64,
        prior_scale: float = 0.5,
        outlier_mads: float | None = 6.0,
    ) -> None:
        super().__init__(outlier_mads)
        least = {"n_members": 2, "n_steps": 1, "batch_size": 1, "width": 1}
        given = dict(zip(least, (n_members, n_steps, batch_size, width), strict=True))
        for name, lowest in least.items():
            if given[name] < lowest:
                raise ValueError(f"expected {name} of {lowest} or more, got {given[name]}")
        if not prior_scale > 0:
            raise ValueError(f"expected prior_scale above 0, got {prior_scale}")
        self._n_members, self._n_steps, self._batch_size = n_members, n_steps, batch_size
        self._width_of_layer, self._prior_scale = width, prior_scale

    def summary(self) -> dict[str, Any]:
        """Describe what was fitted, for people and JSON; lists run over fidelities.

        `noise_sd` and `location` are in the property's units; `stretch` is the factor on the
        members' spread; correlations between fidelities are those of the members' predictions
        over the observed points.
        """
        self._fitted()
        correlation = self._ensemble.correlation(self._reference)
        return {
            "model": "deep ensemble with randomised priors",
            "n_observations": self._n_observations,
            "n_members": self._n_members,
            "trained_steps": self._step,
            "stretch": self._stretch**0.5,
            "location": self._outcomes.location.tolist(),
            "noise_sd": self.noise_variance().sqrt().tolist(),
            "correlation_with_target": correlation[-1].tolist(),
            "fidelity_correlation": correlation.tolist(),
        }

    def _learn(
        self, seen: Observations, n_fidelities: int, seed: int
    ) -> tuple[StandardPosterior, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        members = Members(
            seen.x.shape[1],
            n_fidelities,
            n_members=self._n_members,
            width=self._width_of_layer,
            prior_scale=self._prior_scale,
            seed=seed,
        )
        judges, teachers = split(seen, n_fidelities, generator)
        if len(judges) < _LEAST_HELD_OUT:
            judges, teachers = seen.rows(torch.arange(0)), seen
        n_steps = min(self._n_steps, max(_LEAST_STEPS, _STEPS_A_POINT * len(seen)))
        self._step = self._train(members, teachers, judges, n_steps, generator)
        self._stretch, noise = stretch_and_noise(members, judges)
        if len(judges) > 0:
            for _ in self._training(members, seen, n_steps // 5, _FINISHING_RATE, generator):
                pass
        self._ensemble = EnsemblePosterior(members, self._stretch)
        self._reference = seen.x[:: max(len(seen) // 256, 1)]
        return self._ensemble, noise

    def _train(
        self,
        members: Members,
        teachers: Observations,
        judges: Observations,
        n_steps: int,
        generator: torch.Generator,
    ) -> int:
        """Train, and keep the step that the judges like best, the last without any; its number."""
        every = max(n_steps // _N_SNAPSHOTS, 1)
        best, best_step, kept = math.inf, 0, _copy(members)
        for step in self._training(members, teachers, n_steps, _LEARNING_RATE, generator):
            if len(judges) > 0 and step % every == 0:
                error = _error(members, judges)
                if error < best:
                    best, best_step, kept = error, step, _copy(members)
        if len(judges) == 0:
            return n_steps
        members.load_state_dict(kept)
        return best_step

    def _training(
        self,
        members: Members,
        seen: Observations,
        n_steps: int,
        learning_rate: float,
        generator: torch.Generator,
    ) -> Iterator[int]:
        return training(
            members,
            as_inputs(seen.x, one_hot(seen.fidelities, members.n_fidelities)),
            seen.y,
            1 / (1 + seen.extra_noise),  # what is known to be noisier weighs less
            n_steps=n_steps,
            batch_size=self._batch_size,
            learning_rate=learning_rate,
            generator=generator,
        )


def _error(members: Members, judges: Observations) -> float:
    """Mean squared error of the members' mean."""
    values = member_values(members, judges.x, one_hot(judges.fidelities, members.n_fidelities))
    return float(((values.mean(0) - judges.y).square() / (1 + judges.extra_noise)).mean())


def _copy(members: Members) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in members.state_dict().items()}

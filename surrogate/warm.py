"""Starting a fit where the one before ended: plain data out, plain data in.

A warm fit is one descent from the earlier optimum, on all observations. It is worth it, and
taken, only where observations are too many for the starts to compete on all of them; and only until
they have doubled since the last fit afresh, lest a poor optimum be inherited for ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from surrogate.fitting import N_SCREEN, free_parameters
from surrogate.kernels import JointPrior

_KEYS = {"n_observations", "parameters"}


def state_of(prior: JointPrior, n_observations: int) -> dict[str, Any]:
    """The free parameters of a fitted prior, and how many observations it was fitted afresh to."""
    parameters = {name: value.detach().tolist() for name, value in free_parameters(prior).items()}
    return {"n_observations": n_observations, "parameters": parameters}


def checked_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `state`; {} is the state of nothing. ValueError for anything else."""
    if state and (set(state) != _KEYS or not isinstance(state["parameters"], Mapping)):
        raise ValueError(
            f"expected a state with {' and '.join(sorted(_KEYS))} as state() gives it, got "
            f"{sorted(state)}"
        )
    return dict(state)


def warm_parameters(
    state: Mapping[str, Any], prior: JointPrior, n_observations: int
) -> dict[str, Tensor] | None:
    """Where a fit to so many observations should start; None: afresh.

    Afresh also where the parameters are not those of `prior`: another space, other fidelities.
    """
    if not state or not N_SCREEN < n_observations <= 2 * state["n_observations"]:
        return None
    given = {
        name: torch.tensor(value, dtype=torch.float64)
        for name, value in state["parameters"].items()
    }
    free = free_parameters(prior)
    if given.keys() != free.keys():
        return None
    fits = all(given[name].shape == free[name].shape for name in free)
    is_finite = all(math.isfinite(float(value.sum())) for value in given.values())
    return given if fits and is_finite else None

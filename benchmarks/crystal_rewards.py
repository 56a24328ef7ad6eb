"""What the samplers are trained on: three log rewards, each times the measure of its space.

- density: log R = density, in g/cm³ (exact)
- formation energy: log R = −2 · energy, in eV/atom, as `EnergyProxy` predicts it
- band gap: log R = −3 ln(1 + ((gap − 1.34) / 0.25)²), in eV, as the shipped model of compositions
  predicts: radial, and not so steep far off that the nearest gaps would drown in the loss

Named axes: n rows, e elements of the band-gap model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.crystal_proxy import EnergyProxy
from benchmarks.crystal_spaces import density
from oracles.band_gap_model import REFERENCES, gap_model
from sampler.environments.crystal import Crystal

DENSITY_SCALE = 1.0
"""Per g/cm³."""
ENERGY_SCALE = -2.0
"""Per eV/atom."""
GAP, GAP_WIDTH, GAP_SCALE = 1.34, 0.25, 3.0
"""eV: the best gap of a single-junction solar cell (Shockley & Queisser 1961), and how near."""

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Goal:
    """A property of terminal states `(n, w) → (n,)`, its log reward, and what is trained on."""

    name: str
    unit: str
    space: Crystal
    value: Function
    log_reward: Function

    def target(self, states: Tensor) -> Tensor:
        """Log reward plus log measure: what log p should equal but for a constant."""
        return self.log_reward(states) + self.space.log_measure(states)


ALONE = "_alone"
"""Ends the names of goals whose space has no measure: R alone."""


def density_goal(space: Crystal) -> Goal:
    """Dense crystals."""
    value = partial(density, space)
    return Goal("density", "g/cm³", space, value, partial(_scaled, DENSITY_SCALE, value))


def energy_goal(space: Crystal, proxy: EnergyProxy) -> Goal:
    """Crystals of low formation energy, says the proxy."""
    return Goal("formation_energy", "eV/atom", space, proxy, partial(_scaled, ENERGY_SCALE, proxy))


def gap_goal(space: Crystal) -> Goal:
    """Crystals whose band gap is near 1.34 eV, says the model."""
    value = partial(band_gap, space)
    return Goal("band_gap", "eV", space, value, partial(_near_gap, value))


def band_gap(space: Crystal, states: Tensor) -> Tensor:
    """Band gap in eV as the oracle `band_gap` predicts it of a composition, `(n,)`.

    The same numbers to rounding, for many rows at once.
    """
    model = gap_model()
    symbols = list(model.elements.symbols)
    counts = space.counts(states).numpy()
    fractions = np.zeros((len(counts), len(symbols)))
    fractions[:, [symbols.index(element.symbol) for element in space.elements]] = counts
    fractions /= fractions.sum(axis=1, keepdims=True)
    gaps = model.gaps(fractions).mean(axis=0)
    return torch.from_numpy(gaps[:, REFERENCES.index("experiment")])


def _scaled(scale: float, value: Function, states: Tensor) -> Tensor:
    return scale * value(states)


def _near_gap(value: Function, states: Tensor) -> Tensor:
    return -GAP_SCALE * ((value(states) - GAP) / GAP_WIDTH).square().log1p()

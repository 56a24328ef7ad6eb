"""A cheap oracle that explains exactly as much of the truth as asked, and looks like the rest.

Named axes: n points, d coordinates, s sample points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

Array = NDArray[np.float64]
Formula = Callable[[Array], Array]

N_WAVES = 24
LENGTH_SCALE = 0.25
"""Of the unrelated function, as a share of the box, for each coordinate."""
LOG2_SAMPLE = 12
"""The mean, scale and correlation are taken over 2^12 Sobol points of the box."""


@dataclass(frozen=True)
class Mixture:
    """f mixed with a function g that is uncorrelated with it, at f's own mean and scale.

        value = m + s (sqrt(r2) u + sqrt(1 - r2) v),   u = (f - m) / s,
        v = (w - c u) / sqrt(1 - c^2),                 w = (g - mean g) / sd g,  c = corr(g, f)

    over points uniform in the box: u and v have mean 0, variance 1 and no correlation, so the
    squared correlation of the value with f is `r2`.
    """

    f: Formula
    g: Formula
    r2: float
    mean: float
    scale: float
    g_mean: float
    g_scale: float
    correlation: float

    def __call__(self, x: Array) -> Array:
        """Values `(n,)` at the points `x` `(n, d)`."""
        u = (self.f(x) - self.mean) / self.scale
        w = (self.g(x) - self.g_mean) / self.g_scale
        v = (w - self.correlation * u) / math.sqrt(1 - self.correlation**2)
        return self.mean + self.scale * (math.sqrt(self.r2) * u + math.sqrt(1 - self.r2) * v)


def mixture(f: Formula, box: Sequence[tuple[float, float]], r2: float) -> Mixture:
    """`f` over the `box` mixed with the same unrelated function of that box every time.

    ValueError where `f` is constant over the box: then nothing can be uncorrelated with it.
    """
    g = waves(box)
    low, high = np.array(box).T
    sample = qmc.Sobol(len(box), seed=0).random_base2(LOG2_SAMPLE)
    x = low + (high - low) * sample
    at_f, at_g = f(x), g(x)
    if not at_f.std() > 0:
        raise ValueError("r2 below 1: expected a function that varies over its box")
    correlation = float(np.corrcoef(at_f, at_g)[0, 1])
    statistics = (at_f.mean(), at_f.std(), at_g.mean(), at_g.std(), correlation)
    return Mixture(f, g, r2, *map(float, statistics))


def waves(box: Sequence[tuple[float, float]]) -> Formula:
    """A smooth function g(x) = sum over k of cos(omega_k . z + phi_k), z = x scaled to [0, 1]^d.

    A sample path of a Gaussian process with a squared exponential kernel, up to its scale (random
    Fourier features: Rahimi and Recht 2007): omega ~ N(0, d^-1/2 / length scale), always the same.
    """
    low, high = np.array(box).T
    rng = np.random.default_rng(len(box))
    # Divided by d^(1/4): in many dimensions a product of as short a scale would be noise.
    omega = rng.normal(size=(N_WAVES, len(box))) / (LENGTH_SCALE * len(box) ** 0.25)
    phase = rng.uniform(0, 2 * math.pi, N_WAVES)

    def g(x: Array) -> Array:
        z = (x - low) / (high - low)
        total = np.zeros(len(x))
        for row, shift in zip(omega, phase, strict=True):
            total += _cosine(_product(z, row) + shift)
        return total

    return g


def _product(z: Array, row: Array) -> Array:
    """`z @ row`, each row by itself: a matrix product's rounding depends on its shape."""
    total = np.zeros(len(z))
    for column, weight in zip(z.T, row, strict=True):
        total += column * weight
    return total


def _cosine(x: Array) -> Array:
    return np.array([math.cos(value) for value in x.tolist()], dtype=np.float64)

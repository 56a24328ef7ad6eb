"""Park's first function and its cheaper form."""

from __future__ import annotations

import math

import numpy as np

from oracles.synthetic import Array, Synthetic, elementwise


class Park(Synthetic):
    """Park's first function in four dimensions, and its published low-accuracy form.

        f = x1 / 2 (sqrt(1 + (x2 + x3^2) x4 / x1^2) - 1) + (x1 + 3 x4) exp(1 + sin x3)
        low = (1 + sin(x1) / 10) f - 2 x1 + x2^2 + x3^2 + 0.5
        value = (1 - bias) f + bias low

    on [0, 1]^4, where the greatest value of f is 25.589 at (1, 1, 1, 1). At x1 = 0 the first term
    is its limit, sqrt((x2 + x3^2) x4) / 2. Source: Park 1991 (thesis); the low form of Xiong,
    Qian and Wu 2013, "Sequential design and analysis of high-accuracy and low-accuracy computer
    codes", Technometrics. `r2` below 1 misleads: see `oracles.synthetic.Synthetic`.
    """

    box = ((0.0, 1.0),) * 4

    def formula(self, x: Array) -> Array:
        """Values `(n,)` of the formula above at the points `x` `(n, 4)`."""
        x1, x2, x3, x4 = x.clip(0.0, 1.0).T
        # Without the division by x1, which may be 0.
        root = (np.sqrt(x1 * x1 + (x2 + x3 * x3) * x4) - x1) / 2
        sine = elementwise(math.sin, x3)
        high = root + (x1 + 3 * x4) * elementwise(math.exp, 1 + sine)
        low = (1 + elementwise(math.sin, x1) / 10) * high - 2 * x1 + x2 * x2 + x3 * x3 + 0.5
        values: Array = high if self.bias == 0 else (1 - self.bias) * high + self.bias * low
        return values

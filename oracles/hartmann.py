"""The six-dimensional Hartmann function, to be maximised, and its cheaper forms."""

from __future__ import annotations

import math

import numpy as np

from oracles.synthetic import Array, Synthetic, elementwise

ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


class Hartmann(Synthetic):
    """The six-dimensional Hartmann function with its sign turned, so that it is maximised.

        f = sum over i of alpha_i exp(-sum over j of A_ij (x_j - P_ij)^2),
        alpha = (1 - 0.1 bias, 1.2, 3, 3.2)

    on [0, 1]^6; exact (bias 0) its maximum is 3.32237, near (0.20169, 0.150011, 0.476874,
    0.275332, 0.311652, 0.6573). `bias` in [0, 1] is 1 - s of the fidelity parameter s of
    `botorch.test_functions.multi_fidelity.AugmentedHartmann` (the multi-fidelity form of Wu et
    al. 2019), which is minus this function. The published cheap form is a very good one: its
    squared correlation with the exact one is above 0.999. `r2` below 1 misleads: see
    `oracles.synthetic.Synthetic`.
    """

    box = ((0.0, 1.0),) * 6

    def formula(self, x: Array) -> Array:
        """Values `(n,)` of the formula above at the points `x` `(n, 6)`."""
        alpha = ALPHA - np.array([0.1 * self.bias, 0.0, 0.0, 0.0])
        total = np.zeros(len(x))
        for weight, stretch, centre in zip(alpha, A, P, strict=True):
            total += weight * elementwise(math.exp, -_squared_distance(x, stretch, centre))
        return total


def _squared_distance(x: Array, stretch: Array, centre: Array) -> Array:
    """Sum over j of stretch_j (x_j - centre_j)^2, `(n,)`, coordinate by coordinate."""
    total = np.zeros(len(x))
    for column, weight, middle in zip(x.T, stretch, centre, strict=True):
        total += weight * (column - middle) * (column - middle)
    return total

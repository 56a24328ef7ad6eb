"""The Branin function and its cheaper forms."""

from __future__ import annotations

import math

from oracles.synthetic import Array, Synthetic, elementwise


class Branin(Synthetic):
    """The augmented Branin function: f(x1, x2; bias), exact Branin at bias 0.

        f = (x2 - (b - 0.1 bias) x1^2 + c x1 - 6)^2 + 10 (1 - t) cos(x1) + 10
        b = 5.1 / (4 pi^2),  c = 5 / pi,  t = 1 / (8 pi)

    on [-5, 10] x [0, 15], where exact Branin has its minimum 0.397887 three times: at
    (-pi, 12.275), (pi, 2.275) and (3 pi, 2.475). `bias` in [0, 1] is 1 - s of the fidelity
    parameter s of `botorch.test_functions.multi_fidelity.AugmentedBranin` (Balandat et al. 2020;
    the multi-fidelity form of Wu et al. 2019, "Practical Multi-fidelity Bayesian Optimization for
    Hyperparameter Tuning"), so a larger bias is a cheaper and worse model. `r2` below 1 misleads:
    see `oracles.synthetic.Synthetic`.
    """

    box = ((-5.0, 10.0), (0.0, 15.0))

    def formula(self, x: Array) -> Array:
        """Values `(n,)` of the formula above at the points `x` `(n, 2)`."""
        x1, x2 = x[:, 0], x[:, 1]
        b = 5.1 / (4 * math.pi**2) - 0.1 * self.bias
        # Multiplication, not `**`: its result does not depend on how many rows share one call.
        curve = x2 - b * (x1 * x1) + 5 / math.pi * x1 - 6
        wave = 10 * (1 - 1 / (8 * math.pi)) * elementwise(math.cos, x1)
        values: Array = curve * curve + wave + 10
        return values

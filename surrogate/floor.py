"""The chance that a candidate is worth nothing, learned from which parts the worthless ones have.

Where an outcome is a product, or must pass a filter first, many candidates share one worst value:
the floor. A Gaussian process would bend its whole mean to explain such cliffs. So they are
explained apart: a candidate ends at the floor where any one of its parts is fatal,

    P(not at the floor | x) = exp(-sum_f theta_f x_f),    theta_f ~ Gamma(a, b),

a noisy or (Pearl 1988, section 4.3.2) over the letter or choice at each place and the pairs of
neighbouring letters, wherever they stand, besides what strikes any candidate. a is far below 1, so
few parts are fatal, and one that no good candidate has takes the blame from those that many have.

Named axes: n candidates, f parts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from surrogate.blocks import Layout, Word

LEAST_SHARE, LEAST_COUNT = 0.05, 8
"""The share of the outcomes, and the number, that must be equal to speak of a floor."""
LEAST_ABOVE = 2
"""So many outcomes at least must be above it: something has to be left to learn from."""

_SHAPE_OF_ANY, _SHAPE_OF_PLACE, _SHAPE_OF_PAIR = 0.02, 0.01, 0.1
_RATE = 0.1
"""Prior a of each sort of part, and b: an unseen pair spoils one candidate in five."""
_N_ITERATIONS = 60


def floor_of(values: Tensor, sign: float) -> float | None:
    """The worst of `values (n,)`, where enough of them share it; None where there is no floor.

    `sign` is +1 where more is better, else -1.
    """
    worst = sign * (sign * values).min()
    n_floor = int((values == worst).sum())
    is_floor = n_floor >= max(LEAST_COUNT, LEAST_SHARE * len(values))
    return float(worst) if is_floor and n_floor <= len(values) - LEAST_ABOVE else None


class Chance:
    """P above, from parts `x (n, d)`, of which `is_floor (n,)` ended at the floor.

    Variational: theta_f has a Gamma posterior each; a candidate at the floor was struck by a
    zero-truncated Poisson number of blows, shared out among its parts by exp(E[log theta]).
    """

    def __init__(self, columns: Layout, x: Tensor, is_floor: Tensor) -> None:
        self._columns = columns
        parts = self._parts(x)
        spoiled = parts[is_floor]
        prior = self._prior_shapes()
        self._rate = (_RATE + parts.sum(0)).double()
        shape = prior + 1.0
        for _ in range(_N_ITERATIONS):
            weight = (torch.digamma(shape) - self._rate.log()).exp()
            blows = (spoiled @ weight.float()).double().clamp_min(1e-12)
            each = -1 / torch.expm1(-blows)
            shape = prior + weight * (spoiled.T @ each.float()).double()
        self._log_survival = shape * (self._rate / (self._rate + 1)).log()

    def log_chance(self, x: Tensor) -> Tensor:
        """Log of the probability that each row of `x (n, d)` is not at the floor, `(n,)`."""
        told: Tensor = self._parts(x).double() @ self._log_survival
        return told

    def _parts(self, x: Tensor) -> Tensor:
        """Which parts each candidate has, `(n, f)` float32 of 0 and 1."""
        places = [x[:, at].float() for at in self._columns.choices]
        pairs = [_neighbours(x, word) for word in self._columns.words]
        return torch.cat([torch.ones(len(x), 1, dtype=torch.float32), *places, *pairs], 1)

    def _prior_shapes(self) -> Tensor:
        n_places = sum(at.stop - at.start for at in self._columns.choices)
        n_pairs = sum(word.n_letters**2 for word in self._columns.words)
        shapes = [_SHAPE_OF_ANY, _SHAPE_OF_PLACE, _SHAPE_OF_PAIR]
        counts = torch.tensor([1, n_places, n_pairs])
        return torch.tensor(shapes, dtype=torch.float64).repeat_interleave(counts)


def _neighbours(x: Tensor, word: Word) -> Tensor:
    """Which pairs of letters stand side by side, `(n, k²)` float32."""
    letters = x[:, word.columns].reshape(len(x), word.n_places, word.n_letters).float()
    counts = torch.einsum("npi,npj->nij", letters[:, :-1], letters[:, 1:])
    return counts.flatten(1).clamp_max(1.0)

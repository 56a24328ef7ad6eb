"""The correlation of any rows with fixed ones, once its parameters are learned; no gradients.

What `correlations.Correlation` says of two sets of rows, with all that the fixed side and the
parameters give worked out beforehand: the training of a sampler asks for it many thousand times.

Named axes: q rows that are asked about, n fixed ones, w columns of choices, s words and sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from surrogate.encoded import Encoded
from surrogate.matern import matern
from surrogate.similarities import WordCosine, tanimoto


@dataclass(frozen=True)
class Against:
    """k of the formula in `correlations`, with `fixed` rows.

    `lengthscale (1, c)` of continuous columns and `choices (w, n)`, the weights of what the fixed
    rows chose, are None where there are none; `total` is the sum of all weights; `rates (s,)` the
    logs of what similarities weigh in the details; `shares` those of the details, the linear and
    the additive term.
    """

    fixed: Encoded
    lengthscale: Tensor | None
    total: float
    choices: Tensor | None
    words: Sequence[WordCosine]
    rates: Sequence[float]
    shares: Sequence[float]

    def __call__(self, asked: Encoded) -> Tensor:
        """Correlation of `asked` rows with the fixed ones, `(q, n)`."""
        continuous = self._continuous(asked)
        if self.choices is None:
            assert continuous is not None  # noqa: S101 - every candidate has some features
            return continuous
        agreement, similarities = asked.choices @ self.choices, self._similarities(asked)
        exponent = agreement - (self.total + sum(math.exp(rate) for rate in self.rates))
        for rate, similarity in zip(self.rates, similarities, strict=True):
            exponent.add_(similarity, alpha=math.exp(rate))
        mixed = exponent.clamp_max_(0.0).exp_()
        if continuous is not None:
            mixed = mixed.mul_(continuous)
        if not similarities:
            return mixed
        mixed = mixed.mul_(self.shares[0])
        for similarity in similarities:
            mixed.add_(similarity, alpha=self.shares[1] / len(similarities))
        if len(self.shares) > 2:
            mixed.add_(agreement, alpha=self.shares[2] / self.total)
        return mixed

    def _continuous(self, asked: Encoded) -> Tensor | None:
        if self.lengthscale is None:
            return None
        return matern(asked.continuous, self.fixed.continuous, self.lengthscale)

    def _similarities(self, asked: Encoded) -> list[Tensor]:
        words = [word(own) for word, own in zip(self.words, asked.motifs, strict=True)]
        sets = zip(asked.sets, self.fixed.sets, strict=True)
        return words + [tanimoto(of_a, of_b, of_a @ of_b.T) for of_a, of_b in sets]

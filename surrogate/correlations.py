"""The correlation of a process between two candidates, by what their features are.

With continuous features alone it is a Matérn-5/2 kernel. In general, for candidates x and x',

    k = (1 - a) m(x, x') exp(-sum_i w_i [x_i ≠ x'_i] - sum_s v_s (1 - S_s(x, x'))) + a mean_s S_s

and of few words with 1 - a - b and a third term b sum_i w_i [x_i = x'_i] / sum_i w_i; with m the
Matérn-5/2 kernel of the continuous columns; i over choices (one-hot blocks, places of words, items
of sets): the exponentiated Hamming kernel of BoTorch's `CategoricalKernel`; and s over words and
sets, with S_s in [0, 1] how similar they are whatever the place. For sets S is Tanimoto's kernel
(Ralaivola et al. 2005). For words it is the cosine between which letters, and which pairs of
letters how far apart, occur (a gapped spectrum kernel, after Leslie et al. 2002), each gap with a
learned weight: a motif learned in one place is known in every other. The product forms k's details;
the linear term, whose share a is learned, extrapolates what is additive in the motifs, and the
additive term, of share b, what is additive in the letters at each place: where no letter has
mattered yet, one that was not tried still may. Every term is 1 at x = x', and so is k. All of w, v,
the weights of the gaps, a and b are learned; a block that does not matter gets a small weight.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from surrogate.against import Against
from surrogate.blocks import Layout
from surrogate.encoded import Encoded, Pairs, choice_columns, n_gaps
from surrogate.matern import matern, matern_module
from surrogate.similarities import WordCosine, cosine, tanimoto

_SMOOTH = 1.0
"""Lengthscales over sqrt(d) of a start that explains by noise."""
_SMOOTHER = -1.0
"""Shift of the log weights of a start that explains by noise."""

_TOTAL_RATE = 0.5
"""Prior median of the weights w together: two candidates without anything in common."""
_SIMILARITY_RATE, _SIMILARITY_RATE_OF_WORDS = 3.0, 0.1
"""Prior median of v. Similarities of random words and sets lie within a few tenths; of few words
the places tell the details, and the linear term the motifs."""
_RATE_OF_PLACE, _SPREAD_OF_PLACES = 0.3, 0.5
"""Prior median of w, and sd of log w around its mean, of few words."""
_LINEAR_OF_MOTIFS = 4.0
"""The logit of a where motifs explain nearly all: not learned."""
_ADDITIVE, _LINEAR_OF_WORDS = -0.5, -1.0
"""Prior medians of the logits of b and a of few words, against the details' 0."""


class Correlation(nn.Module):
    """k above, with its parameters; attributes of parts that the layout lacks are missing."""

    def __init__(
        self, columns: Layout, is_of_many: bool = False, is_of_motifs: bool = False
    ) -> None:
        """`is_of_many`: many observations tell what the places of words are worth, each its own;
        few share a prior, and have the additive term.

        `is_of_motifs`: the linear term explains nearly all, and there is no additive one.
        """
        super().__init__()
        self._columns = columns
        self._is_of_few_words = bool(columns.words) and not (is_of_many or is_of_motifs)
        n_choices, n_words, n_sets = len(columns.choices), len(columns.words), len(columns.sets)
        self._choice_of = torch.tensor(choice_columns(columns), dtype=torch.int64)
        if columns.continuous:
            self.continuous: Any = matern_module(len(columns.continuous))
        if n_choices:
            rate = _RATE_OF_PLACE if self._is_of_few_words else _TOTAL_RATE / n_choices
            self._log_rate = math.log(rate)
            self.log_rates = nn.Parameter(torch.full((n_choices,), self._log_rate))
        if self._is_of_few_words:
            self.additive_logit = nn.Parameter(torch.tensor(_ADDITIVE))
        if n_words + n_sets:
            rate = _SIMILARITY_RATE_OF_WORDS if self._is_of_few_words else _SIMILARITY_RATE
            self._log_similarity_rate = math.log(rate)
            start = torch.full((n_words + n_sets,), self._log_similarity_rate)
            self.log_similarity_rates = nn.Parameter(start)
            self._linear = _LINEAR_OF_WORDS if self._is_of_few_words else 0.0
            self._linear = _LINEAR_OF_MOTIFS if is_of_motifs else self._linear
            self.linear_logit = nn.Parameter(torch.tensor(self._linear))
            self.linear_logit.requires_grad_(not is_of_motifs)
        self.gap_logits = nn.ParameterList(torch.zeros(1 + n_gaps(word)) for word in columns.words)
        self.double()

    @property
    def name(self) -> str:
        """What it is made of, for people."""
        parts = {
            "Matern-5/2": self._columns.continuous,
            "Hamming": self._columns.choices,
            "gapped motifs": self._columns.words,
            "Tanimoto": self._columns.sets,
        }
        return " with ".join(part for part, columns in parts.items() if columns)

    def forward(self, pairs: Pairs) -> Tensor:
        """Correlation between the rows of `pairs`, `(a, b)`."""
        if self._columns.is_continuous:
            return self._matern(pairs)
        similarities = self.similarities(pairs)
        total, agreement = self._agreement(pairs)
        exponent = total - agreement
        if similarities:
            rates = self.log_similarity_rates.exp()
            for rate, similarity in zip(rates, similarities, strict=True):
                exponent = exponent + rate * (1 - similarity)
        details = torch.exp(-exponent.clamp_min(0.0))
        if self._columns.continuous:
            details = details * self._matern(pairs)
        if not similarities:
            return details
        linear = sum(similarities[1:], similarities[0]) / len(similarities)
        shares = self._shares()
        mixed = shares[0] * details + shares[1] * linear
        return mixed + shares[2] * agreement / total if self._is_of_few_words else mixed

    def _shares(self) -> Tensor:
        """Of the details, the linear and, of few words, the additive term, `(2 or 3,)`."""
        logits = [torch.zeros_like(self.linear_logit), self.linear_logit]
        logits += [self.additive_logit] if self._is_of_few_words else []
        return torch.softmax(torch.stack(logits), 0)

    def against(self, fixed: Encoded) -> Against:
        """The same of any rows with `fixed` ones, with the parameters as they are now."""
        columns = self._columns
        with torch.no_grad():
            rates = self.log_rates.exp() if columns.choices else None
            return Against(
                fixed,
                lengthscale=self.continuous.lengthscale.detach() if columns.continuous else None,
                total=float(rates.sum()) if rates is not None else 0.0,
                choices=None if rates is None else (fixed.choices * rates[self._choice_of]).T,
                words=[
                    WordCosine.of(torch.softmax(logits, 0), own)
                    for logits, own in zip(self.gap_logits, fixed.motifs, strict=True)
                ],
                rates=self.log_similarity_rates.tolist() if columns.words or columns.sets else [],
                shares=self._shares().tolist() if columns.words or columns.sets else [1.0],
            )

    def similarities(self, pairs: Pairs) -> list[Tensor]:
        """S of each word, then of each set, `(a, b)` each."""
        n_motifs = (pairs.a.n_motifs(), pairs.b.n_motifs())
        words = zip(self.gap_logits, *n_motifs, pairs.motifs, strict=True)
        sets = zip(pairs.a.sets, pairs.b.sets, pairs.sets, strict=True)
        return [cosine(torch.softmax(logits, 0), *of) for logits, *of in words] + [
            tanimoto(*of) for of in sets
        ]

    def log_prior(self) -> Tensor:
        """Log density of the parameters up to a constant, a scalar."""
        total = torch.zeros((), dtype=torch.float64)
        if self._columns.continuous:
            prior = self.continuous.lengthscale_prior
            total = total + prior.log_prob(self.continuous.lengthscale).sum()
        if self._columns.choices:
            total = total + self._log_prior_of_rates()
        if self._columns.words or self._columns.sets:
            off = self.log_similarity_rates - self._log_similarity_rate
            total = total - off.square().sum() / 2
            total = total - (self.linear_logit - self._linear).square() / 2
        if self._is_of_few_words:
            total = total - (self.additive_logit - _ADDITIVE).square() / 2
        for logits in self.gap_logits:
            total = total - logits.square().sum() / 2
        return total

    def _log_prior_of_rates(self) -> Tensor:
        """Of words the places hang together: one that no letter has mattered at yet still may."""
        if not self._is_of_few_words:
            return -(self.log_rates - self._log_rate).square().sum() / 2
        level = self.log_rates.mean()
        spread = (self.log_rates - level) / _SPREAD_OF_PLACES
        return -spread.square().sum() / 2 - (level - self._log_rate).square() / 2

    def smooth(self) -> None:
        """Set long lengthscales and small weights: what is left is for noise to explain."""
        with torch.no_grad():
            if self._columns.continuous:
                n_columns = len(self._columns.continuous)
                self.continuous.lengthscale = _SMOOTH * math.sqrt(n_columns)
            if self._columns.choices:
                self.log_rates.fill_(self._log_rate + _SMOOTHER)
            if self._columns.words or self._columns.sets:
                self.log_similarity_rates.fill_(self._log_similarity_rate + _SMOOTHER)

    def describe(self) -> dict[str, Any]:
        """The parameters, for people and JSON: lists run over columns, choices, words and sets."""
        told: dict[str, Any] = {}
        if self._columns.continuous:
            told["lengthscales"] = self.continuous.lengthscale.detach()[0].tolist()
        if self._columns.choices:
            told["choice_weights"] = self.log_rates.detach().exp().tolist()
        if self._columns.words or self._columns.sets:
            told["similarity_weights"] = self.log_similarity_rates.detach().exp().tolist()
            shares = self._shares().detach().tolist()
            told["linear_share"] = shares[1]
        if self._is_of_few_words:
            told["additive_share"] = shares[2]
        if self._columns.words:
            told["gap_weights"] = [
                torch.softmax(logits.detach(), 0).tolist() for logits in self.gap_logits
            ]
        return told

    def _matern(self, pairs: Pairs) -> Tensor:
        return matern(pairs.a.continuous, pairs.b.continuous, self.continuous.lengthscale)

    def _agreement(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Sum of all weights w, and of those that agree, `(a, b)`, up to rounding."""
        if not self._columns.choices:
            none = torch.zeros(len(pairs.a), len(pairs.b), dtype=torch.float64)
            return torch.zeros((), dtype=torch.float64), none
        rates = self.log_rates.exp()
        return rates.sum(), (pairs.a.choices * rates[self._choice_of]) @ pairs.b.choices.T

"""Evidence of how much a cheap fidelity tells of the target, from what was observed.

Named axes: n observations, t candidates that the target answered, d features, m fidelities, the
last of them the target. Two kinds:

- links: what the cheap fidelity says of the t candidates, beside what the target said. Where the
  same candidate was asked at both, a pair; elsewhere the prediction of a surrogate of the cheap
  observations alone, which counts as much as it is reliable;
- a contrast: how well the target's outcomes, each left out, are predicted by the surrogate of all
  fidelities against one of the target alone (Vehtari, Gelman and Gabry 2017, arXiv 1507.04544).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri
from scipy.stats import rankdata
from torch import Tensor

from surrogate.surrogate import Surrogate

Array = NDArray[np.float64]
NewSurrogate = Callable[[], Surrogate]

PRIOR_Z, PRIOR_SD, PRIOR_NEGATIVE = 1.1, 0.5, 0.15
"""Belief before evidence, "mostly informative": atanh of the correlation is normal with this mean
and sd, or its negative: a surrogate learns from that as well. A central 80 % of it explains 0.18
to 0.88 of the target's variance."""

ENOUGH_PAIRS = 30
"""With so many pairs no surrogate of the cheap fidelity is needed to tell."""

LEAST_TO_LEARN = 4
"""A surrogate of fewer observations predicts nothing."""

MOST_TO_LEARN = 300
"""Cheap observations that the guard's own surrogate learns from, the nearest: bounds its time."""

_LARGEST_CONTRAST = 2.0
"""One outcome decides at most so many nats: a Gaussian exaggerates its tails."""

_MAX_R = 0.99
_QUANTILE = 1.2815515655446004
"""Of the standard normal at 90 %: intervals are central 80 % ones."""
_NODES = ndtri((np.arange(32) + 0.5) / 32)


@dataclass(frozen=True)
class Seen:
    """Observations: features `(n, d)`; fidelities, values and candidates' keys `(n,)` each."""

    features: Tensor
    fidelities: Tensor
    values: Tensor
    candidates: Sequence[str]

    def __post_init__(self) -> None:
        n = [len(self.features), len(self.fidelities), len(self.values), len(self.candidates)]
        if len(set(n)) != 1:
            raise ValueError(
                "expected features, fidelities, values and candidates of one length, got "
                + ", ".join(map(str, n))
            )

    def rows(self, rows: Tensor) -> Seen:
        """Some of them, by number."""
        names = [self.candidates[i] for i in rows.tolist()]
        return Seen(self.features[rows], self.fidelities[rows], self.values[rows], names)

    def at(self, fidelity: int) -> Seen:
        """Those of one fidelity whose value is finite."""
        return self.rows(((self.fidelities == fidelity) & self.values.isfinite()).nonzero()[:, 0])


@dataclass(frozen=True)
class Links:
    """What a fidelity says of the t candidates that the target answered, and what that answered.

    `cheap`, `target` `(t,)` in the property's units; `weight (t,)` in (0, 1]: the share of the
    cheap fidelity's variance that is known of the candidate, 1 for a pair.
    """

    cheap: Array
    target: Array
    weight: Array
    n_pairs: int


@dataclass(frozen=True)
class Belief:
    """The correlation with the target on Fisher's scale: normal, of one sign or the other.

    `z` is the mean where it is positive, `z_negative` where it is negative, with probability
    `p_negative`; and the rank correlation that was seen.
    """

    z: float = PRIOR_Z
    z_negative: float = -PRIOR_Z
    p_negative: float = PRIOR_NEGATIVE
    sd: float = PRIOR_SD
    n_links: float = 0.0
    rank_correlation: float | None = None
    rank_low: float | None = None
    rank_high: float | None = None

    def explained(self) -> tuple[float, float, float]:
        """Share of the target's variance explained: expected, and a central 80 % interval."""
        z = np.concatenate([self.z + self.sd * _NODES, self.z_negative + self.sd * _NODES])
        share = np.repeat([1 - self.p_negative, self.p_negative], len(_NODES)) / len(_NODES)
        explained = np.tanh(z) ** 2
        order = explained.argsort()
        below = share[order].cumsum()
        low, high = explained[order][np.searchsorted(below, [0.1, 0.9])]
        return float(share @ explained), float(low), float(high)


def links(cheap: Seen, target: Seen, new_surrogate: NewSurrogate, seed: int = 0) -> Links:
    """What `cheap`'s observations say of the candidates of `target`'s; no row that is unknown."""
    answers = dict(zip(cheap.candidates, cheap.values.tolist(), strict=True))
    known = np.array([answers.get(key, np.nan) for key in target.candidates], dtype=np.float64)
    is_pair = np.isfinite(known)
    weight, n_pairs = is_pair.astype(np.float64), int(is_pair.sum())
    if n_pairs < min(ENOUGH_PAIRS, len(known)) and len(cheap.values) >= LEAST_TO_LEARN:
        asked = target.features[torch.from_numpy(~is_pair)]
        known[~is_pair], weight[~is_pair] = _predicted(cheap, asked, new_surrogate, seed)
    kept = weight > 0
    return Links(known[kept], target.values.numpy()[kept], weight[kept], n_pairs)


def _predicted(
    cheap: Seen, features: Tensor, new_surrogate: NewSurrogate, seed: int
) -> tuple[Array, Array]:
    """Predictions of the cheap fidelity at `features (u, d)` and how much is known, `(u,)` each."""
    near = nearest(cheap, features)
    mean, sd = fitted_alone(new_surrogate, near, seed).predict(features, 0)
    spread = float(near.values.var())
    share = (1 - sd.square() / spread).clamp(0, 1) if spread > 0 else torch.zeros_like(sd)
    return mean.numpy(), share.numpy()


def nearest(seen: Seen, features: Tensor) -> Seen:
    """At most `MOST_TO_LEARN` observations, those nearest to any of `features (u, d)`."""
    if len(seen.values) <= MOST_TO_LEARN:
        return seen
    width = (seen.features.max(0).values - seen.features.min(0).values).clamp_min(1e-300)
    distance = torch.cdist(seen.features / width, features / width).min(1).values
    return seen.rows(distance.argsort(stable=True)[:MOST_TO_LEARN].sort().values)


def fitted_alone(new_surrogate: NewSurrogate, seen: Seen, seed: int) -> Surrogate:
    """A surrogate of one fidelity's observations alone: to it, fidelity 0 of one."""
    model = new_surrogate()
    # Without it no floor is split off, as of several fidelities none is: the two are compared.
    model.sign = None
    model.fit(seen.features, torch.zeros_like(seen.fidelities), seen.values, 1, seed)
    return model


def believe(seen: Links) -> Belief:
    """The prior, and what the links say: Fisher's z, of variance 1 / (n - 3).

    The mean of two estimates, from the values and from their normal scores (van der Waerden): the
    first is sharp where few links lie on a line, and the second not at the mercy of a few extreme
    outcomes. n counts links by weight. A prediction that knows a share w of the cheap fidelity's
    variance has sqrt(w) times its correlation with the target, which is made good (Spearman 1904,
    attenuation).
    """
    n = float(seen.weight.sum())
    information = n - 3.0
    if information <= 0 or np.ptp(seen.cheap) == 0 or np.ptp(seen.target) == 0:
        return Belief(n_links=n)
    ranks = rankdata(seen.cheap), rankdata(seen.target)
    scores = [ndtri(rank / (len(rank) + 1)) for rank in ranks]
    attenuation = float(np.sqrt((seen.weight**2).sum() / n))
    r = np.array(
        [
            _correlation(seen.cheap, seen.target, seen.weight),
            _correlation(scores[0], scores[1], seen.weight),
        ]
    )
    z = float(np.arctanh(np.clip(r / attenuation, -_MAX_R, _MAX_R)).mean())
    rank_correlation = _correlation(ranks[0], ranks[1], seen.weight)
    interval = _rank_interval(rank_correlation, information)
    return Belief(*_posterior(z, information), n, rank_correlation, *interval)


def _posterior(z: float, information: float) -> tuple[float, float, float, float]:
    """Mean given each sign, probability of the negative one, and sd, from an estimate `z`."""
    precision = PRIOR_SD**-2 + information
    means = [(sign * PRIOR_Z * PRIOR_SD**-2 + information * z) / precision for sign in (1, -1)]
    spread = PRIOR_SD**2 + 1 / information
    # The two prior predictive densities at z differ by exp(2 z PRIOR_Z / spread).
    log_odds = logit(PRIOR_NEGATIVE) - 2 * z * PRIOR_Z / spread
    return means[0], means[1], float(expit(log_odds)), precision**-0.5


def _correlation(a: Array, b: Array, weight: Array) -> float:
    """Weighted Pearson correlation of `a (t,)` and `b (t,)`."""
    share = weight / weight.sum()
    a, b = a - share @ a, b - share @ b
    size = float(np.sqrt((share @ a**2) * (share @ b**2)))
    return float(share @ (a * b)) / size if size > 0 else 0.0


def _rank_interval(rank_correlation: float, information: float) -> tuple[float, float]:
    """Central 80 % interval of Spearman's correlation, of variance (1 + r^2 / 2) / (n - 3) in z.

    Bonett and Wright 2000, doi 10.1007/BF02294183.
    """
    z = np.arctanh(np.clip(rank_correlation, -_MAX_R, _MAX_R))
    half = _QUANTILE * np.sqrt((1 + rank_correlation**2 / 2) / information)
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def contrast(together: Surrogate, alone: Surrogate, target: Seen) -> float:
    """Nats by which `together` predicts the target's outcomes, each left out, better than `alone`.

    A sum over the outcomes, each clamped; negative where the cheap data mislead.
    """
    many = leave_one_out_log_density(together, target.features, target.values)
    one = leave_one_out_log_density(alone, target.features, target.values)
    return float((many - one).clamp(-_LARGEST_CONTRAST, _LARGEST_CONTRAST).sum())


def leave_one_out_log_density(model: Surrogate, features: Tensor, values: Tensor) -> Tensor:
    """Log density of each outcome of the target fidelity under `model` without it, `(t,)`.

    The likelihood of an outcome y is taken out of the posterior (mean mu, variance v) at its own
    candidate: 1 / v' = 1 / v - 1 / noise and mu' / v' = mu / v - y / noise, so that
    y - mu' = (y - mu) / s and v' + noise = noise / s with s = 1 - v / noise (the cavity;
    Rasmussen and Williams 2006, eq. 3.56). Exact for a Gaussian process whose hyper-parameters
    are held, with features `(t, d)` and values `(t,)` that it learned from.
    """
    last = model.n_fidelities - 1
    mean, sd = model.predict(features, last)
    noise = model.noise_variance()[last]
    # Where an outcome tells all there is to know, v = noise up to rounding.
    left = (1 - sd.square() / noise).clamp_min(1e-9)
    variance = noise / left
    return -0.5 * (((values - mean) / left).square() / variance + (2 * torch.pi * variance).log())

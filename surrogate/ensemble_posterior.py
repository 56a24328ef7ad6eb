"""The Gaussian posterior that an ensemble stands for.

Named axes: k members, q points, m fidelities. Everything is in standard units (see `outcomes`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surrogate.matern import matern
from surrogate.members import Members
from surrogate.posterior import Observations, one_hot

_CHUNK = 2048
"""Query points at a time: bounds the memory at about chunk x members x width numbers."""

_TAPER = 0.1
"""Lengthscale, over sqrt(d), of the part of the covariance that is each point's own."""

_MIN_VARIANCE = 1e-8
"""Least posterior variance: members may agree to the last digit."""

_LOG_STRETCH_SD = 1.0
_LOG_NOISE_PRIOR = (-4.0, 1.5)
"""Normal prior of the log noise variance, as that of `kernels`."""


class EnsemblePosterior:
    """Mean and stretched covariance of the members, made positive definite.

    With S = stretch x the members' sample covariance and s its standard deviations, covariance is
    (1 - 1/k) S + (1/k) s s' T: T is 1 at one point and fidelity, falls with the distance within
    a fidelity and is 0 between fidelities. Variances are S's, and what k members can only agree
    on by chance is damped (localisation of ensemble covariances: Hamill et al. 2001).
    """

    def __init__(self, members: Members, stretch: float) -> None:
        self._members, self._m, self._stretch = members, members.n_fidelities, stretch

    def predict(self, x: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of f at `x (q, d)` and one fidelity, `(q,)` each."""
        values = member_values(self._members, x, self._of(len(x), fidelity))
        return values.mean(0), self._spread(values).square().sum(0) + _MIN_VARIANCE

    def fidelity_covariance(self, x: Tensor) -> Tensor:
        """Covariance of f between the fidelities at each `x (q, d)`, `(q, m, m)`."""
        spreads = torch.stack(
            [
                self._spread(member_values(self._members, x, self._of(len(x), j)))
                for j in range(self._m)
            ]
        )
        shared = torch.einsum("ikq,jkq->qij", spreads, spreads)
        own = torch.diag_embed(shared.diagonal(dim1=1, dim2=2)) / len(spreads[0])
        level = _MIN_VARIANCE * torch.eye(self._m, dtype=torch.float64)
        return self._kept() * shared + own + level

    def covariance(self, x_a: Tensor, of_a: Tensor, x_b: Tensor, of_b: Tensor) -> Tensor:
        """Covariance of f between two sets of points with one-hot fidelities, `(a, b)`."""
        a = self._spread(member_values(self._members, x_a, of_a))
        b = self._spread(member_values(self._members, x_b, of_b))
        own = a.square().sum(0).sqrt()[:, None] * b.square().sum(0).sqrt() / len(a)
        lengthscale = torch.full_like(x_a[:1], _TAPER * math.sqrt(x_a.shape[1]))
        taper = matern(x_a, x_b, lengthscale) * (of_a @ of_b.T)
        return self._kept() * (a.T @ b) + taper * (own + _MIN_VARIANCE)

    def correlation(self, x: Tensor) -> Tensor:
        """Correlation between fidelities of all members' values at all of `x (q, d)`, `(m, m)`."""
        columns = [
            member_values(self._members, x, self._of(len(x), j)).flatten() for j in range(self._m)
        ]
        centred = torch.stack([column - column.mean() for column in columns])
        sizes = centred.square().sum(1, keepdim=True).sqrt().clamp_min(_MIN_VARIANCE)
        correlation = (centred / sizes) @ (centred / sizes).T
        return correlation.fill_diagonal_(1.0)

    def _spread(self, values: Tensor) -> Tensor:
        """Deviations from the members' mean, `(k, q)`, whose squares sum to the variance."""
        scale = math.sqrt(self._stretch / (len(values) - 1))
        return scale * (values - values.mean(0))

    def _kept(self) -> float:
        return 1 - 1 / self._members.n_members

    def _of(self, q: int, fidelity: int) -> Tensor:
        return one_hot(torch.full((q,), fidelity), self._m)


def as_inputs(x: Tensor, of: Tensor) -> Tensor:
    """Features in the unit cube and one-hot fidelities, centred for a network, `(q, d + m)`."""
    return torch.cat([2 * x - 1, of], 1)


def member_values(members: Members, x: Tensor, of: Tensor) -> Tensor:
    """Each member's value at each row, `(k, q)`, a chunk at a time."""
    inputs, values = as_inputs(x, of), [x.new_zeros(members.n_members, 0)]
    with torch.no_grad():
        values += [members(part.expand(members.n_members, -1, -1)) for part in _parts(inputs)]
    return torch.cat(values, 1)


def _parts(rows: Tensor) -> list[Tensor]:
    return [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]


def stretch_and_noise(members: Members, judges: Observations) -> tuple[float, Tensor]:
    """Factor on the members' variance and noise variance of each fidelity, `(m,)`.

    The mode of independent normals of the held-out residuals, whose variance is stretch x the
    members' + noise, under log-normal priors; without judges the priors' modes.
    """
    of = one_hot(judges.fidelities, members.n_fidelities)
    values = member_values(members, judges.x, of)
    spread = (values - values.mean(0)).square().sum(0) / (len(values) - 1)
    squares = (judges.y - values.mean(0)).square()
    free = torch.cat(
        [torch.zeros(1), torch.full((members.n_fidelities,), _LOG_NOISE_PRIOR[0])]
    ).double()
    free.requires_grad_(True)
    optimiser = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

    def surprise() -> Tensor:
        optimiser.zero_grad()
        variance = free[0].exp() * spread + of @ free[1:].exp() + judges.extra_noise
        fit = 0.5 * (squares / variance + variance.log()).sum()
        prior = (free[0] / _LOG_STRETCH_SD).square()
        prior = prior + ((free[1:] - _LOG_NOISE_PRIOR[0]) / _LOG_NOISE_PRIOR[1]).square().sum()
        loss: Tensor = fit + 0.5 * prior
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(surprise)  # type: ignore[no-untyped-call]
    found = free.detach().exp()
    return float(found[0]), found[1:]

"""Hyper-parameters of a `JointPrior` by maximum a posteriori, deterministic in a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from botorch.optim.core import scipy_minimize
from torch import Tensor

from surrogate.kernels import JointPrior, bounds_of, stable_cholesky
from surrogate.posterior import Observations, observation_covariance, one_hot

N_SCREEN = 256
"""Starts compete on at most about so many observations; only the winner sees them all."""

_MOST_EQUAL = 8
"""Of the telling rows this part, at most, are equally good ones."""


def fit_prior(
    prior: JointPrior,
    seen: Observations,
    n_starts: int,
    max_iterations: int,
    seed: int,
    warm: Mapping[str, Tensor] | None = None,
) -> float:
    """Fit `prior` in place to n >= 1 observations; returns its log posterior a datum.

    From `warm`, values of all free parameters by name, there is one descent on all. Without,
    L-BFGS-B from the modes of the priors, from a smooth and noisy explanation, and from random
    points around that. With many observations the starts are compared on a subset, balanced over
    the fidelities, and the best one goes on with half as many iterations on all of them.
    """
    if warm is not None:
        with torch.no_grad():
            for name, parameter in free_parameters(prior).items():
                parameter.copy_(warm[name].clamp(*bounds_of(name)))
        return -_descend(prior, seen, max(max_iterations // 2, 1))
    generator = torch.Generator().manual_seed(seed)
    screened = seen.rows(_screening_rows(seen.fidelities, prior.n_fidelities, generator))
    origin = _copy(prior)
    best, best_loss = origin, math.inf
    for start in range(n_starts):
        prior.load_state_dict(origin)
        if start > 0:
            prior.explain_by_noise()
        if start > 1:
            prior.randomise(generator)
        loss = _descend(prior, screened, max_iterations)
        if loss < best_loss:
            best, best_loss = _copy(prior), loss
    prior.load_state_dict(best)
    if len(screened) < len(seen):
        best_loss = _descend(prior, seen, max(max_iterations // 2, 1))
    return -best_loss


def telling_rows(y: Tensor, sign: float, n: int, seed: int) -> Tensor:
    """N sorted row numbers of outcomes `y (m,)`: half the best, `sign` says which, half random.

    A search crowds around the best, where it must tell near neighbours apart; the others say how
    much worse it can get. Where the best are equal, n / 8 of a value are the most among them: many
    equal ones would be explained best by letters that cannot matter, known for sure.
    """
    order = (sign * y).argsort(descending=True, stable=True)
    best = order[_place_among_equals(y[order]) < max(1, n // _MOST_EQUAL)][: n // 2]
    is_other = torch.ones(len(y), dtype=torch.bool)
    is_other[best] = False
    others = order[is_other[order]]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    return torch.cat([best, others[drawn[: n - len(best)]]]).sort().values


def _place_among_equals(y: Tensor) -> Tensor:
    """How many of the same value stand before each of sorted `y (m,)`, `(m,)`."""
    _, counts = torch.unique_consecutive(y, return_counts=True)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    place: Tensor = torch.arange(len(y)) - first
    return place


def free_parameters(prior: JointPrior) -> dict[str, torch.nn.Parameter]:
    """The parameters that a fit moves, by name."""
    return {name: p for name, p in prior.named_parameters() if p.requires_grad}


def _descend(prior: JointPrior, seen: Observations, max_iterations: int) -> float:
    """Minimise the negative log posterior a datum in place; its final value."""
    free = free_parameters(prior)
    result = scipy_minimize(
        _closure(prior, list(free.values()), seen),
        parameters=free,
        bounds={name: bounds_of(name) for name in free},
        options={"maxiter": max_iterations, "ftol": 1e-5, "gtol": 1e-5},
    )
    return float(result.fval)


def _closure(
    prior: JointPrior, free: list[torch.nn.Parameter], seen: Observations
) -> Callable[[], tuple[Tensor, list[Tensor | None]]]:
    of = one_hot(seen.fidelities, prior.n_fidelities)
    pairs = prior.compare(seen.x, seen.x)

    def evaluate() -> tuple[Tensor, list[Tensor | None]]:
        for parameter in free:
            parameter.grad = None
        covariance = observation_covariance(prior, pairs, seen, of)
        loss, slope = negative_log_likelihood(covariance.detach(), seen.y)
        log_prior = prior.log_prior() / len(seen)
        torch.autograd.backward([covariance, log_prior], [slope, -torch.ones_like(log_prior)])
        return loss - log_prior.detach(), [parameter.grad for parameter in free]

    return evaluate


def negative_log_likelihood(covariance: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """-log N(y; 0, K) / n and its gradient by K: (K^-1 - a a^T) / 2n, a = K^-1 y.

    Rasmussen & Williams 2006, eqs. 5.8-5.9. Explicit, because differentiating through the
    Cholesky factorisation costs several times more than the inverse.
    """
    factor = stable_cholesky(covariance)
    weights = torch.cholesky_solve(y[:, None], factor)
    fit, volume = y @ weights[:, 0] / 2, factor.diagonal().log().sum()
    slope = (torch.cholesky_inverse(factor) - weights @ weights.T) / 2
    loss = (fit + volume) / len(y) + math.log(2 * math.pi) / 2
    return loss, slope / len(y)


def _screening_rows(fidelities: Tensor, n_fidelities: int, generator: torch.Generator) -> Tensor:
    """Sorted row numbers: all when few, else an equal random share of each fidelity."""
    n = len(fidelities)
    if n <= N_SCREEN:
        return torch.arange(n)
    order = torch.randperm(n, generator=generator)
    share = N_SCREEN // n_fidelities
    rows = [order[fidelities[order] == j][:share] for j in range(n_fidelities)]
    return torch.cat(rows).sort().values


def _copy(prior: JointPrior) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in prior.state_dict().items()}

"""Training of a kernel on warped features, with batches and a held-out judge of when to stop."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surrogate.fitting import negative_log_likelihood
from surrogate.held_out import balanced_rows, split
from surrogate.kernels import JointPrior, bounds_of
from surrogate.posterior import Observations, Posterior, observation_covariance, one_hot
from surrogate.warp import Warp

_WARP_SD = 0.1
"""Prior sd of the warp's shift of a feature, as a part of its range."""

_LEARNING_RATE = 1e-2
_RAMP = 0.2
_LEAST_HELD_OUT = 16
"""With fewer to judge by, the warp is not trained at all."""
_N_SNAPSHOTS = 10


def train(
    prior: JointPrior,
    warp: Warp,
    seen: Observations,
    n_steps: int,
    batch_size: int,
    generator: torch.Generator,
) -> int:
    """Train `prior` and `warp` in place by Adam; the number of steps whose result was kept.

    A part of the observations is held out. At each of some snapshots they are predicted from
    one fixed batch of the others, and the snapshot with the highest density wins: the first is
    the state given, so training never makes that judge less content. A deep kernel's marginal
    likelihood alone overfits (Ober et al. 2021, arXiv 2102.12108).
    """
    judges, teachers = split(seen, prior.n_fidelities, generator)
    if len(judges) < _LEAST_HELD_OUT:
        return 0
    context = _draw(teachers, prior.n_fidelities, batch_size, generator)
    optimiser = _Optimiser(prior, warp, n_steps)
    kept, best, best_step = _copy(prior, warp), _surprise(prior, warp, context, judges), 0
    for step in range(1, n_steps + 1):
        optimiser.step(_draw(teachers, prior.n_fidelities, batch_size, generator), len(teachers))
        if step % max(n_steps // _N_SNAPSHOTS, 1) == 0:
            surprise = _surprise(prior, warp, context, judges)
            if surprise < best:
                kept, best, best_step = _copy(prior, warp), surprise, step
    prior.load_state_dict(kept[0])
    warp.load_state_dict(kept[1])
    return best_step


class _Optimiser:
    """Adam on a prior and a warp, with a learning rate that falls to nothing along a cosine."""

    def __init__(self, prior: JointPrior, warp: Warp, n_steps: int) -> None:
        self._prior, self._warp = prior, warp
        self._bounded = {n: p for n, p in prior.named_parameters() if p.requires_grad}
        free = [*self._bounded.values(), *warp.parameters()]
        self._adam = torch.optim.Adam(free, lr=_LEARNING_RATE)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._adam, lambda step: _rate(step / max(n_steps, 1))
        )

    def step(self, batch: Observations, n: int) -> None:
        """Ascend the log posterior a datum, estimated from a batch of n observations."""
        self._adam.zero_grad()
        warped = _warped(self._warp, batch)
        of = one_hot(batch.fidelities, self._prior.n_fidelities)
        pairs = self._prior.compare(warped.x, warped.x)
        covariance = observation_covariance(self._prior, pairs, warped, of)
        _, slope = negative_log_likelihood(covariance.detach(), batch.y)
        log_prior = self._prior.log_prior() / len(batch) + self._warp.log_prior(_WARP_SD) / n
        torch.autograd.backward([covariance, log_prior], [slope, -torch.ones_like(log_prior)])
        self._adam.step()
        self._schedule.step()
        with torch.no_grad():
            for name, parameter in self._bounded.items():
                parameter.clamp_(*bounds_of(name))


def _rate(done: float) -> float:
    """Part of the learning rate when a part `done` of the steps is: up a ramp, down a cosine.

    The ramp, because Adam's first steps are all of full size, and where noise is small a kernel
    bears no sudden change of its features.
    """
    if done < _RAMP:
        return (done + 0.1 * _RAMP) / _RAMP / 1.1
    return (1 + math.cos(math.pi * (done - _RAMP) / (1 - _RAMP))) / 2


def _surprise(prior: JointPrior, warp: Warp, context: Observations, judges: Observations) -> float:
    """Mean negative log density of each of `judges` given `context`, in nats."""
    with torch.no_grad():
        posterior = Posterior(prior, _warped(warp, context))
        x, total = _warped(warp, judges).x, 0.0
        for j in range(prior.n_fidelities):
            mine = judges.fidelities == j
            mean, variance = posterior.predict(x[mine], j)
            variance = variance + prior.noise_variance()[j] + judges.extra_noise[mine]
            z2 = (judges.y[mine] - mean).square() / variance
            total += float((z2 + variance.log() + math.log(2 * math.pi)).sum()) / 2
    return total / len(judges)


def _draw(
    seen: Observations, n_fidelities: int, n_rows: int, generator: torch.Generator
) -> Observations:
    return seen.rows(balanced_rows(seen.fidelities, n_fidelities, n_rows, generator))


def _warped(warp: Warp, seen: Observations) -> Observations:
    return Observations(warp(seen.x), seen.fidelities, seen.y, seen.extra_noise)


def _copy(prior: JointPrior, warp: Warp) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    first, second = (
        {name: value.clone() for name, value in module.state_dict().items()}
        for module in (prior, warp)
    )
    return first, second

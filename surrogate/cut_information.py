"""Information between a noisy observation and the event that f lies below a cut, in nats.

Standardised, f ~ N(0, 1) is known to lie below u, and z ~ N(0, 1) is an observation of correlation
rho with it. Then z has density pdf(z) w(z), w(z) = cdf((u - rho z) / s) / cdf(u), s^2 = 1 - rho^2
(Takeno et al. 2020, arXiv 1901.08275), and its entropy is that of a normal less

    I(u, rho^2) = rho^2 u h / 2 + E[w(z) log w(z)],    h = pdf(u) / cdf(u),    z ~ N(0, 1).

What is left to integrate is one-dimensional and smooth.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from surrogate.log_normal import log_minus_log1m_exp, log_pdf, log_truncation_loss

_LEFT, _RIGHT = -6.0, 4.0
"""Where I is integrated; beyond, its ratio to GIBBON's bound hardly changes."""

_N_NODES = 24


def log_cut_information(u: Tensor, log_rho2: Tensor) -> Tensor:
    """Log of I at cuts `u` and log squared correlations `log_rho2`, which expands to its shape.

    By quadrature for u in [-6, 4]; beyond, GIBBON's bound times the ratio of I to it at the near
    end, where the two tend to each other on the right.
    """
    inside = u.clamp(_LEFT, _RIGHT)
    ratio = _information(inside, log_rho2.exp()).log() - _log_bound(inside, log_rho2)
    # The bound is a bound: less is rounding of two tiny numbers.
    return _log_bound(u, log_rho2) + ratio.clamp_min(0.0)


def _log_bound(u: Tensor, log_rho2: Tensor) -> Tensor:
    """Log of -1/2 log(1 - rho^2 h (u + h)) (Moss et al. 2021, arXiv 2102.03324)."""
    return log_minus_log1m_exp(log_rho2 + log_truncation_loss(u)) - math.log(2)


def _information(u: Tensor, rho2: Tensor) -> Tensor:
    """I itself, at moderate `u`."""
    rho2 = rho2.expand_as(u)
    log_cdf = torch.special.log_ndtr(u)
    slope = rho2 * u * (log_pdf(u) - log_cdf).exp() / 2
    shares = torch.empty_like(u)
    is_loose = rho2 < 0.5
    for chosen, integral in ((is_loose, _over_observation), (~is_loose, _over_doubt)):
        shares[chosen] = integral(u[chosen], log_cdf[chosen], rho2[chosen])
    information: Tensor = (slope + shares).clamp_min(1e-300)
    return information


def _over_observation(u: Tensor, log_cdf: Tensor, rho2: Tensor) -> Tensor:
    """E[w log w] over the observation z: smooth where the observation says little.

    As E[w log w - w + 1], for E[w] = 1: no two large numbers cancel.
    """
    nodes, weights = _gauss_hermite()
    below = (u[:, None] - rho2.sqrt()[:, None] * nodes) / (1 - rho2).sqrt()[:, None]
    log_w = torch.special.log_ndtr(below) - log_cdf[:, None]
    excess = log_w.exp() * log_w - torch.expm1(log_w)
    integral: Tensor = excess @ weights
    return integral


def _over_doubt(u: Tensor, log_cdf: Tensor, rho2: Tensor) -> Tensor:
    """E[w log w] by parts, over t = (rho z - u) / s: smooth where the observation says much.

    1 - log cdf(u) + E[cdf((u + s t) / rho) log cdf(-t)] / cdf(u), t ~ N(0, 1).
    """
    nodes, weights = _gauss_hermite()
    reach = (u[:, None] + (1 - rho2).sqrt()[:, None] * nodes) / rho2.sqrt()[:, None]
    kept = torch.special.ndtr(reach) @ (weights * torch.special.log_ndtr(-nodes))
    integral: Tensor = 1 - log_cdf + kept / log_cdf.exp()
    return integral


def _gauss_hermite() -> tuple[Tensor, Tensor]:
    """Nodes and weights of a mean over N(0, 1), `(n,)` each."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_N_NODES)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())

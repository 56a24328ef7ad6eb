"""Logarithms of small functions of the normal distribution, exact deep into both tails."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_SQRT_2PI = math.log(2 * math.pi) / 2
_LOG_SQRT_HALF_PI = math.log(math.pi / 2) / 2
_FAR = -1e4
"""Left of this, 1 - |u| Mills(u) cancels; its series u^-2 is exact to 3 / u^2."""
_MAX_ABS = 1e100
"""Larger arguments would overflow when squared."""
_NEARLY_ZERO = -1e-15
"""log of the largest squared correlation below one: keeps log(1 - rho^2) finite."""


def log_pdf(u: Tensor) -> Tensor:
    """Log of the standard normal density."""
    return -0.5 * u.square() - _LOG_SQRT_2PI


def log_expected_improvement(u: Tensor) -> Tensor:
    """Log expected improvement: log(pdf(u) + u cdf(u)).

    Ament et al. 2023, arXiv 2310.20708, eq. 9: directly for u > -1; below that as
    log pdf(u) + log(1 - |u| cdf(u) / pdf(u)), whose last term tends to -2 log|u|.
    """
    u = u.clamp(-_MAX_ABS, _MAX_ABS)
    near, mid = u.clamp_min(-1.0), u.clamp(_FAR, -1.0)
    direct = (log_pdf(near).exp() + near * torch.special.ndtr(near)).log()
    log_product = torch.log(torch.special.erfcx(-mid / math.sqrt(2)) * -mid) + _LOG_SQRT_HALF_PI
    remainder = torch.where(
        u > _FAR, torch.log(-torch.expm1(log_product)), -2 * u.clamp_max(-1.0).abs().log()
    )
    return torch.where(u > -1.0, direct, log_pdf(u) + remainder)


def log_truncation_loss(u: Tensor) -> Tensor:
    """Log of h (u + h), h = pdf(u) / cdf(u): the variance a normal loses when cut off above u.

    In (0, 1): near 1 far left, where the cut takes nearly all, and u pdf(u) far right. With
    u + h = (pdf + u cdf) / cdf no two large numbers cancel.
    """
    u = u.clamp(-_MAX_ABS, _MAX_ABS)
    log_cdf = torch.special.log_ndtr(u)
    near = log_pdf(u) + log_expected_improvement(u) - 2 * log_cdf
    # Far left the three large terms leave -1 / u^2 (from h (u + h) = 1 - 1/u^2 + ...).
    far = -1 / u.clamp_max(-1.0).square()
    return torch.where(u > -1e3, near, far).clamp_max(0.0)


def log_truncation_information(u: Tensor) -> Tensor:
    """Log of u h / 2 - log cdf(u), h = pdf(u) / cdf(u): the entropy a normal loses when cut off.

    What is known of a standard normal once it is known to lie below u, in nats (the term of Wang
    & Jegelka 2017, arXiv 1703.01968, eq. 6): near u pdf(u) / 2 far right, near log|u| far left.
    """
    u = u.clamp(-_MAX_ABS, _MAX_ABS)
    right, mid, left = u.clamp_min(1.0), u.clamp(-1e3, 1.0), u.clamp_max(-1e3)
    # Right: both terms are positive and tiny, so they are added as logarithms.
    log_slope = log_pdf(right) - torch.special.log_ndtr(right) + (right / 2).log()
    log_rest = log_minus_log1m_exp(torch.special.log_ndtr(-right))
    # Middle: u^2 / 2 taken out of both, so that it does not cancel.
    mills = torch.special.erfcx(-mid / math.sqrt(2))
    in_middle = mid * (math.sqrt(2 / math.pi) / mills + mid) / 2 - (mills / 2).log()
    # Left: u h = -u^2 - 1 + 2 / u^2 and -log cdf = u^2 / 2 + log|u| + log sqrt(2 pi) + 1 / u^2.
    on_left = left.abs().log() + _LOG_SQRT_2PI - 0.5 + 2 / left.square()
    off_right = torch.where(u > -1e3, in_middle, on_left).log()
    return torch.where(u > 1.0, torch.logaddexp(log_slope, log_rest), off_right)


def log_minus_log1m_exp(s: Tensor) -> Tensor:
    """log(-log(1 - exp(s))) for s <= 0; s itself where exp(s) is small, finite at s = 0."""
    bounded = s.clamp(-40.0, _NEARLY_ZERO)
    exact = torch.log(-torch.log(-torch.expm1(bounded)))
    # log1p where exp(s) is small, so as not to lose it beside one.
    small = torch.log(-torch.log1p(-bounded.exp()))
    inner = torch.where(bounded > -math.log(2), exact, small)
    return torch.where(s > -40.0, inner, s)


def log_softplus(u: Tensor) -> Tensor:
    """log(log(1 + exp(u))); u itself far left."""
    return torch.where(u > -40.0, torch.nn.functional.softplus(u.clamp_min(-40.0)).log(), u)

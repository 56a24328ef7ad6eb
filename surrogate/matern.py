"""The Matérn-5/2 correlation of continuous columns, and BoTorch's module that holds its scales."""

from __future__ import annotations

from typing import Any

import torch
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.constraints import GreaterThan
from torch import Tensor

_MIN_LENGTHSCALE = 2.5e-2


def matern(x_a: Tensor, x_b: Tensor, lengthscale: Tensor) -> Tensor:
    """Matérn-5/2 correlation of rows `(a, d)` and `(b, d)`, `(a, b)`; `lengthscale (1, d)`.

    Rasmussen & Williams 2006, eq. 4.17. GPyTorch's own, which the tests compare with, takes
    several times longer forwards and backwards.
    """
    correlation: Tensor = _Matern.apply(  # type: ignore[no-untyped-call]
        x_a / lengthscale, x_b / lengthscale
    )
    return correlation


class _Matern(torch.autograd.Function):
    """k = (1 + r + r²/3) exp(-r) with r = √5 |a - b|, and dk/d|a - b|² = -5/6 (1 + r) exp(-r).

    Its slope by the squared distance is finite everywhere, unlike that of the root.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        squares = a.square().sum(1)[:, None] + b.square().sum(1)[None, :]
        squares = squares.addmm_(a, b.T, alpha=-2)
        r = squares.clamp_min_(0.0).mul_(5.0).sqrt_()
        decay = r.neg().exp_()
        first = decay * (1 + r)
        ctx.save_for_backward(a, b, first)
        return torch.addcmul(first, decay, r.square_(), value=1 / 3)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        a, b, first = ctx.saved_tensors
        slope = (grad_outputs[0] * first).mul_(-5 / 3)
        grad_a = slope.sum(1)[:, None] * a - slope @ b
        return grad_a, slope.sum(0)[:, None] * b - slope.T @ a


def matern_module(n_features: int) -> Any:
    """BoTorch's Matérn-5/2 kernel with its lengthscale parametrised by a logarithm.

    Its lengthscales have the dimension-scaled prior of Hvarfner et al. 2024 (features in the unit
    cube).
    """
    kernel = get_covar_module_with_dim_scaled_prior(n_features, use_rbf_kernel=False)
    kernel.register_constraint(
        "raw_lengthscale",
        GreaterThan(_MIN_LENGTHSCALE, transform=torch.exp, inv_transform=torch.log),
    )
    kernel.lengthscale = max(float(kernel.lengthscale_prior.mode), 2 * _MIN_LENGTHSCALE)
    return kernel

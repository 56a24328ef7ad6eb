"""Learned features that cannot collapse: a residual warp of the unit cube, invertible by design."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_START_SLOPE = 4.0
"""Spectral size of the first layer at the start: tanh bends a few times across the cube."""


class Warp(nn.Module):
    """x → x + g_1(x) → … , `(q, d)` → `(q, d)`, float64; the identity before it is trained.

    Each g(x) = s V tanh(W (x - 1/2) + b) with s = min(1, c / (|W| |V|)), spectral norms: its
    Lipschitz constant is at most c < 1, so distances stay within (1 ± c) of what they were, and
    different candidates never share their features (van Amersfoort et al. 2021, arXiv 2102.11409;
    Behrmann et al. 2019, arXiv 1811.00995, theorem 1). A collapse would make the posterior
    sure where nothing was seen.
    """

    def __init__(
        self, n_features: int, n_blocks: int, width: int, contraction: float, seed: int
    ) -> None:
        super().__init__()
        self._contraction = contraction
        generator = torch.Generator().manual_seed(seed)
        slope = _START_SLOPE / (math.sqrt(n_features) + math.sqrt(width))
        shape = (n_blocks, width, n_features)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        shifts = torch.randn((n_blocks, width), generator=generator, dtype=torch.float64)
        self.inner = nn.Parameter(slope * drawn)
        self.shift = nn.Parameter(shifts)
        self.outer = nn.Parameter(torch.zeros(n_blocks, n_features, width, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Warp the rows of `x (q, d)`."""
        for inner, shift, outer in zip(self.inner, self.shift, self._bounded(), strict=True):
            x = x + torch.tanh((x - 0.5) @ inner.T + shift) @ outer.T
        return x

    def log_prior(self, sd: float) -> Tensor:
        """Log density, up to a constant, of independent normals on the outer weights, a scalar.

        `sd` is that of a block's shift of one feature where every hidden unit is at its limit.
        """
        width = self.outer.shape[2]
        return -0.5 * width * (self.outer / sd).square().sum()

    def bends(self) -> list[float]:
        """Lipschitz constant bound of each g, in [0, c]."""
        with torch.no_grad():
            sizes = _norms(self.inner) * _norms(self._bounded())
        bounds: list[float] = sizes.tolist()
        return bounds

    def _bounded(self) -> Tensor:
        size = _norms(self.inner) * _norms(self.outer)
        return self.outer * (self._contraction / size.clamp_min(self._contraction))[:, None, None]


def _norms(matrices: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.matrix_norm(matrices, 2)
    return norms

"""Densities of the real numbers that actions carry: mixtures on the unit interval or the circle.

Amounts u lie in (0, 1). On an interval a component is a Beta distribution; on a circle, where u = 0
and u = 1 are one point, a wrapped Cauchy distribution, whose density and quantiles are elementary
(Mardia & Jupp 2000, Directional Statistics, section 3.5.7): per turn
f = (1 - ρ²) / (1 + ρ² - 2ρ cos 2π(u - μ)). With outputs of zero the mixture is flat: the Betas are
then the Bernstein basis, whose mean is exactly uniform, and the Cauchys stand at equal angles.

Only the kinds of component that some row needs are evaluated, and of a network's outputs only the
part of each row's own head (`head_outputs`): the cost grows with neither.

Named axes: n rows, c components, o outputs of the network; outputs of a head `(n, 3c)`:
log-weights, then two shape parameters each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MARGIN = 1e-9
"""Amounts keep this distance from 0 and 1, where densities of Betas may be infinite."""
_SMALLEST_SHAPE = 0.5
"""Of a Beta: with smaller ones a share of its mass would lie within `_MARGIN` of 0 or 1."""
_LARGEST_LOG = 6.0
_LARGEST_RHO = 0.999
_START_RHO = 0.3
_N_CELLS = 128


def head_outputs(outputs: Tensor, columns: Tensor, n: int, rows: Tensor | None = None) -> Tensor:
    """The n outputs from column `columns` `(m,)` on, of `rows` `(m,)` or of all in order; `(m, n)`.

    What a row's head is made of, out of all that the network says `(r, o)`. Neither this nor its
    gradient touches the outputs of other heads, but for the zeros that a gradient `(r, o)` holds.
    """
    if rows is None:
        rows = torch.arange(len(outputs), device=outputs.device)
    starts = rows * outputs.shape[1] + columns
    places = starts[:, None] + torch.arange(n, device=outputs.device)
    # On one axis: `index_select` is the gather whose gradient is fast on a CPU.
    return outputs.reshape(-1).index_select(0, places.reshape(-1)).reshape(-1, n)


def log_density(outputs: Tensor, amounts: Tensor, is_circular: Tensor) -> Tensor:
    """Log density of `amounts` `(n,)` under the mixtures, float64 `(n,)`."""
    weights, first, second = _parts(outputs)
    u = amounts.clamp(_MARGIN, 1 - _MARGIN)[:, None]
    components = _log_components(first, second, u, is_circular[:, None])
    return (weights.log_softmax(dim=1) + components).logsumexp(dim=1)


def draw(outputs: Tensor, is_circular: Tensor, generator: torch.Generator) -> Tensor:
    """One amount a row from the mixtures, float64 `(n,)`."""
    weights, first, second = _parts(outputs)
    noise = torch.empty_like(weights).exponential_(generator=generator).log_()
    chosen = (weights - noise).argmax(dim=1, keepdim=True)
    first, second = first.gather(1, chosen), second.gather(1, chosen)
    c = weights.shape[1]
    is_any, is_all = _kinds(is_circular)
    if not is_any:
        u = _drawn_beta(first, second, chosen, c, generator)
    elif is_all:
        u = _drawn_cauchy(first, second, chosen, c, generator)
    else:
        on_interval = _drawn_beta(first, second, chosen, c, generator)
        on_circle = _drawn_cauchy(first, second, chosen, c, generator)
        u = torch.where(is_circular[:, None], on_circle, on_interval)
    return u[:, 0].clamp(_MARGIN, 1 - _MARGIN)


def draw_within(
    outputs: Tensor, is_circular: Tensor, low: Tensor, high: Tensor, generator: torch.Generator
) -> Tensor:
    """Amounts in `[low, high]`, nearly as the mixtures distribute them there, float64 `(n,)`.

    They follow the mixture on `_N_CELLS` equal cells of the range and are flat inside each, so that
    `log_density_within` knows their density exactly. On a circle `low > high` runs over the seam.
    """
    log_mass, width = _cells(outputs, is_circular, low, high)
    noise = torch.empty_like(log_mass).exponential_(generator=generator).log_()
    cell = (log_mass - noise).argmax(dim=1)
    inside = torch.rand(len(low), generator=generator, dtype=low.dtype, device=low.device)
    u = low + width * (cell + inside) / _N_CELLS
    return torch.where(is_circular, u.remainder(1.0), u).clamp(_MARGIN, 1 - _MARGIN)


def log_density_within(
    outputs: Tensor, is_circular: Tensor, low: Tensor, high: Tensor, amounts: Tensor
) -> Tensor:
    """Log of the density that `draw_within` draws `amounts` `(n,)` from, float64 `(n,)`."""
    log_mass, width = _cells(outputs, is_circular, low, high)
    behind = amounts - low
    behind = torch.where(is_circular, behind.remainder(1.0), behind)
    cell = (behind / width.clamp_min(1e-300) * _N_CELLS).long().clamp(0, _N_CELLS - 1)
    log_cell = log_mass.gather(1, cell[:, None])[:, 0]
    return log_cell + math.log(_N_CELLS) - width.clamp_min(1e-300).log()


def range_width(low: Tensor, high: Tensor) -> Tensor:
    """Width of the range from `low` to `high`, over the seam where `low > high`; `(n,)`."""
    return torch.where(low <= high, high - low, high - low + 1)


def _cells(
    outputs: Tensor, is_circular: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Log of each cell's share of the mixture's mass in the range `(n, cells)`, and its width."""
    width = range_width(low, high)
    middle = (torch.arange(_N_CELLS, device=low.device) + 0.5) / _N_CELLS
    u = (low[:, None] + width[:, None] * middle).remainder(1.0).clamp(_MARGIN, 1 - _MARGIN)
    weights, first, second = (part[:, None] for part in _parts(outputs))
    components = _log_components(first, second, u[:, :, None], is_circular[:, None, None])
    log_mass = (weights.log_softmax(dim=-1) + components).logsumexp(dim=-1)
    return log_mass.log_softmax(dim=1), width


def _parts(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weights, first, second = outputs.double().chunk(3, dim=1)
    return weights, first, second


def _bounded(x: Tensor) -> Tensor:
    """Smoothly keep a logarithm within ± `_LARGEST_LOG`."""
    return _LARGEST_LOG * torch.tanh(x / _LARGEST_LOG)


def _beta_shapes(first: Tensor, second: Tensor, index: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """Both exceed `_SMALLEST_SHAPE`; with zeros they are index + 1 and c - index."""
    alpha = (index + 1 - _SMALLEST_SHAPE) * _bounded(first).exp() + _SMALLEST_SHAPE
    beta = (c - index - _SMALLEST_SHAPE) * _bounded(second).exp() + _SMALLEST_SHAPE
    return alpha, beta


def _cauchy_shapes(first: Tensor, second: Tensor, index: Tensor, c: int) -> tuple[Tensor, Tensor]:
    start = math.log(_START_RHO / (1 - _START_RHO))
    return (index + 0.5) / c + first, _LARGEST_RHO * torch.sigmoid(start + second)


def _kinds(is_circular: Tensor) -> tuple[bool, bool]:
    """Whether any row is on a circle, and whether all are."""
    n = int(is_circular.sum())
    return n > 0, n == is_circular.numel()


def _log_components(first: Tensor, second: Tensor, u: Tensor, is_circular: Tensor) -> Tensor:
    """Log density of each component, `(…, c)`; `is_circular` has as many axes."""
    is_any, is_all = _kinds(is_circular)
    if not is_any:
        return _log_beta(first, second, u)
    if is_all:
        return _log_cauchy(first, second, u)
    return torch.where(is_circular, _log_cauchy(first, second, u), _log_beta(first, second, u))


def _drawn_beta(
    first: Tensor, second: Tensor, index: Tensor, c: int, generator: torch.Generator
) -> Tensor:
    """One draw a row from the Beta of component `index` of c, all `(n, 1)`."""
    alpha, beta = _beta_shapes(first, second, index, c)
    x = torch._standard_gamma(alpha, generator=generator)
    y = torch._standard_gamma(beta, generator=generator)
    return x / (x + y).clamp_min(1e-300)


def _drawn_cauchy(
    first: Tensor, second: Tensor, index: Tensor, c: int, generator: torch.Generator
) -> Tensor:
    """The same from the wrapped Cauchy, by its quantile function."""
    mean, rho = _cauchy_shapes(first, second, index, c)
    turn = torch.rand(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    angle = 2 * torch.atan((1 - rho) / (1 + rho) * torch.tan(math.pi * (turn - 0.5)))
    return (mean + angle / (2 * math.pi)).remainder(1.0)


def _log_beta(first: Tensor, second: Tensor, u: Tensor) -> Tensor:
    index = torch.arange(first.shape[-1], device=first.device)
    alpha, beta = _beta_shapes(first, second, index, first.shape[-1])
    log_norm = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
    return (alpha - 1) * u.log() + (beta - 1) * torch.log1p(-u) - log_norm


def _log_cauchy(first: Tensor, second: Tensor, u: Tensor) -> Tensor:
    index = torch.arange(first.shape[-1], device=first.device)
    mean, rho = _cauchy_shapes(first, second, index, first.shape[-1])
    cosine = torch.cos(2 * math.pi * (u - mean))
    return torch.log1p(-(rho**2)) - torch.log(1 + rho**2 - 2 * rho * cosine)

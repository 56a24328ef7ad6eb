"""Small networks that train together: the members of an ensemble, one batched product a layer.

Named axes: k members, q rows, p inputs, h hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

_DECAY = 1e-2
"""Decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101)."""


class Members(nn.Module):
    """k networks of two hidden layers, `(k, q, p)` → `(k, q)`, float64.

    Each is a trained network plus a fixed random one, its prior (Osband et al. 2018, arXiv
    1806.03335): where data do not speak, members keep their own opinions.
    """

    def __init__(
        self,
        n_features: int,
        n_fidelities: int,
        *,
        n_members: int,
        width: int,
        prior_scale: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.n_fidelities, self.n_members = n_fidelities, n_members
        self._prior_scale = prior_scale
        generator = torch.Generator().manual_seed(seed)
        shapes = [(n_features + n_fidelities, width), (width, width), (width, 1)]
        self.weights = _draw_weights(n_members, shapes, generator)
        self.shifts = _draw_shifts(n_members, shapes, generator)
        self.prior_weights = _draw_weights(n_members, shapes, generator).requires_grad_(False)
        self.prior_shifts = _draw_shifts(n_members, shapes, generator).requires_grad_(False)
        with torch.no_grad():
            # The trained part starts at nothing, so that training starts from the priors alone.
            self.weights[-1].mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Value of each member at its rows of `x (k, q, p)`, `(k, q)`."""
        return self.learned(x) + self.opinion(x)

    def learned(self, x: Tensor) -> Tensor:
        """The trained part of `forward`, `(k, q)`."""
        return _layers(x, self.weights, self.shifts)

    def opinion(self, x: Tensor) -> Tensor:
        """The fixed random part of `forward`, `(k, q)`."""
        return self._prior_scale * _layers(x, self.prior_weights, self.prior_shifts)

    def learning(self) -> list[nn.Parameter]:
        """The parameters that training moves."""
        return [*self.weights, *self.shifts]


def training(
    members: Members,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    *,
    n_steps: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
) -> Iterator[int]:
    """Fit every member in place to `y (n,)` at `x (n, p)`, a step each time it is asked.

    AdamW on squared errors with `weight (n,)`; every member draws its own batches. The learning
    rate falls to nothing along a cosine. Yields the number of steps done.
    """
    k, n = members.n_members, len(y)
    optimiser = torch.optim.AdamW(members.learning(), lr=learning_rate, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(n_steps, 1))
    with torch.no_grad():
        left = y - members.opinion(x.expand(k, n, -1))
    for step, rows in enumerate(_batches(k, n, batch_size, n_steps, generator), 1):
        optimiser.zero_grad()
        squares = (members.learned(x[rows]) - left.gather(1, rows)).square()
        mine = weight[rows]
        # Summed over members: each has its own parameters, so none weighs on another's step.
        loss = ((mine * squares).sum(1) / mine.sum(1)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        yield step


def _batches(
    k: int, n: int, batch_size: int, n_steps: int, generator: torch.Generator
) -> Sequence[Tensor]:
    """Row numbers `(k, b)` of each step: all rows when few, else epochs in random orders."""
    if n <= batch_size:
        return [torch.arange(n).expand(k, n)] * n_steps
    per_epoch = n // batch_size
    batches: list[Tensor] = []
    while len(batches) < n_steps:
        order = torch.rand(k, n, generator=generator).argsort(1)
        batches += [order[:, i * batch_size : (i + 1) * batch_size] for i in range(per_epoch)]
    return batches[:n_steps]


def _layers(x: Tensor, weights: nn.ParameterList, shifts: nn.ParameterList) -> Tensor:
    for weight, shift in zip(weights[:-1], shifts[:-1], strict=True):
        x = nn.functional.silu(torch.baddbmm(shift, x, weight))
    return torch.baddbmm(shifts[-1], x, weights[-1])[:, :, 0]


def _draw_weights(
    k: int, shapes: Sequence[tuple[int, int]], generator: torch.Generator
) -> nn.ParameterList:
    """Normal weights that keep the size of what passes (He et al. 2015, arXiv 1502.01852)."""
    return nn.ParameterList(
        math.sqrt(2 / shape[0]) * torch.randn((k, *shape), generator=generator, dtype=torch.float64)
        for shape in shapes
    )


def _draw_shifts(
    k: int, shapes: Sequence[tuple[int, int]], generator: torch.Generator
) -> nn.ParameterList:
    return nn.ParameterList(
        0.5 * torch.randn((k, 1, shape[1]), generator=generator, dtype=torch.float64)
        for shape in shapes
    )

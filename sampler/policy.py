"""The policy network: one trunk, a head of forward logits and, if learned, a backward head."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_HEAD_SCALE = 0.01
"""The heads start near zero, so that an untrained policy is nearly uniform over actions."""


class Policy(nn.Module):
    """A multilayer perceptron `(n, p) → (n, a)` and the learned scalar log Z.

    `has_backward` adds a second head for the backward policy. Weights depend on `seed` alone.
    """

    def __init__(
        self,
        n_inputs: int,
        n_actions: int,
        hidden: Sequence[int],
        *,
        has_backward: bool,
        seed: int,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise([n_inputs, *hidden]):
            layers += [_linear(width_in, width_out, generator), nn.LeakyReLU(0.01)]
        self.trunk = nn.Sequential(*layers)
        width = hidden[-1]
        self.forward_head = _linear(width, n_actions, generator, _HEAD_SCALE)
        self.backward_head = (
            _linear(width, n_actions, generator, _HEAD_SCALE) if has_backward else None
        )
        self.log_z = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """Forward logits `(n, a)`, unmasked."""
        logits: Tensor = self.forward_head(self.trunk(inputs))
        return logits

    def backward_logits(self, inputs: Tensor) -> Tensor:
        """Backward logits `(n, a)`, unmasked; zeros (a uniform policy) where none is learned."""
        if self.backward_head is None:
            return torch.zeros(len(inputs), self.forward_head.out_features)
        logits: Tensor = self.backward_head(self.trunk(inputs))
        return logits


def masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities over the allowed actions of each row, -inf elsewhere; `(n, a)`."""
    return logits.masked_fill(~mask, -math.inf).log_softmax(dim=1)


def _linear(
    width_in: int, width_out: int, generator: torch.Generator, scale: float = 1.0
) -> nn.Linear:
    """A linear layer with torch's default uniform initialisation, drawn from `generator`."""
    layer = nn.Linear(width_in, width_out, device="meta").to_empty(device="cpu")
    bound = scale / math.sqrt(width_in)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer

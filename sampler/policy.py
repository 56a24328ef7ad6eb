"""The policy network: a multilayer perceptron whose last layer gives everything at once.

Rollouts write what the network computed for each state into `Activations`, so that training runs
only the backward half over them. That half is written out here, in chunks that stay in the cache:
autograd would touch every activation several times more.

Named axes: n rows, p policy inputs, a actions, h heads of amounts, o outputs of the network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu_, linear

_HEAD_SCALE = 0.01
"""The last layer starts near zero, so that an untrained policy is nearly uniform over actions."""
_SLOPE = 0.01
_CHUNK = 2048
N_COMPONENTS = 5
"""Components of the mixture that an amount is drawn from."""


class Activations:
    """Inputs, hidden layers and outputs of the states seen so far, in buffers that are reused."""

    def __init__(self, widths: Sequence[int], device: torch.device) -> None:
        self.n = 0
        self._layers = [torch.empty(0, width, device=device) for width in widths]

    def clear(self) -> None:
        """Forget the rows; the memory stays."""
        self.n = 0

    def take(self, m: int) -> list[Tensor]:
        """Room for m further rows, a view of each layer."""
        if self.n + m > len(self._layers[0]):
            self._grow(max(2 * len(self._layers[0]), self.n + m, 1024))
        first = self.n
        self.n += m
        return [layer.narrow(0, first, m) for layer in self._layers]

    def rows(self, first: int, last: int) -> list[Tensor]:
        """Views of rows first … last - 1 of each layer."""
        return [layer[first:last] for layer in self._layers]

    def _grow(self, capacity: int) -> None:
        for i, layer in enumerate(self._layers):
            grown = layer.new_empty(capacity, layer.shape[1])
            grown[: self.n] = layer[: self.n]
            self._layers[i] = grown


class Policy(nn.Module):
    """A multilayer perceptron `(n, p) → (n, o)` and the learned log Z.

    Outputs: a forward logits; a backward logits with `has_backward`; the log flow of the state with
    `has_flow`; 3 · `N_COMPONENTS` numbers for each head of amounts. With `is_conditional` the inputs
    have one column more, and log Z is a small network of it. Weights depend on `seed` alone.
    """

    def __init__(
        self,
        n_inputs: int,
        n_actions: int,
        hidden: Sequence[int],
        *,
        has_backward: bool = False,
        has_flow: bool = False,
        n_heads: int = 0,
        is_conditional: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.n_actions = n_actions
        self.has_backward, self.has_flow = has_backward, has_flow
        self._first_flow = n_actions * (1 + has_backward)
        self._first_head = self._first_flow + has_flow
        self.n_outputs = self._first_head + n_heads * 3 * N_COMPONENTS
        self.widths = [n_inputs + is_conditional, *hidden, self.n_outputs]
        n_layers = len(self.widths) - 1
        self.layers = nn.ModuleList(
            _linear(width_in, width_out, generator, _HEAD_SCALE if i == n_layers - 1 else 1.0)
            for i, (width_in, width_out) in enumerate(itertools.pairwise(self.widths))
        )
        self._views: list[tuple[Tensor, Tensor]] | None = None
        self.log_z = nn.Parameter(torch.zeros(()))
        self.log_z_of_condition = (
            nn.Sequential(_linear(1, 64, generator), nn.Tanh(), _linear(64, 1, generator))
            if is_conditional
            else None
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """All outputs `(n, o)`."""
        *trunk, last = self._linears()
        for layer in trunk:
            inputs = leaky_relu_(linear(inputs, layer.weight, layer.bias), _SLOPE)
        return linear(inputs, last.weight, last.bias)

    @torch.no_grad()
    def run(self, inputs: Tensor, activations: Activations) -> Tensor:
        """The same, leaving every layer in `activations`; the outputs are a view of them."""
        views = activations.take(len(inputs))
        below = views[0].copy_(inputs)
        for (weight, bias), layer in zip(self._transposed(), views[1:], strict=True):
            torch.addmm(bias, below, weight, out=layer)
            below = layer if layer is views[-1] else leaky_relu_(layer, _SLOPE)
        return views[-1]

    def _transposed(self) -> list[tuple[Tensor, Tensor]]:
        """Weights `(in, out)` and biases of the layers, detached views: modules are slow to ask."""
        if self._views is None or self._views[0][0].device != self.log_z.device:
            self._views = [(m.weight.detach().t(), m.bias.detach()) for m in self._linears()]
        return self._views

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def recalled(self, activations: Activations, first: int, last: int) -> Tensor:
        """Outputs of rows first … last - 1 of `activations`, with a gradient to the weights."""
        weights = [p for layer in self._linears() for p in (layer.weight, layer.bias)]
        outputs: Tensor = _Recalled.apply(activations, first, last, *weights)  # type: ignore
        return outputs

    def forward_logits(self, outputs: Tensor) -> Tensor:
        """Of the forward policy `(n, a)`, unmasked."""
        if self.n_outputs == self.n_actions:
            return outputs
        return outputs[:, : self.n_actions]

    def backward_logits(self, outputs: Tensor) -> Tensor:
        """Of the backward policy `(n, a)`, unmasked; zeros, a uniform one, where none is learned."""
        if not self.has_backward:
            return outputs.new_zeros(len(outputs), self.n_actions)
        return outputs[:, self.n_actions : 2 * self.n_actions]

    def log_flow(self, outputs: Tensor) -> Tensor:
        """Log flow through each state, less the common offset log Z; `(n,)`."""
        return outputs[:, self._first_flow]

    def amount_outputs(self, outputs: Tensor, heads: Tensor) -> Tensor:
        """What the mixture of each row's head is made of, `(n, 3 · N_COMPONENTS)`."""
        width = 3 * N_COMPONENTS
        first = self._first_head + heads.clamp_min(0) * width
        columns = first[:, None] + torch.arange(width, device=outputs.device)
        return outputs.gather(1, columns)

    def log_z_at(self, conditions: Tensor | None) -> Tensor:
        """Log Z `()`, or `(n,)` of conditions `(n,)`."""
        if conditions is None or self.log_z_of_condition is None:
            return self.log_z
        at: Tensor = self.log_z_of_condition(conditions[:, None].float())[:, 0]
        return self.log_z + at


class _Recalled(torch.autograd.Function):
    """Outputs that were computed before, and the gradient of the weights they depend on."""

    @staticmethod
    def forward(
        ctx: Any, activations: Activations, first: int, last: int, *weights: Tensor
    ) -> Tensor:
        ctx.layers = activations.rows(first, last)
        ctx.save_for_backward(*weights)
        return ctx.layers[-1].clone()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        weights, grad, layers = ctx.saved_tensors, upstream[0], ctx.layers
        sums = [torch.zeros_like(weight) for weight in weights]
        for start in range(0, len(grad), _CHUNK):
            part = grad[start : start + _CHUNK]
            for i in range(len(layers) - 2, -1, -1):
                below = layers[i][start : start + _CHUNK]
                sums[2 * i].addmm_(part.t(), below)
                sums[2 * i + 1].add_(part.sum(dim=0))
                if i > 0:
                    part = part @ weights[2 * i]
                    torch.ops.aten.leaky_relu_backward.grad_input(
                        part, below, _SLOPE, True, grad_input=part
                    )
        return None, None, None, *sums


def masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities over the allowed actions of each row, -inf elsewhere; `(n, a)`."""
    return logits.masked_fill(~mask, -math.inf).log_softmax(dim=1)


def log_probability(logits: Tensor, mask: Tensor, actions: Tensor) -> Tensor:
    """Log-probability of the allowed `actions` `(n,)` of each row, `(n,)`."""
    return masked_log_softmax(logits, mask).gather(1, actions[:, None])[:, 0]


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

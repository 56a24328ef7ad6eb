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
    """Inputs, hidden layers and outputs of the states seen so far, in memory that is reused."""

    def __init__(self, widths: Sequence[int], device: torch.device) -> None:
        self.n = 0
        self._new: list[list[Tensor]] = []
        self._layers = [torch.empty(0, width, device=device) for width in widths]

    def clear(self) -> None:
        """Forget the rows; the memory stays."""
        self.cut(0)

    def cut(self, n: int) -> None:
        """Forget all rows but the first n."""
        self._gather()
        self.n = n

    def add(self, layers: list[Tensor]) -> None:
        """Take in rows, one tensor a layer."""
        self._new.append(layers)
        self.n += len(layers[0])

    def all_rows(self) -> list[Tensor]:
        """All rows of each layer."""
        self._gather()
        return [layer[: self.n] for layer in self._layers]

    def _gather(self) -> None:
        """Lay what was added behind what is there; once, for all layers are small until then."""
        if not self._new:
            return
        n_before = self.n - sum(len(layers[0]) for layers in self._new)
        if self.n > len(self._layers[0]):
            for i, layer in enumerate(self._layers):
                grown = layer.new_empty(max(2 * len(layer), self.n), layer.shape[1])
                grown[:n_before] = layer[:n_before]
                self._layers[i] = grown
        for whole, *parts in zip(self._layers, *self._new, strict=True):
            torch.cat(parts, out=whole[n_before : self.n])
        self._new = []


class Policy(nn.Module):
    """A multilayer perceptron `(n, p) → (n, o)` and the learned log Z.

    Outputs: a forward logits; a backward logits with `has_backward`; the log flow of the state with
    `has_flow`; 3 · `N_COMPONENTS` numbers for each head of amounts. With `is_conditional` there is
    one input more, and log Z is a small network of it. Weights depend on `seed` alone.
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

    def run(self, inputs: Tensor, activations: Activations) -> Tensor:
        """The same, leaving every layer in `activations`; the outputs are a view of them."""
        layers = [inputs]
        *trunk, last = self._detached()
        for weight, bias in trunk:
            layers.append(leaky_relu_(linear(layers[-1], weight, bias), _SLOPE))
        layers.append(linear(layers[-1], *last))
        activations.add(layers)
        return layers[-1]

    def _detached(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of the layers: modules are slow to ask."""
        if self._views is None:
            self._views = [(m.weight.detach(), m.bias.detach()) for m in self._linears()]
        return self._views

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles get weights of their own, and views of these."""
        return {**self.__dict__, "_views": None}

    def _apply(self, *arguments: Any, **options: Any) -> Policy:
        """Weights that move to another device leave the views of them behind."""
        self._views = None
        moved: Policy = super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]
        return moved

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def recalled(self, activations: Activations) -> Tensor:
        """Outputs of all rows of `activations`, with a gradient to the weights."""
        weights = [p for layer in self._linears() for p in (layer.weight, layer.bias)]
        outputs: Tensor = _Recalled.apply(activations, *weights)  # type: ignore
        return outputs

    def forward_logits(self, outputs: Tensor) -> Tensor:
        """Of the forward policy `(n, a)`, unmasked."""
        if self.n_outputs == self.n_actions:
            return outputs
        return outputs[:, : self.n_actions]

    def backward_logits(self, outputs: Tensor) -> Tensor:
        """Of the backward policy `(n, a)`, unmasked; zeros (uniform) where none is learned."""
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
    def forward(ctx: Any, activations: Activations, *weights: Tensor) -> Tensor:
        ctx.layers = activations.all_rows()
        ctx.save_for_backward(*weights)
        return ctx.layers[-1].clone()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        weights, grad, layers = ctx.saved_tensors, upstream[0], ctx.layers
        sums: list[Tensor] = []
        for start in range(0, max(1, len(grad)), _CHUNK):
            part = grad[start : start + _CHUNK]
            own: list[Tensor] = []
            for i in range(len(layers) - 2, -1, -1):
                below = layers[i][start : start + _CHUNK]
                own += [part.sum(dim=0), part.t() @ below]
                if i > 0:
                    part = part @ weights[2 * i]
                    torch.ops.aten.leaky_relu_backward.grad_input(
                        part, below, _SLOPE, True, grad_input=part
                    )
            if sums:
                torch._foreach_add_(sums, own)
            else:
                sums = own
        return None, *reversed(sums)


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

"""The policy network: a multilayer perceptron whose last layer gives everything at once.

Rollouts write what the network computed for each state into `Activations`, so that training runs
only the backward half over them; see `sampler.activations`.

Named axes: n rows, p policy inputs, a actions, h heads of amounts, o outputs of the network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu_, linear

from sampler.activations import SLOPE, Activations, Floats, Growth, Recalled, Weights
from sampler.amounts import head_outputs

_HEAD_SCALE = 0.01
"""The last layer starts near zero, so that an untrained policy is nearly uniform over actions."""
N_COMPONENTS = 5
"""Components of the mixture that an amount is drawn from."""


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
        self._views: list[Weights] | None = None
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
            inputs = leaky_relu_(linear(inputs, layer.weight, layer.bias), SLOPE)
        return linear(inputs, last.weight, last.bias)

    def run(self, inputs: Tensor, activations: Activations) -> Tensor:
        """The same, leaving every layer in `activations`; the outputs are a view of them."""
        if inputs.device.type == "cpu":
            layers_here = activations.room_here(len(inputs))
            layers_here[0][:] = inputs.numpy()
            first = self._weights()[0]
            first.apply(layers_here[0], layers_here[1])
            return torch.from_numpy(self._above(layers_here))
        return self._run_elsewhere(inputs, activations.room(len(inputs)))

    @torch.no_grad()
    def _run_elsewhere(self, inputs: Tensor, layers: list[Tensor]) -> Tensor:
        """Fill in `layers` on another device than the CPU; the last of them."""
        layers[0].copy_(inputs)
        *trunk, last = self._linears()
        for i, layer in enumerate(trunk):
            above = linear(layers[i], layer.weight, layer.bias)
            layers[i + 1].copy_(leaky_relu_(above, SLOPE))
        return layers[-1].copy_(linear(layers[-2], last.weight, last.bias))

    def first_sums(self, inputs: Tensor) -> Floats:
        """Sums of the first layer before the rectifier, `(n, p) → (n, l)`, on the CPU."""
        first = self._weights()[0]
        sums = np.empty((len(inputs), len(first.bias)), dtype=np.float32)
        first.apply(inputs.numpy(), sums, is_last=True)
        return sums

    @property
    def first_weights(self) -> Floats:
        """Of each input, what it adds to the sums of the first layer when it becomes 1, `(p, l)`.

        On the CPU; a view that training changes.
        """
        return self._weights()[0].weight_here

    def run_grown(self, sums: Floats, activations: Activations, how: Growth | Tensor) -> Tensor:
        """Outputs `(n, o)` from the sums of the first layer `(n, l)`, as `run` on the CPU.

        `how` these states arose from those of the call before, or the inputs of the first ones.
        """
        layers = activations.grow(len(sums), how)
        layers[1][:] = sums
        leaky_relu_(torch.from_numpy(layers[1]), SLOPE)
        return torch.from_numpy(self._above(layers))

    def _above(self, layers: list[Floats]) -> Floats:
        """Fill in what follows the first hidden layer; the last of `layers`."""
        weights, last = self._views or self._weights(), len(layers) - 2
        for i in range(1, last):
            weights[i].apply(layers[i], layers[i + 1])
        weights[last].apply(layers[last], layers[-1], is_last=True)
        return layers[-1]

    def _weights(self) -> list[Weights]:
        """Weights and biases of the layers as arrays too: modules are slow to ask."""
        if self._views is None:
            pairs = [(m.weight.detach().t(), m.bias.detach()) for m in self._linears()]
            self._views = [Weights.of(w, b) for w, b in pairs]
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
        outputs: Tensor = Recalled.apply(activations, *weights)  # type: ignore
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

    def amount_outputs(self, outputs: Tensor, heads: Tensor, rows: Tensor | None = None) -> Tensor:
        """What the mixture of head `heads` `(m,)` is made of, `(m, 3 · N_COMPONENTS)`.

        `rows` `(m,)`: in which row of the outputs each lies; None: all in order.
        """
        width = 3 * N_COMPONENTS
        return head_outputs(outputs, self._first_head + heads.clamp_min(0) * width, width, rows)

    def log_z_at(self, conditions: Tensor | None) -> Tensor:
        """Log Z `()`, or `(n,)` of conditions `(n,)`."""
        if conditions is None or self.log_z_of_condition is None:
            return self.log_z
        at: Tensor = self.log_z_of_condition(conditions[:, None].float())[:, 0]
        return self.log_z + at


def masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities over the allowed actions of each row, -inf elsewhere; `(n, a)`."""
    return logits.masked_fill(~mask, -math.inf).log_softmax(dim=1)


def log_probability(logits: Tensor, mask: Tensor, actions: Tensor) -> Tensor:
    """Log-probability of the allowed `actions` `(n,)` of each row, `(n,)`."""
    rows = torch.arange(len(actions), device=actions.device)
    return chosen_log_probability(logits, mask, rows, actions)


class _Chosen(torch.autograd.Function):
    """Log-probability of chosen actions: one node of the graph instead of six."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """Of the entries `places` `(t,)` of the flat logits `(u, a)`."""
        every = masked_log_softmax(logits, mask)
        ctx.save_for_backward(every, places)
        return every.view(-1).index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        """Gradient of the logits: what is chosen, less its share of each action."""
        every, places = ctx.saved_tensors
        grad = upstream[0].new_zeros(every.shape)
        grad.view(-1).index_add_(0, places, upstream[0])
        return grad.addcmul_(every.exp(), grad.sum(dim=1, keepdim=True), value=-1), None, None


def chosen_log_probability(logits: Tensor, mask: Tensor, rows: Tensor, actions: Tensor) -> Tensor:
    """Log-probability of allowed `actions` in `rows` of logits `(u, a)`, `(t,)`."""
    chosen: Tensor = _Chosen.apply(logits, mask, rows * logits.shape[1] + actions)  # type: ignore
    return chosen


def _linear(
    width_in: int, width_out: int, generator: torch.Generator, scale: float = 1.0
) -> nn.Linear:
    """A linear layer with torch's default uniform initialisation, drawn from `generator`."""
    layer = nn.Linear(width_in, width_out, device="meta").to_empty(device="cpu")
    bound = scale / math.sqrt(width_in)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
        # In memory by input: products of few rows are faster so, and inputs can be looked up.
        layer.weight.data = layer.weight.t().contiguous().t()
    return layer

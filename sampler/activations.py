"""What the network computed in a rollout, and the gradient of its weights from that alone.

Rollouts write inputs, hidden layers and outputs of each state into memory that is reused, so that
training runs only the backward half over them. That half is written out here, in chunks that stay
in the cache: autograd would touch every activation several times more.

Where each state differs from its parent in one input that became 1 (`sampler.spelled`), inputs are
not stored: the first layer of a state is that of its parent and one row of weights more, and its
gradient is summed from children to parents. The dense products of that layer fall away.

Named axes: n rows, p policy inputs, k units of the layer below, l of the layer above, o outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import leaky_relu_

SLOPE = 0.01
"""Of the leaky rectifier, below 0."""
CHUNK = 768
_SMALL = 1_000_000
"""OpenBLAS has kernels for products of up to so many multiplications. Through numpy they are up to
ten times as fast as torch's product, and larger ones gain a tenth in blocks of `_BLOCK` rows."""
_BLOCK = 8
QUIET = np.errstate(over="ignore", invalid="ignore")
"""For what uses `Activations`: numbers that are not finite end in an error that says what to do."""
Floats = NDArray[np.float32]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Growth:
    """How the states of one step arose from those of the step before it."""

    parents: Whole | None  # (m,): which state of the step before each one arose from; None: its own
    inputs: Whole  # (m,): the policy input that became 1


class Activations:
    """Inputs, hidden layers and outputs of the states seen so far, in memory that is reused."""

    def __init__(self, widths: Sequence[int], device: torch.device) -> None:
        self.n = 0
        self.n_grown = 0
        """The first rows, whose inputs are not stored but follow from `roots` and `growth`."""
        self.roots: Tensor | None = None  # (m, p): inputs of the first of all states
        self.growth: list[Growth] = []
        self._layers = [torch.empty(0, width, device=device) for width in widths]
        self._is_here = device.type == "cpu"
        self._capacity = 0
        self._arrays: list[Floats] = []
        self._extend(0)

    def __getstate__(self) -> dict[str, Any]:
        """A copy starts without memory: arrays and tensors would no longer share theirs."""
        layers = [layer[:0].clone() for layer in self._layers]
        cleared: dict[str, Any] = {"n": 0, "n_grown": 0, "roots": None, "growth": [], "_arrays": []}
        return {**vars(self), **cleared, "_layers": layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What `__getstate__` gave."""
        vars(self).update(state)
        self._extend(0)

    def clear(self) -> None:
        """Forget the rows; the memory stays."""
        self.n = self.n_grown = 0
        self.roots, self.growth = None, []

    def cut(self, n: int) -> None:
        """Forget all rows but the first n; those that others grew from stay."""
        if n == 0:
            self.clear()
        if not self.n_grown <= n <= self.n:
            raise ValueError(f"cut: expected {self.n_grown} to {self.n} rows, or 0, got {n}")
        self.n = n

    def room(self, m: int) -> list[Tensor]:
        """Memory for m more rows of each layer, which count as there from now on."""
        start = self._claim(m)
        return [layer[start : self.n] for layer in self._layers]

    def room_here(self, m: int) -> list[Floats]:
        """The same memory as arrays, on the CPU."""
        start = self.n
        stop = self.n = start + m
        if stop > self._capacity:
            self._extend(start)
        return [array[start:stop] for array in self._arrays]

    def grow(self, m: int, how: Growth | Tensor) -> list[Floats]:
        """Room for m states that arose from those of the last step, or for roots `(m, p)`."""
        if isinstance(how, Tensor):
            if self.n > 0:
                raise ValueError("grow: expected no rows yet, states grow from the first ones")
            self.roots = how
        else:
            self.growth.append(how)
        room = self.room_here(m)
        self.n_grown = self.n
        return room

    def all_rows(self) -> list[Tensor]:
        """All rows of each layer; the inputs of the first `n_grown` are arbitrary."""
        return [layer[: self.n] for layer in self._layers]

    def _claim(self, m: int) -> int:
        start, self.n = self.n, self.n + m
        if self.n > self._capacity:
            self._extend(start)
        return start

    def _extend(self, n_before: int) -> None:
        with torch.inference_mode(False), torch.no_grad():  # memory that training may write to
            for i, layer in enumerate(self._layers):
                grown = layer.new_empty(max(2 * len(layer), self.n), layer.shape[1])
                grown[:n_before] = layer[:n_before]
                self._layers[i] = grown
            self._capacity = len(self._layers[0])
            if self._is_here:
                self._arrays = [layer.numpy() for layer in self._layers]


@dataclass(frozen=True)
class Weights:
    """One layer: its weights `(k, l)`, twice, sharing their memory, and bias `(l,)`."""

    weight: Tensor
    bias: Tensor
    weight_here: Floats
    n_small: int
    """Rows of a product of up to `_SMALL` multiplications."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor) -> Weights:
        """Views of these, which are on the CPU."""
        return cls(weight, bias, weight.numpy(), _SMALL // weight.numel())

    def apply(self, below: Floats, out: Floats, *, is_last: bool = False) -> None:
        """Write below · weight + bias to `out`, `(n, k) → (n, l)`; rectified unless `is_last`."""
        above = torch.from_numpy(out)
        if len(below) <= self.n_small:
            np.matmul(below, self.weight_here, out=out)
            above.add_(self.bias)
        elif self.n_small >= _BLOCK and torch.get_num_threads() == 1:
            multiply_in_blocks(below, self.weight_here, out)
            above.add_(self.bias)
        else:
            torch.addmm(self.bias, torch.from_numpy(below), self.weight, out=above)
        if not is_last:
            leaky_relu_(above, SLOPE)


def multiply_in_blocks(left: Floats, right: Floats, out: Floats) -> None:
    """Write left · right to `out`, `(n, k) · (k, l) → (n, l)`, by `_BLOCK` rows, in one thread.

    Where there are more threads, torch divides what is large among them.
    """
    n, k = left.shape
    whole = n - n % _BLOCK
    into = out[:whole].reshape(-1, _BLOCK, out.shape[1])
    np.matmul(left[:whole].reshape(-1, _BLOCK, k), right, out=into)
    if whole < n:
        np.matmul(left[whole:], right, out=out[whole:])


class Recalled(torch.autograd.Function):
    """Outputs that were computed before, and the gradient of the weights they depend on."""

    @staticmethod
    def forward(ctx: Any, activations: Activations, *weights: Tensor) -> Tensor:
        """Outputs `(n, o)` of all rows; `weights` are weight `(l, k)` and bias of each layer."""
        ctx.layers = activations.all_rows()
        ctx.grown = (activations.n_grown, activations.roots, activations.growth)
        ctx.save_for_backward(*weights)
        return ctx.layers[-1].clone()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        """Gradients of the weights and biases."""
        weights, grad, layers = ctx.saved_tensors, upstream[0], ctx.layers
        n_grown, roots, growth = ctx.grown
        first = grad.new_empty(n_grown, layers[1].shape[1])
        downward = [_Downward(weight) for weight in weights[2::2]]
        sums: list[Tensor] = []
        for start in range(0, max(1, len(grad)), CHUNK):
            part = grad[start : start + CHUNK]
            own: list[Tensor] = []
            for i in range(len(layers) - 2, -1, -1):
                below = layers[i][start : start + CHUNK]
                if i == 0 and n_grown > start:  # see `_grown_sums`
                    if n_grown < start + len(part):
                        first[start:] = part[: n_grown - start]
                    part, below = part[n_grown - start :], below[n_grown - start :]
                own += [part.sum(dim=0), _product(below.t(), part).t()]
                if i > 0:
                    is_kept = i == 1 and start + len(part) <= n_grown
                    kept = first[start : start + len(part)] if is_kept else None
                    part = downward[i - 1](part, kept)
                    torch.ops.aten.leaky_relu_backward.grad_input(
                        part, below, SLOPE, True, grad_input=part
                    )
            if sums:
                torch._foreach_add_(sums, own)
            else:
                sums = own
        if n_grown > 0:
            torch._foreach_add_(sums[-2:], _grown_sums(first, roots, growth))
        return None, *reversed(sums)


class _Downward:
    """Multiplies gradients of a layer's sums `(n, l)` by its weights `(l, k)`."""

    def __init__(self, weight: Tensor) -> None:
        is_in_blocks = weight.numel() * _BLOCK <= _SMALL and torch.get_num_threads() == 1
        is_here = weight.device.type == "cpu" and is_in_blocks
        self.weight = weight.contiguous() if is_here else weight
        self.is_here = is_here

    def __call__(self, part: Tensor, out: Tensor | None) -> Tensor:
        """`(n, l) → (n, k)`, in `out` if there is one."""
        if not self.is_here:
            return torch.mm(part, self.weight, out=out)
        below = part.new_empty(len(part), self.weight.shape[1]) if out is None else out
        multiply_in_blocks(part.numpy(), self.weight.numpy(), below.numpy())
        return below


def _grown_sums(first: Tensor, roots: Tensor, growth: list[Growth]) -> list[Tensor]:
    """Gradients of bias and weights of the first layer, from those of its sums `(n, l)`.

    These become, for each state, the total over it and all that arose from it.
    """
    first_here, starts = first.numpy(), [0, len(roots)]
    for how in growth:
        starts.append(starts[-1] + len(how.inputs))
    for step in range(len(growth), 0, -1):
        before, start, stop = starts[step - 1 : step + 2]
        parents = growth[step - 1].parents
        if parents is None:
            np.add(first_here[before:start], first_here[start:stop], out=first_here[before:start])
        else:
            total = first[before:start]
            total.index_add_(0, torch.from_numpy(parents), first[start:stop])
    weight = roots.t() @ first[: len(roots)]
    if growth:
        inputs = torch.from_numpy(np.concatenate([how.inputs for how in growth]))
        weight.index_add_(0, inputs, first[len(roots) :])
    return [first[: len(roots)].sum(dim=0), weight.t()]


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product `(m, k) · (k, n)`, where it is fastest; see `_SMALL`."""
    is_small = left.shape[0] * right.numel() <= _SMALL or torch.get_num_threads() == 1
    if not is_small or left.device.type != "cpu":
        return left @ right
    return torch.from_numpy(np.matmul(left.numpy(), right.numpy()))

"""Products where they are fastest, and rows that grow: they must not differ from plain ones."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from sampler.activations import Activations, Growth, Weights, multiply_in_blocks

CPU = torch.device("cpu")


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n", [0, 1, 7, 16, 41, 300])
@pytest.mark.parametrize(("k", "width"), [(3, 2), (256, 256), (256, 4), (600, 500)])
def test_a_layer_is_its_formula(n: int, k: int, width: int, n_threads: int) -> None:
    """In one product, in blocks, and by torch."""
    below, weight, bias = random(n, k), random(k, width), random(width)
    weights = Weights.of(weight, bias)
    out, before = torch.empty(n, width), torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        weights.apply(below.numpy(), out.numpy(), is_last=True)
        assert torch.allclose(out, below @ weight + bias, atol=1e-3)
        weights.apply(below.numpy(), out.numpy())
    finally:
        torch.set_num_threads(before)
    rectified = torch.nn.functional.leaky_relu(below @ weight + bias, 0.01)
    assert torch.allclose(out, rectified, atol=1e-3)


@pytest.mark.parametrize("n", [0, 5, 64, 67])
def test_multiply_in_blocks(n: int) -> None:
    left, right = random(n, 300).numpy(), random(300, 200).numpy()
    out = np.full((n, 200), np.nan, dtype=np.float32)
    multiply_in_blocks(left, right, out)
    assert np.allclose(out, left @ right, atol=1e-3)


def test_room_keeps_what_was_written_when_it_grows() -> None:
    activations = Activations([2, 3], CPU)
    for i in range(5):
        for layer in activations.room(i + 1):
            layer.fill_(i)
    expected = torch.arange(5.0).repeat_interleave(torch.arange(5) + 1)
    for layer in activations.all_rows():
        assert torch.equal(layer, expected[:, None].expand_as(layer))


def test_states_grow_from_the_first_rows() -> None:
    activations = Activations([2, 3], CPU)
    activations.grow(2, random(2, 2))
    activations.grow(2, Growth(None, np.array([0, 1])))
    assert (activations.n, activations.n_grown) == (4, 4)
    activations.room(3)
    assert (activations.n, activations.n_grown) == (7, 4)
    activations.cut(5)
    assert (activations.n, activations.n_grown) == (5, 4)
    with pytest.raises(ValueError, match="expected no rows yet"):
        activations.grow(2, random(2, 2))
    activations.clear()
    assert (activations.n, activations.n_grown, activations.growth) == (0, 0, [])


def test_rows_that_others_grew_from_are_not_cut() -> None:
    activations = Activations([2, 3], CPU)
    activations.grow(4, random(4, 2))
    with pytest.raises(ValueError, match="expected 4 to 4 rows, or 0, got 2"):
        activations.cut(2)
    with pytest.raises(ValueError, match="expected 4 to 4 rows, or 0, got 5"):
        activations.cut(5)


def test_a_copy_starts_without_rows_and_has_memory_of_its_own() -> None:
    activations = Activations([2, 3], CPU)
    activations.room(4)
    twin = copy.deepcopy(activations)
    assert twin.n == 0
    twin.room_here(2)[1][:] = 5.0
    assert torch.equal(twin.all_rows()[1], torch.full((2, 3), 5.0))

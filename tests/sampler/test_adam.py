"""The short way through Adam arrives where torch's does."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sampler.adam import Adam


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    across = torch.randn(3, 4, generator=generator).t()  # not contiguous, as the policy's weights
    values = [across, torch.randn(4, generator=generator), torch.randn((), generator=generator)]
    return [nn.Parameter(value) for value in values]


def groups(those: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": those[:2], "lr": 0.01}, {"params": those[2:], "lr": 0.1}]


def loss_of(those: list[nn.Parameter], step: int, n: int = 3) -> Tensor:
    total = sum((parameter * (step + 1)).sin().sum() for parameter in those[:n])
    assert isinstance(total, Tensor)
    return total


@pytest.mark.parametrize("n", [2, 3])
def test_weights_are_those_of_torch(n: int) -> None:
    """Also where a group has no gradient, which both leave alone."""
    ours, theirs = parameters(), parameters()
    short, plain = Adam(groups(ours)), torch.optim.Adam(groups(theirs))
    for step in range(5):
        short.forget_gradients()
        plain.zero_grad()
        loss_of(ours, step, n).backward()
        loss_of(theirs, step, n).backward()
        for optimizer in (short, plain):
            optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
        short.advance()
        plain.step()
        for left, right in zip(ours, theirs, strict=True):
            assert torch.allclose(left, right, atol=1e-6)
    assert (ours[2] == parameters()[2]) == (n == 2)


def test_it_goes_on_from_what_it_saved() -> None:
    once = parameters()
    optimizer = Adam(groups(once))

    def take(steps: range, those: list[nn.Parameter], by: Adam) -> None:
        for step in steps:
            by.forget_gradients()
            loss_of(those, step).backward()
            by.advance()

    take(range(2), once, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    again = [nn.Parameter(parameter.detach().clone()) for parameter in once]
    take(range(2, 4), once, optimizer)

    other = Adam(groups(again))
    weights = [parameter.detach().clone() for parameter in again]
    take(range(1), again, other)  # so that there is something to forget
    for parameter, weight in zip(again, weights, strict=True):
        parameter.data.copy_(weight)
    other.load_state_dict(saved)
    take(range(2, 4), again, other)
    for left, right in zip(once, again, strict=True):
        assert torch.equal(left, right)

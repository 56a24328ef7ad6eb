"""The network that remembers what it computed: it must not differ from plain autograd."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sampler.activations import CHUNK, Activations
from sampler.policy import (
    N_COMPONENTS,
    Policy,
    log_probability,
    masked_log_softmax,
)

N_INPUTS, N_ACTIONS = 5, 3


def make(**options) -> Policy:
    return Policy(N_INPUTS, N_ACTIONS, (16, 12), seed=4, **options)


def random_inputs(n: int, width: int = N_INPUTS, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def gradients(policy: Policy) -> Iterator[Tensor]:
    for parameter in policy.layers.parameters():
        assert parameter.grad is not None
        yield parameter.grad.clone()


def assert_same_as_autograd(policy: Policy, parts: list[Tensor]) -> None:
    """Outputs and gradients of `run` on `parts`, then `recalled`, against those of `forward`."""
    inputs = torch.cat(parts)
    factor = random_inputs(len(inputs), policy.n_outputs, seed=1)

    policy.zero_grad()
    expected = policy(inputs)
    (expected.sin() * factor).sum().backward()
    wanted = list(gradients(policy))

    activations = Activations(policy.widths, torch.device("cpu"))
    for part in parts:
        policy.run(part, activations)
    policy.zero_grad()
    outputs = policy.recalled(activations)
    (outputs.sin() * factor).sum().backward()
    assert torch.allclose(outputs, expected, atol=1e-6, rtol=1e-5)
    for got, want in zip(gradients(policy), wanted, strict=True):
        scale = float(want.abs().max())
        assert scale > 0
        assert torch.allclose(got, want, atol=1e-5 * scale + 1e-6, rtol=1e-4)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 0))
def test_recalled_outputs_and_gradients_are_those_of_autograd(sizes: list[int]) -> None:
    parts = [random_inputs(n, seed=i) for i, n in enumerate(sizes)]
    assert_same_as_autograd(make(has_backward=True, has_flow=True), parts)


def test_gradients_of_more_rows_than_a_chunk() -> None:
    n = 2 * CHUNK + 7
    assert_same_as_autograd(make(), [random_inputs(n - 5), random_inputs(5, seed=3)])


def test_gradients_reach_layers_of_any_depth() -> None:
    for hidden in [(4,), (4, 5, 6, 7)]:
        assert_same_as_autograd(Policy(N_INPUTS, N_ACTIONS, hidden), [random_inputs(9)])


def test_rows_that_were_cut_are_forgotten() -> None:
    policy = make()
    inputs = random_inputs(20)
    activations = Activations(policy.widths, torch.device("cpu"))
    policy.run(inputs, activations)
    activations.cut(9)
    policy.run(inputs[15:], activations)
    expected = policy(torch.cat([inputs[:9], inputs[15:]]))
    assert torch.allclose(policy.recalled(activations), expected, atol=1e-6)
    activations.cut(0)
    assert len(policy.recalled(activations)) == 0


def test_growing_buffers_keeps_what_is_in_them_and_clearing_reuses_them() -> None:
    policy = make()
    activations = Activations(policy.widths, torch.device("cpu"))
    for i in range(30):
        policy.run(random_inputs(100, seed=i), activations)
    everything = torch.cat([random_inputs(100, seed=i) for i in range(30)])
    assert torch.allclose(policy.recalled(activations), policy(everything), atol=1e-6)
    activations.clear()
    assert activations.n == 0
    policy.run(random_inputs(3, seed=99), activations)
    expected = policy(random_inputs(3, seed=99))
    assert torch.allclose(policy.recalled(activations), expected, atol=1e-6)


def test_outputs_do_not_overlap() -> None:
    """Setting one part of the outputs leaves all others, and together they are everything."""
    policy = make(has_backward=True, has_flow=True, n_heads=2)
    outputs = torch.arange(policy.n_outputs, dtype=torch.float32)[None, :]
    parts = [
        policy.forward_logits(outputs)[0],
        policy.backward_logits(outputs)[0],
        policy.log_flow(outputs),
        policy.amount_outputs(outputs, torch.tensor([0]))[0],
        policy.amount_outputs(outputs, torch.tensor([1]))[0],
    ]
    assert torch.cat(parts).tolist() == list(range(policy.n_outputs))
    assert len(parts[3]) == 3 * N_COMPONENTS


def test_a_policy_without_backward_head_has_flat_backward_logits() -> None:
    policy = make()
    outputs = policy(random_inputs(4))
    assert outputs.shape == (4, N_ACTIONS)
    assert torch.equal(policy.backward_logits(outputs), torch.zeros(4, N_ACTIONS))


def test_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = Policy(N_INPUTS, N_ACTIONS, (8,), is_conditional=True, seed=7)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = Policy(N_INPUTS, N_ACTIONS, (8,), is_conditional=True, seed=7)
    assert torch.equal(before, torch.get_rng_state())
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)
    other = Policy(N_INPUTS, N_ACTIONS, (8,), seed=8)
    assert not torch.equal(first.layers[0].bias, other.layers[0].bias)


def test_an_untrained_policy_is_nearly_uniform() -> None:
    policy = make()
    mask = torch.tensor([[True, True, False]]).expand(50, -1)
    log_p = masked_log_softmax(policy.forward_logits(policy(random_inputs(50))), mask)
    assert torch.allclose(log_p[:, :2].exp(), torch.full((50, 2), 0.5), atol=0.05)
    assert torch.equal(log_p[:, 2], torch.full((50,), -torch.inf))


def test_masked_probabilities_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 3.0, 3.0]]).log().nan_to_num(neginf=-50.0)
    mask = torch.tensor([[False, True, True], [True, True, True]])
    assert masked_log_softmax(logits, mask).exp().flatten().tolist() == pytest.approx(
        [0, 1 / 3, 2 / 3, 1 / 3, 1 / 3, 1 / 3]
    )
    assert log_probability(logits, mask, torch.tensor([2, 0])).exp().tolist() == pytest.approx(
        [2 / 3, 1 / 3]
    )


def test_log_z_of_conditions() -> None:
    policy = make(is_conditional=True)
    assert policy.widths[0] == N_INPUTS + 1
    with torch.no_grad():
        policy.log_z.fill_(2.0)
    conditions = torch.tensor([-1.0, 0.5])
    at = policy.log_z_at(conditions)
    assert at.shape == (2,)
    assert policy.log_z_of_condition is not None
    expected = 2.0 + policy.log_z_of_condition(conditions[:, None])[:, 0]
    assert torch.equal(at, expected)
    assert make().log_z_at(None).item() == 0.0

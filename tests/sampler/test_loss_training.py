"""Every loss trains the policy to the reward, and moves every parameter of it."""

import pytest
import torch
from torch import Tensor

from sampler import LOSSES, GFlowNet, environment
from sampler.exact import terminal_distribution

GRID = environment("hyper_grid", n_dims=2, length=6)
EVERY_LOSS = pytest.mark.parametrize("loss", sorted(LOSSES))


def corners(states: Tensor) -> Tensor:
    """Four modes in the corners (Bengio et al. 2021, section 4.1), R₀ = 0.1."""
    distance = (GRID.features(states) - 0.5).abs()
    return (0.1 + 2.0 * (distance > 0.25).all(dim=1).double()).log()


@EVERY_LOSS
def test_every_loss_trains_to_the_reward(loss: str) -> None:
    net = GFlowNet(
        GRID, loss, hidden=(32, 32), learning_rate=5e-3, schedule="linear", schedule_steps=400
    )
    net.train(corners, 400, 32)
    states, probabilities = terminal_distribution(net)
    target = corners(states).softmax(dim=0)
    assert float((probabilities - target).abs().sum()) < 0.05
    assert net.log_z == pytest.approx(float(corners(states).logsumexp(dim=0)), abs=0.05)


SPACES = {
    "hyper_grid": ("hyper_grid", {"n_dims": 2, "length": 5}),
    "hypercube": (
        "hypercube",
        {"n_dims": 2, "bounds": [(0.0, 1.0)] * 2, "n_increments": 2, "any_order": True},
    ),
    "torus": ("torus", {"n_dims": 2, "n_increments": 2, "any_order": True}),
    "stack": (
        "stack",
        {
            "parts": {
                "cell": {"kind": "hyper_grid", "n_dims": 2, "length": 3},
                "point": {"kind": "hypercube", "n_dims": 1, "bounds": [(0.0, 1.0)]},
            }
        },
    ),
}


@pytest.mark.parametrize("space", sorted(SPACES))
@EVERY_LOSS
@pytest.mark.parametrize("is_backward_learned", [False, True])
@pytest.mark.parametrize("beta_range", [None, (0.5, 2.0)])
def test_every_parameter_gets_a_gradient(
    space: str, loss: str, is_backward_learned: bool, beta_range: tuple[float, float] | None
) -> None:
    kind, options = SPACES[space]
    made = environment(kind, **options)
    if loss == "flow_matching" and made.action_heads is not None:
        with pytest.raises(ValueError, match="parents of a state, which form a continuum"):
            GFlowNet(made, loss)
        return
    net = GFlowNet(
        made, loss, hidden=(8, 8), is_backward_learned=is_backward_learned, beta_range=beta_range
    )
    # Twice: log Z is balanced at the first step, so its gradient shows at the second.
    for _ in range(2):
        net.train(lambda states: made.features(states).sum(dim=1), 1, 32)
    assert net.policy.has_backward == (is_backward_learned and loss != "flow_matching")
    for name, parameter in net.policy.named_parameters():
        if name == "log_z" and loss == "log_partition_variance" and beta_range is None:
            continue  # that loss does not need it: it follows the estimates of each batch
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
    last = net.policy.layers[-1].weight.grad
    blocks = [net.policy.forward_logits(last.t())]
    heads = torch.arange(len(made.circular_heads))
    blocks += [net.policy.amount_outputs(last.t(), head.expand(8)) for head in heads]
    if net.policy.has_backward:
        blocks.append(net.policy.backward_logits(last.t()))
    if net.policy.has_flow:
        blocks.append(net.policy.log_flow(last.t()))
    for block in blocks:
        assert block.numel() == 0 or float(block.abs().max()) > 0

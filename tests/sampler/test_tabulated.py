"""A space that is written down is walked just as one that is asked."""

import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, environment
from sampler.environment import Environment
from sampler.environments.hyper_grid import HyperGrid
from sampler.tabulated import tabulate

SPACES = {
    "grid": ("hyper_grid", {"n_dims": 2, "length": 6}),
    "subset": ("subset", {"n_items": 6, "size": (0, 3)}),
    "word": ("sequence", {"alphabet": "ACGT", "min_length": 1, "max_length": 4}),
}


def make(name: str) -> Environment:
    kind, options = SPACES[name]
    return environment(kind, **options)


def trained(
    space: Environment, batch_size: int, *, walk: bool = True, **options: object
) -> tuple[GFlowNet, list[float]]:
    """`walk` False: not by the spelling either, where the space has one."""
    net = GFlowNet(space, hidden=(16,), exploration=0.2, temperature=1.5, **options)
    if not walk:
        net._collector.spelling = None
    return net, net.train(lambda states: space.features(states).sum(dim=1), 15, batch_size)


@pytest.mark.parametrize("name", SPACES)
def test_unless_merged_they_train_the_same_to_the_bit(name: str) -> None:
    space = make(name)
    table, tabulated = trained(space, 16, merges_states=False)
    asked, plain = trained(space, 16, merges_states=False, max_states_tabulated=0, walk=False)
    assert table._collector.table is not None
    assert asked._collector.table is None
    assert tabulated == plain
    for left, right in zip(table.policy.parameters(), asked.policy.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("batch_size", [16, 200])
def test_merged_they_train_the_same_to_rounding(name: str, batch_size: int) -> None:
    """Equal states are asked once: their gradients are summed in another order."""
    space = make(name)
    runs = [
        trained(space, batch_size)[1],
        trained(space, batch_size, max_states_tabulated=0)[1],
        trained(space, batch_size, merges_states=False)[1],
        trained(space, batch_size, max_states_tabulated=0, merges_states=False)[1],
    ]
    for losses in runs[1:]:
        assert losses == pytest.approx(runs[0], rel=1e-3)


@pytest.mark.parametrize("name", SPACES)
def test_the_table_says_what_the_space_says(name: str) -> None:
    space = make(name)
    table = tabulate(space, 10_000)
    assert table is not None
    assert torch.equal(table.masks, space.forward_mask(table.states))
    rows, actions = table.masks.nonzero(as_tuple=True)
    children = torch.from_numpy(table.children)[rows * space.n_actions + actions]
    assert torch.equal(table.states[children], space.step(table.states[rows], actions))
    assert table.is_open.tolist() == (~space.is_terminal(table.states)).tolist()


def test_what_is_too_large_or_continuous_is_not_written_down() -> None:
    assert tabulate(make("grid"), 20) is None
    assert tabulate(make("grid"), 0) is None
    assert tabulate(environment("hypercube", n_dims=1, bounds=[(0.0, 1.0)]), 1000) is None


class DeadEnd(HyperGrid):
    """A grid where nothing is allowed at one point."""

    def forward_mask(self, states: Tensor) -> Tensor:
        return super().forward_mask(states) & ~(states[:, :2] == 1).all(dim=1)[:, None]


def test_a_dead_end_names_its_state() -> None:
    space = DeadEnd(2, 4)
    with pytest.raises(RuntimeError, match=r"dead end: the state \[1, 1, 0\]"):
        trained(space, 64)

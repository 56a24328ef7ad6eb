"""What goes wrong outside the engine is named: rewards, spaces, devices."""

import copy

import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, Random, environment
from sampler.asking import checked
from sampler.environments.hyper_grid import HyperGrid

GRID = environment("hyper_grid", n_dims=2, length=6)
STATES = GRID.from_keys(["0,1", "2,3", "4,5"])


def small_net(space=GRID, **options) -> GFlowNet:
    return GFlowNet(space, hidden=(8,), **options)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("feature", [{}, {"local_search": {}}, {"replay": {}}])
def test_a_reward_that_is_no_number_names_the_candidate(bad: float, feature: dict) -> None:
    def broken(states: Tensor) -> Tensor:
        return torch.where(states[:, 0] == 2, bad, 0.0)

    with pytest.raises(
        ValueError, match=rf"expected a finite number or -inf, got {bad} for candidate '2,\d'"
    ):
        small_net(**feature).train(broken, n_steps=50, batch_size=32)


def test_a_reward_that_raises_names_the_candidate_and_keeps_the_cause() -> None:
    def broken(states: Tensor) -> Tensor:
        if bool((states[:, 0] == 2).any()):
            raise KeyError("no such energy")
        return torch.zeros(len(states))

    with pytest.raises(
        RuntimeError, match=r"log_reward raised KeyError: 'no such energy', for candidate '2,3'"
    ) as caught:
        checked(GRID, broken, -10.0)(STATES)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(RuntimeError, match=r"for candidate '2,\d'"):
        small_net().train(broken, 50, 32)


def test_a_reward_that_fails_for_whole_batches_only_says_so() -> None:
    def broken(states: Tensor) -> Tensor:
        if len(states) > 1:
            raise MemoryError("too many")
        return torch.zeros(1)

    with pytest.raises(RuntimeError, match="no single one: only for all 3 of the batch together"):
        checked(GRID, broken, -10.0)(STATES)


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (2,), ()])
def test_a_reward_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"log_reward: expected shape \(3,\), got"):
        checked(GRID, lambda states: torch.zeros(shape), -10.0)(STATES)


def test_rewards_are_floored_and_lose_their_gradient() -> None:
    weight = torch.tensor(1.0, requires_grad=True)
    values = checked(
        GRID, lambda states: torch.tensor([-torch.inf, -3.0, 2.0]) * weight, floor=-5.0
    )(STATES)
    assert values.tolist() == [-5.0, -3.0, 2.0]
    assert values.dtype == torch.float64
    assert not values.requires_grad


def test_training_goes_on_after_a_fault() -> None:
    net = small_net()
    with pytest.raises(ValueError, match="nan"):
        net.train(lambda states: torch.full((len(states),), torch.nan), 1, 8)
    assert net.n_steps_trained == 0
    assert len(net.train(lambda states: torch.zeros(len(states)), 3, 8)) == 3


class Trap(HyperGrid):
    """A grid whose states with coordinate 0 at 2 allow nothing, though they are not terminal."""

    def forward_mask(self, states: Tensor) -> Tensor:
        return super().forward_mask(states) & (states[:, :1] != 2)

    def random_states(self, n: int, generator: torch.Generator) -> None:
        """Not every point can be reached any more."""


@pytest.mark.parametrize("sampler", [GFlowNet, Random])
def test_a_dead_end_names_the_state(sampler: type) -> None:
    trapped = sampler(Trap(n_dims=2, length=4))
    with pytest.raises(RuntimeError, match=r"dead end: the state \[2, \d, 0\] allows no action"):
        trapped.sample(200, seed=0)


class Endless(HyperGrid):
    """A grid that says that its trajectories are shorter than they are."""

    def __init__(self, n_dims: int, length: int) -> None:
        super().__init__(n_dims, length)
        self.max_steps = 2


def test_a_trajectory_without_end_names_the_state() -> None:
    with pytest.raises(RuntimeError, match=r"longer than max_steps = 2, in the state \[\d, \d, 0"):
        small_net(Endless(n_dims=2, length=4)).sample(50, seed=0)


def test_weights_that_are_nan_are_refused() -> None:
    net = small_net()
    with torch.no_grad():
        net.policy.layers[0].weight[0, 0] = torch.nan
    with pytest.raises(RuntimeError, match="weights hold NaN or infinity: training diverged"):
        net.sample(3)
    with pytest.raises(RuntimeError, match="loss is nan at training step 0: expected a finite"):
        net.train(lambda states: torch.zeros(len(states)), 3, 8)


@pytest.mark.parametrize("name", ["nonsense", "cuda:x", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"device: expected 'auto', 'cpu' or 'cuda', got '{name}'"):
        small_net(device=name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_cuda_is_refused() -> None:
    assert small_net(device="auto").device.type == "cpu"
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f"'{name}' was asked for, but torch sees no CUDA"):
            small_net(device=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("hyper_grid", {"n_dims": 2, "length": 6}),
        ("hypercube", {"n_dims": 2, "bounds": [(0.0, 1.0)] * 2, "n_increments": 2}),
    ],
)
def test_training_and_sampling_on_cuda(kind: str, options: dict) -> None:
    space = environment(kind, **options)
    net = small_net(
        space,
        device="cuda",
        is_backward_learned=True,
        replay={},
        local_search={},
        ema=0.9,
        beta_range=(0.5, 2.0),
    )
    plain = small_net(space, device="cuda")
    drawn = plain.sample(5, seed=1)
    assert plain.log_prob(drawn).device.type == "cuda"
    losses = net.train(lambda states: states.sum(dim=1).double(), 20, 16)
    assert losses[-1] < losses[0]
    drawn = net.sample(5, seed=1)
    assert drawn.device.type == "cuda"
    assert net.log_prob(drawn).device.type == "cuda"
    assert len(space.keys(drawn.cpu())) == 5


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_diverging_small_space_ends_in_an_error_not_in_a_loop() -> None:
    net = GFlowNet(GRID, hidden=(8,), learning_rate=1e20)
    with pytest.raises(RuntimeError, match=r"diverged|loss is"):
        net.train(lambda states: GRID.features(states).sum(dim=1), 20, 16)


def test_one_trajectory_has_no_variance() -> None:
    net = GFlowNet(GRID, "log_partition_variance", hidden=(8,))
    with pytest.raises(ValueError, match="batch_size of 2 or more"):
        net.train(lambda states: GRID.features(states).sum(dim=1), 1, 1)


def test_an_example_that_is_not_finished_is_refused() -> None:
    with pytest.raises(ValueError, match="which is not finished"):
        GFlowNet(GRID, hidden=(8,)).train(
            lambda states: GRID.features(states).sum(dim=1),
            1,
            8,
            examples=GRID.initial_states(1),
            example_fraction=0.5,
        )


def test_a_copy_trains_on_its_own() -> None:
    net = GFlowNet(GRID, hidden=(8,))

    def reward(states: Tensor) -> Tensor:
        return 3 * GRID.features(states).sum(dim=1)

    net.train(reward, 2, 8)
    twin = copy.deepcopy(net)
    assert twin.train(reward, 20, 8) == net.train(reward, 20, 8)

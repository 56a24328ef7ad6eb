"""The engine: it learns the exact distribution, repeats itself, and refuses nonsense."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, Random, environment
from sampler.exact import terminal_distribution
from sampler.losses import Balance, trajectory_balance

GRID = environment("hyper_grid", n_dims=2, length=6)
TREE = environment("sequence", alphabet="ACGT", min_length=1, max_length=3)


def log_reward(states: Tensor) -> Tensor:
    """Four modes in the corners (Bengio et al. 2021, section 4.1), R₀ = 0.1."""
    distance = (GRID.features(states) - 0.5).abs()
    return (0.1 + 2.0 * (distance > 0.25).all(dim=1).double()).log()


def small_net(seed: int = 0, **options) -> GFlowNet:
    return GFlowNet(GRID, seed=seed, hidden=(32, 32), learning_rate=3e-3, **options)


@pytest.mark.parametrize("is_backward_learned", [False, True])
def test_trained_distribution_approaches_the_reward(is_backward_learned: bool) -> None:
    net = small_net(is_backward_learned=is_backward_learned)
    net.train(log_reward, n_steps=300, batch_size=32)
    states, probabilities = terminal_distribution(net)
    reward = log_reward(states).exp()
    assert len(states) == 36
    assert float(probabilities.sum()) == pytest.approx(1)
    untrained = terminal_distribution(small_net())[1]
    assert float((untrained - reward / reward.sum()).abs().sum()) > 0.5
    assert float((probabilities - reward / reward.sum()).abs().sum()) < 0.05
    assert net.log_z == pytest.approx(float(reward.sum().log()), abs=0.05)


def test_samples_follow_the_exact_distribution() -> None:
    net = small_net()
    net.train(log_reward, n_steps=100, batch_size=32)
    states, probabilities = terminal_distribution(net)
    drawn = dict(zip(GRID.keys(states), probabilities.tolist(), strict=True))
    keys = GRID.keys(net.sample(20_000, seed=1))
    frequency = {key: keys.count(key) / 20_000 for key in drawn}
    assert sum(abs(frequency[key] - drawn[key]) for key in drawn) < 0.06


def test_log_prob_is_exact_on_a_grid_and_on_a_tree() -> None:
    for net in (small_net(), GFlowNet(TREE, hidden=(16,))):
        states, probabilities = terminal_distribution(net)
        assert torch.allclose(net.log_prob(states).exp(), probabilities, atol=1e-6, rtol=1e-4)


def test_log_prob_of_a_large_space_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net()
    states, probabilities = terminal_distribution(net)
    monkeypatch.setattr("sampler.sampling._MAX_STATES_ENUMERATED", 10)
    estimate = net.log_prob(states, n_samples=200)
    assert torch.allclose(estimate, probabilities.log(), atol=0.3)


def test_saving_and_loading_does_not_show(tmp_path: Path) -> None:
    once = small_net(seed=3)
    losses = once.train(log_reward, n_steps=20, batch_size=8)
    first = small_net(seed=3)
    before = first.train(log_reward, n_steps=10, batch_size=8)
    first.save(tmp_path / "net.pt")
    second = small_net(seed=99)
    second.load(tmp_path / "net.pt")
    after = second.train(log_reward, n_steps=10, batch_size=8)
    assert before + after == losses
    for left, right in zip(once.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(left, right)
    assert torch.equal(once.sample(50), second.sample(50))
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


def test_loading_a_net_of_another_space_is_refused(tmp_path: Path) -> None:
    small_net().save(tmp_path / "net.pt")
    with pytest.raises(ValueError, match="same kind of sampler, space and hidden widths"):
        GFlowNet(GRID, hidden=(8,)).load(tmp_path / "net.pt")


def test_everything_follows_from_the_seed() -> None:
    torch.manual_seed(1)
    first = small_net(seed=5)
    losses = first.train(log_reward, n_steps=5, batch_size=8)
    torch.manual_seed(2)
    second = small_net(seed=5)
    assert second.train(log_reward, n_steps=5, batch_size=8) == losses
    assert small_net(seed=6).train(log_reward, n_steps=5, batch_size=8) != losses
    assert torch.equal(first.sample(9, seed=1), second.sample(9, seed=1))


def test_a_seed_for_sampling_leaves_training_alone() -> None:
    plain, disturbed = small_net(), small_net()
    disturbed.sample(10, seed=4)
    assert plain.train(log_reward, 3, 8) == disturbed.train(log_reward, 3, 8)


def test_the_global_random_stream_is_left_alone() -> None:
    before = torch.get_rng_state()
    net = small_net()
    net.train(log_reward, n_steps=2, batch_size=8)
    net.sample(3)
    assert torch.equal(before, torch.get_rng_state())


def test_a_reward_of_zero_is_floored() -> None:
    net = small_net(log_reward_floor=-5.0)
    losses = net.train(lambda states: torch.full((len(states),), -torch.inf), 3, 8)
    assert all(loss < 1e3 for loss in losses)


def test_examples_show_the_way_to_a_rare_reward() -> None:
    grid = environment("hyper_grid", n_dims=2, length=20)
    target = grid.from_keys(["19,3"])

    def needle(states: Tensor) -> Tensor:
        return 8.0 * (states == target).all(dim=1).double()

    with_examples, without = GFlowNet(grid, hidden=(32,)), GFlowNet(grid, hidden=(32,))
    with_examples.train(needle, 30, 16, examples=target, example_fraction=0.5)
    without.train(needle, 30, 16)
    assert float(with_examples.log_prob(target)) > float(without.log_prob(target)) + 1


def test_examples_alone_make_a_batch() -> None:
    target = GRID.from_keys(["5,5", "0,1"])
    losses = small_net().train(log_reward, 3, 8, examples=target, example_fraction=1.0)
    assert len(losses) == 3


def test_examples_without_a_share_are_refused() -> None:
    """They would be ignored, and nobody would notice."""
    target = GRID.from_keys(["5,5"])
    with pytest.raises(ValueError, match="example_fraction: expected above 0, got 0, with 1 exa"):
        small_net().train(log_reward, 1, 8, examples=target)


def test_log_prob_of_many_states_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    net = GFlowNet(TREE, hidden=(8,))
    states, probabilities = terminal_distribution(net)
    whole = net.log_prob(states)
    monkeypatch.setattr("sampler.probabilities._AT_ONCE", 10)
    assert torch.allclose(net.log_prob(states), whole, atol=1e-6)
    assert torch.allclose(whole.exp(), probabilities, atol=1e-6)


def test_example_share_of_a_batch() -> None:
    seen: list[int] = []
    target = GRID.from_keys(["5,5", "4,4"])

    def counting(states: Tensor) -> Tensor:
        seen.append(sum(key in ("5,5", "4,4") for key in GRID.keys(states[6:])))
        return log_reward(states)

    small_net().train(counting, 2, 8, examples=target, example_fraction=0.25)
    assert seen == [2, 2]


def test_on_step_hears_of_every_loss() -> None:
    heard: list[tuple[int, float]] = []
    losses = small_net().train(
        log_reward, 3, 8, on_step=lambda step, loss: heard.append((step, loss))
    )
    assert heard == list(enumerate(losses))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"hidden": ()}, "hidden"),
        ({"learning_rate": 0.0}, "learning rates"),
        ({"exploration": 1.5}, "exploration"),
        ({"temperature": 0.0}, "temperature: expected above 0"),
        ({"ema": 1.0}, "ema: expected a decay between 0 and 1"),
        ({"sub_trajectory_decay": 0.0}, "sub_trajectory_decay: expected above 0"),
        ({"loss": "trajectory_ballance"}, "did you mean 'trajectory_balance'"),
    ],
)
def test_impossible_options_are_refused(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        GFlowNet(GRID, **options)


def test_trajectory_balance_by_hand() -> None:
    balance = Balance(
        log_forward=torch.tensor([-1.0, -2.0, -0.5]),
        log_backward=torch.tensor([-0.25, 0.0, 0.0]),
        rows=torch.tensor([0, 1, 0]),
        log_reward=torch.tensor([1.0, -1.0]),
        log_z=torch.tensor(2.0),
    )
    # Row 0: 2 - 1 - 0.5 - 1 + 0.25 = -0.25; row 1: 2 - 2 + 1 = 1.
    assert float(trajectory_balance(balance)) == pytest.approx((0.0625 + 1) / 2)


def test_random_is_uniform_over_actions() -> None:
    sampler = Random(GRID, seed=1)
    assert sampler.train(log_reward, n_steps=3) == []
    states, probabilities = terminal_distribution(sampler)
    assert float(probabilities[GRID.keys(states).index("0,0")]) == pytest.approx(1 / 3)
    assert torch.equal(sampler.sample(5, seed=2), Random(GRID, seed=9).sample(5, seed=2))


def test_an_average_of_the_weights_is_what_samples() -> None:
    plain, averaged = small_net(), small_net(ema=0.99)
    assert plain.train(log_reward, 60, 16) == averaged.train(log_reward, 60, 16)
    assert torch.equal(plain.policy.layers[0].weight, averaged.policy.layers[0].weight)
    states, present = terminal_distribution(plain)
    start, average = (terminal_distribution(net)[1] for net in (small_net(), averaged))
    assert float((average - present).abs().sum()) > 1e-3
    assert float((average - start).abs().sum()) > 1e-3
    assert torch.allclose(averaged.log_prob(states), average.log(), atol=1e-5)


@pytest.mark.parametrize("options", [{"exploration": 0.9}, {"temperature": 20.0}])
def test_exploration_reaches_what_a_narrow_policy_would_not(options: dict) -> None:
    def seen(**options) -> int:
        net = small_net(**options)
        with torch.no_grad():
            net.policy.layers[-1].bias.copy_(torch.tensor([0.0, 0.0, 8.0]))  # stop at once
        ends: list[Tensor] = []
        net.train(lambda states: (ends.append(states), log_reward(states))[1], 1, 200)
        return len(torch.cat(ends).unique(dim=0))

    assert seen(exploration=0.0) < 4
    assert seen(**{"exploration": 0.0, **options}) > 8


def test_a_space_too_large_to_enumerate_says_so() -> None:
    with pytest.raises(ValueError, match="at most 20 states"):
        terminal_distribution(small_net(), max_states=20)

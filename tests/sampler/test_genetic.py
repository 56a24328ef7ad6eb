"""The genetic algorithm: a sampler in every space, which never asks twice and finds the best."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sampler import Genetic, GFlowNet, environment
from sampler.environment import Environment
from sampler.exact import target_distribution
from tests.contracts.test_environments import SMALL, small
from tests.fakes import Killed, branin_config, comparable
from tests.pipeline.campaigns import play

WORDS = environment("sequence", alphabet="ACGT", min_length=2, max_length=5)
BOX = environment("hypercube", n_dims=3, bounds=[(0.0, 1.0)] * 3)


@pytest.fixture(params=sorted(SMALL))
def space(request: pytest.FixtureRequest) -> Environment:
    return small(request.param)


class Recorded:
    """A reward that remembers what it was asked."""

    def __init__(self, space: Environment) -> None:
        self.space = space
        self.asked: list[Tensor] = []

    def __call__(self, states: Tensor) -> Tensor:
        self.asked.append(states)
        weights = torch.linspace(-3, 4, self.space.n_features, dtype=torch.float64)
        return self.space.features(states) @ weights


def trained(space: Environment, n_steps: int = 4, **options: Any) -> tuple[Genetic, Recorded]:
    reward = Recorded(space)
    sampler = Genetic(space, seed=1, **options)
    sampler.train(reward, n_steps=n_steps, batch_size=12)
    return sampler, reward


def test_it_breeds_candidates_in_every_space(space: Environment) -> None:
    sampler, reward = trained(space, n_steps=3)
    asked = torch.cat(reward.asked)
    assert len(asked) <= 36
    assert len(set(space.keys(asked))) == len(asked), "asked twice"
    drawn = sampler.sample(45, seed=1)
    assert bool(space.is_terminal(drawn).all())
    assert torch.equal(space.from_keys(space.keys(drawn)), drawn)
    assert torch.equal(sampler.sample(45, seed=1), drawn)
    assert sampler.sample(0).shape == space.initial_states(0).shape


def test_the_best_that_were_met_are_answered_best_first() -> None:
    sampler, reward = trained(WORDS, n_steps=6, population_size=5)
    asked = torch.cat(reward.asked)
    order = reward(asked).argsort(descending=True, stable=True)
    assert torch.equal(sampler.sample(7), asked[order[:7]])
    assert torch.equal(sampler.log_reward, reward(sampler.states))


def test_it_asks_as_often_as_a_gflownet() -> None:
    _, reward = trained(WORDS)
    assert [len(states) for states in reward.asked] == [12] * 4
    told: list[int] = []
    losses = Genetic(WORDS).train(reward, 3, 4, on_step=lambda step, loss: told.append(step))
    assert told == [0, 1, 2]
    assert len(losses) == 3


def test_a_space_that_was_asked_whole_ends_the_training() -> None:
    menu = environment("subset", n_items=5, size=2)
    sampler = Genetic(menu)
    losses = sampler.train(Recorded(menu), n_steps=100, batch_size=8)
    assert len(losses) < 100
    assert len(sampler.states) == 10


def test_it_finds_a_hidden_word() -> None:
    space = environment("sequence", alphabet="ACGT", min_length=16, max_length=16)
    hidden = space.from_keys(["ACGTTGCAACCGTTAG"])
    sampler = Genetic(space, seed=0)
    sampler.train(lambda states: (states == hidden).sum(dim=1).double(), 50, 64)
    # 3200 of 4 ** 16 words; the best of as many random ones has about 11 letters right.
    assert int((sampler.sample(1) == hidden)[0, :16].sum()) >= 15


def test_it_nears_a_point_of_a_continuous_space() -> None:
    aim = torch.tensor([0.2, 0.5, 0.83], dtype=torch.float64)
    sampler = Genetic(BOX, seed=0)
    sampler.train(lambda states: -(BOX.features(states) - aim).square().sum(dim=1), 30, 64)
    assert float((BOX.features(sampler.sample(1)) - aim).abs().max()) < 0.02


@pytest.mark.parametrize("crossover_rate", [0.0, 1.0])
def test_either_way_of_having_children_improves(crossover_rate: float) -> None:
    sampler, reward = trained(WORDS, 10, crossover_rate=crossover_rate, population_size=12)
    rewards = [float(reward(states).mean()) for states in reward.asked[:10]]
    assert sum(rewards[2:5]) > 3 * (rewards[0] + 1.0)
    assert float(sampler.log_reward[0]) == float(reward(torch.cat(reward.asked)).max())


def test_a_restriction_holds_and_what_was_met_comes_first() -> None:
    sampler, _ = trained(WORDS)
    drawn = sampler.sample(40, seed=0, where={"contains": "GT"})
    keys = WORDS.keys(drawn)
    assert all("GT" in key for key in keys)
    met = [key for key in WORDS.keys(sampler.states) if "GT" in key]
    assert keys[: len(met)] == met
    assert all(
        "GT" in key for key in WORDS.keys(Genetic(WORDS).sample(9, where={"contains": "GT"}))
    )


def test_a_continuous_restriction_holds() -> None:
    sampler, _ = trained(BOX)
    points = BOX.decode(sampler.sample(60, seed=0, where={"x1": [0.4, 0.45]}))
    assert all(0.4 <= point[1] <= 0.45 for point in points)


def test_going_on_after_loading_is_going_on(tmp_path: Path) -> None:
    one, reward = trained(BOX)
    one.save(tmp_path / "sampler.pt")
    other = Genetic(BOX, seed=9)
    other.load(tmp_path / "sampler.pt")
    assert torch.equal(other.sample(60, seed=3), one.sample(60, seed=3))
    assert one.train(reward, 3, 10) == other.train(reward, 3, 10)
    assert torch.equal(one.states, other.states)


def test_a_seed_restarts_the_stream() -> None:
    found = []
    for seed in (1, 2):
        sampler = Genetic(BOX, seed=seed)
        sampler.train(Recorded(BOX), 3, 10, seed=5)
        found.append(sampler.states)
    assert torch.equal(*found)


def test_the_next_training_begins_with_the_best_of_the_last_and_new_rewards() -> None:
    sampler, _ = trained(WORDS)
    best = sampler.states[:6]
    other = Recorded(WORDS)
    sampler.train(lambda states: -other(states), 1, 12)
    assert torch.equal(other.asked[0][:6], best)
    assert torch.equal(sampler.log_reward, -other(sampler.states))


def test_examples_are_in_the_first_generation() -> None:
    examples = WORDS.from_keys(["AC", "GGG", "TACT"])
    reward = Recorded(WORDS)
    Genetic(WORDS).train(reward, 1, 12, examples=examples, example_fraction=0.25)
    assert {"AC", "GGG", "TACT"} <= set(WORDS.keys(reward.asked[0]))


def test_a_reward_that_is_nan_or_raises_names_the_candidate() -> None:
    menu = environment("subset", n_items=3, size=1)
    states, _ = target_distribution(menu, lambda states: torch.zeros(len(states)))
    key = menu.keys(states[:1])[0]

    def nan_at_one(asked: Tensor) -> Tensor:
        return torch.where((asked == states[0]).all(dim=1), torch.nan, 0.0)

    with pytest.raises(ValueError, match=f"nan for candidate .*{key}"):
        Genetic(menu).train(nan_at_one, 2, 8)
    with pytest.raises(RuntimeError, match="raised KeyError: 'no', for candidate"):
        Genetic(menu).train(lambda asked: {}["no"], 2, 8)


@pytest.mark.parametrize(
    "options",
    [
        {"population_size": 0},
        {"tournament_size": 0},
        {"crossover_rate": 1.5},
        {"mutation_rate": 0.0},
        {"n_back": 0.1},
        {"n_kept": 10},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_that_cannot_be_is_refused_by_name(options: dict[str, Any]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=f"{name}: expected .*{value}"):
        Genetic(WORDS, **options)


def test_the_file_of_another_sampler_is_refused(tmp_path: Path) -> None:
    GFlowNet(WORDS, hidden=(4,)).save(tmp_path / "sampler.pt")
    with pytest.raises(ValueError, match="'genetic'"):
        Genetic(WORDS).load(tmp_path / "sampler.pt")


def test_examples_and_batches_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="terminal states"):
        Genetic(WORDS).train(
            Recorded(WORDS), 1, 4, examples=WORDS.initial_states(2), example_fraction=0.5
        )
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        Genetic(WORDS).train(Recorded(WORDS), 1, 0)


def test_a_campaign_with_it_resumes_as_if_never_stopped(tmp_path: Path) -> None:
    config = branin_config(
        sampler={"kind": "genetic", "n_steps": 4, "batch_size": 8, "population_size": 10}
    )
    rows = comparable(play(config, tmp_path / "undisturbed"))
    assert max(row["round"] for row in rows) == 2
    with pytest.raises(Killed):
        play(config, tmp_path / "killed", 17)
    assert comparable(play(config, tmp_path / "killed")) == rows

"""Markov chains: the target is where they stay and where they go, in every kind of space."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, Mcmc, environment
from sampler.environment import Environment
from sampler.exact import empirical_distribution, target_distribution, total_variation
from tests.contracts.test_environments import SMALL, small
from tests.fakes import Killed, branin_config, comparable
from tests.pipeline.campaigns import play

WORDS = environment("sequence", alphabet="AC", min_length=1, max_length=4)
GRID = environment("hyper_grid", n_dims=2, length=5)
UNIT = {"n_dims": 2, "bounds": [(0.0, 1.0), (0.0, 1.0)]}
BOXES = {
    "fixed order": environment("hypercube", **UNIT),
    "any order": environment("hypercube", any_order=True, **UNIT),
    "increments": environment("hypercube", n_increments=3, **UNIT),
    "increments in any order": environment("hypercube", n_increments=2, any_order=True, **UNIT),
}
DISCRETE = sorted(
    name
    for name in SMALL
    if "crystal" not in name and name != "scrabble" and small(name).action_heads is None
)


@pytest.fixture(params=sorted(SMALL))
def space(request: pytest.FixtureRequest) -> Environment:
    return small(request.param)


class Sloped:
    """A log reward that is linear in the features; counts what it is asked."""

    def __init__(self, space: Environment, slope: float = 2.0) -> None:
        self.space, self.n = space, 0
        weights = torch.randn(space.n_features, generator=torch.Generator().manual_seed(0))
        self.weights = slope * weights.double() / weights.norm()

    def __call__(self, states: Tensor) -> Tensor:
        self.n += len(states)
        return self.space.features(states) @ self.weights


def largest_z(before: Tensor, after: Tensor) -> float:
    """The largest change of a mean over its standard error, of statistics `(n, k)` of n chains."""
    change = after - before
    error = change.std(dim=0) / math.sqrt(len(change))
    return float((change.mean(dim=0).abs() / error.clamp_min(1e-12)).max())


def moved(space: Environment, starts: Tensor, reward: Any, n_moves: int = 2) -> Tensor:
    sampler = Mcmc(space, seed=3)
    sampler.chains = starts
    sampler.train(reward, n_moves + 1, len(starts))
    assert 0.05 < sampler.acceptance_rate < 1
    return sampler.chains


@pytest.mark.parametrize("name", DISCRETE)
def test_chains_that_follow_the_target_go_on_doing_so(name: str) -> None:
    """Invariance: what acceptance has to guarantee, over every discrete space."""
    space, n = small(name), 10_000
    reward = Sloped(space)
    states, target = target_distribution(space, reward)
    generator = torch.Generator().manual_seed(1)
    starts = states[torch.multinomial(target, n, True, generator=generator)]
    ends = moved(space, starts, reward)
    told = [torch.cat([space.features(x), reward(x)[:, None]], dim=1) for x in (starts, ends)]
    assert largest_z(*told) < 4


@pytest.mark.parametrize("where", [None, {"x0": [0.2, 0.5]}], ids=["whole", "restricted"])
@pytest.mark.parametrize("name", BOXES)
def test_a_density_is_kept_in_a_continuous_space(name: str, where: dict[str, Any] | None) -> None:
    """Density in proportion to exp(3 x0) of the unit square, drawn by its quantile function."""
    box = BOXES[name]
    points = torch.rand(30_000, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    points[:, 0] = torch.log1p(points[:, 0] * math.expm1(3.0)) / 3
    if where is not None:
        points = points[(points[:, 0] > 0.2001) & (points[:, 0] < 0.4999)]
    starts = box.encode(list(points.numpy()))
    space = box if where is None else box.restricted(where)
    ends = moved(space, starts, lambda states: 3 * box.features(states)[:, 0])

    def statistics(states: Tensor) -> Tensor:
        x = box.features(states)
        return torch.cat([x, x.square(), x[:, :1] * x[:, 1:]], dim=1)

    assert largest_z(statistics(starts), statistics(ends)) < 4
    if where is not None:
        assert float(box.features(ends)[:, 0].min()) >= 0.2
        assert float(box.features(ends)[:, 0].max()) <= 0.5


def test_a_density_is_kept_on_a_torus() -> None:
    torus = environment("torus", n_dims=1, n_increments=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = torch.distributions.VonMises(0.0, 2.0).sample((20_000, 1)).double()
    starts = torus.encode(list(drawn.remainder(2 * math.pi).numpy()))

    def angles(states: Tensor) -> Tensor:
        return torch.tensor([float(x[0]) for x in torus.decode(states)], dtype=torch.float64)

    ends = moved(torus, starts, lambda states: 2.0 * angles(states).cos())
    told = [
        torch.stack([a.cos(), a.sin(), (2 * a).cos()], dim=1)
        for a in (angles(starts), angles(ends))
    ]
    assert largest_z(*told) < 4


CASES: dict[str, tuple[Environment, dict[str, Any]]] = {
    "any scale": (GRID, {}),
    "a tree": (WORDS, {}),
    "of the paper": (GRID, {"mutation_rate": 1.0, "n_back": 2}),
    "tempered": (GRID, {"beta": 0.5}),
}


@pytest.mark.parametrize(("space", "options"), CASES.values(), ids=CASES)
def test_samples_approach_the_target(space: Environment, options: dict[str, Any]) -> None:
    reward = Sloped(space, 3.0)
    beta = options.get("beta", 1.0)
    states, target = target_distribution(space, lambda x: beta * reward(x))
    sampler = Mcmc(space, seed=0, n_chains=500, n_kept=50_000, **options)
    sampler.train(reward, 100)
    drawn = empirical_distribution(sampler.sample(25_000, seed=0), states)
    assert total_variation(drawn, target) < 0.04


def test_samples_inside_a_restriction_follow_the_target_given_it() -> None:
    reward = Sloped(WORDS, 3.0)
    sampler = Mcmc(WORDS, n_chains=500, n_kept=50_000)
    sampler.train(reward, 100)
    states, target = target_distribution(WORDS, reward)
    is_wanted = torch.tensor(["AC" in key for key in WORDS.keys(states)])
    drawn = sampler.sample(5000, seed=0, where={"contains": "AC"})
    shares = empirical_distribution(drawn, states[is_wanted])
    wanted = target[is_wanted] / target[is_wanted].sum()
    assert total_variation(shares, wanted) < 0.04


def test_it_moves_in_every_space(space: Environment) -> None:
    reward = Sloped(space)
    sampler = Mcmc(space, n_chains=8)
    losses = sampler.train(reward, 6)
    assert len(losses) == 6
    assert reward.n == 48, "as many rewards as a GFlowNet with the same numbers"
    assert sampler.acceptance_rate > 0
    drawn = sampler.sample(30, seed=1)
    assert bool(space.is_terminal(drawn).all())
    assert torch.equal(space.from_keys(space.keys(drawn)), drawn)
    assert torch.equal(sampler.sample(30, seed=1), drawn)
    assert sampler.sample(0).shape == space.initial_states(0).shape


def test_too_few_inside_a_restriction_are_completed_with_a_warning() -> None:
    sampler = Mcmc(WORDS, n_chains=4)
    sampler.train(Sloped(WORDS), 4)
    with pytest.warns(UserWarning, match=r"are inside this restriction.*n_kept"):
        drawn = sampler.sample(60, seed=0, where={"contains": "CAC"})
    assert all("CAC" in key for key in WORDS.keys(drawn))
    assert len(drawn) == 60


def test_as_many_states_are_kept_as_asked_for_and_the_last_ones_are_among_them() -> None:
    sampler = Mcmc(WORDS, n_chains=10, n_kept=100, burn_in=0.2)
    sampler.train(Sloped(WORDS), 50)
    assert 50 < len(sampler.kept) <= 100
    assert torch.equal(sampler.kept[-10:], sampler.chains)
    few = sampler.sample(len(sampler.kept))
    order = [torch.unique(x, dim=0, return_counts=True) for x in (few, sampler.kept)]
    assert torch.equal(order[0][1], order[1][1]), "each comes once before any comes again"


def test_untrained_it_draws_at_random_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = Mcmc(WORDS).sample(20, where={"contains": "CA"})
    assert all("CA" in key for key in WORDS.keys(drawn))


@pytest.mark.parametrize("name", ["hypercube", "subset", "stack"])
def test_going_on_after_loading_is_going_on(name: str, tmp_path: Path) -> None:
    space = small(name)
    reward = Sloped(space)
    one, other = Mcmc(space, seed=1, n_chains=6), Mcmc(space, seed=2, n_chains=6)
    one.train(reward, 4)
    one.save(tmp_path / "sampler.pt")
    other.load(tmp_path / "sampler.pt")
    assert other.acceptance_rate == one.acceptance_rate
    assert torch.equal(other.sample(30, seed=3), one.sample(30, seed=3))
    assert one.train(reward, 4) == other.train(reward, 4)
    assert torch.equal(one.chains, other.chains)
    assert torch.equal(one.kept, other.kept)


def test_chains_go_on_where_they_were_and_examples_begin_some() -> None:
    sampler = Mcmc(WORDS, n_chains=6)
    sampler.train(Sloped(WORDS), 3)
    before = sampler.chains.clone()
    sampler.train(Sloped(WORDS), 1, 8)
    assert torch.equal(sampler.chains[:6], before)
    example = WORDS.from_keys(["CCAC"])
    sampler.train(Sloped(WORDS), 1, 8, examples=example, example_fraction=0.25)
    assert WORDS.keys(sampler.chains[:2]) == ["CCAC", "CCAC"]


def test_a_seed_restarts_the_stream() -> None:
    found = []
    for seed in (1, 2):
        sampler = Mcmc(WORDS, seed=seed)
        sampler.train(Sloped(WORDS), 3, 10, seed=5)
        found.append(sampler.kept)
    assert torch.equal(*found)


def test_a_reward_of_zero_is_left() -> None:
    sampler = Mcmc(WORDS, n_chains=20)
    is_long = lambda states: states[:, 3] > 0  # noqa: E731
    sampler.train(lambda x: torch.where(is_long(x), 0.0, -torch.inf), 40)
    assert bool(is_long(sampler.kept).all())


def test_a_reward_that_is_nan_names_the_candidate() -> None:
    with pytest.raises(ValueError, match=r"nan for candidate '[AC]+'"):
        Mcmc(WORDS).train(lambda states: torch.full((len(states),), torch.nan), 2)


@pytest.mark.parametrize(
    "options",
    [
        {"n_chains": 0},
        {"n_kept": 0},
        {"beta": 0.0},
        {"burn_in": 1.0},
        {"n_back": 0.5},
        {"mutation_rate": 2.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_that_cannot_be_is_refused_by_name(options: dict[str, Any]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=f"{name}: expected .*{value}"):
        Mcmc(WORDS, **options)


def test_the_file_of_another_sampler_is_refused(tmp_path: Path) -> None:
    GFlowNet(WORDS, hidden=(4,)).save(tmp_path / "sampler.pt")
    with pytest.raises(ValueError, match="'mcmc'"):
        Mcmc(WORDS).load(tmp_path / "sampler.pt")


def test_a_campaign_with_it_resumes_as_if_never_stopped(tmp_path: Path) -> None:
    config = branin_config(sampler={"kind": "mcmc", "n_steps": 5, "n_chains": 8})
    rows = comparable(play(config, tmp_path / "undisturbed"))
    assert max(row["round"] for row in rows) == 2
    with pytest.raises(Killed):
        play(config, tmp_path / "killed", 17)
    assert comparable(play(config, tmp_path / "killed")) == rows

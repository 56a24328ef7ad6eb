from typing import Any

import numpy as np
import pytest
import torch

from sampler import environment
from sampler.environment import Environment
from sampler.environments.hyper_grid import HyperGrid
from sampler.environments.multi_fidelity import MultiFidelity
from sampler.environments.sequence import Sequence
from tests.sampler.walks import all_states, check_discrete_laws, random_walks

STEPS = ["first", "last", "any"]
BASES: dict[str, Any] = {
    "grid": {"kind": "hyper_grid", "n_dims": 2, "length": 3},
    "word": {"kind": "sequence", "alphabet": "AB", "min_length": 2, "max_length": 2},
    "word both ends": Sequence("AB", 1, 3, both_ends=True),
}
BOX = {"kind": "hypercube", "n_dims": 2, "bounds": [(0.0, 2.0), (-1.0, 1.0)]}
TORUS = {"kind": "torus", "n_dims": 2, "n_increments": 2}


def finished(space: Environment) -> list[tuple[str, str]]:
    states = all_states(space)
    return sorted(tuple(key.split(" @ ")) for key in space.keys(states[space.is_terminal(states)]))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("base", sorted(BASES))
def test_the_laws_hold_at_every_state(base: str, step: str) -> None:
    check_discrete_laws(MultiFidelity(BASES[base], ["low", "middle", "high"], step))


@pytest.mark.parametrize("step", STEPS)
def test_every_candidate_is_reached_at_every_fidelity(step: str) -> None:
    words = ["AA", "AB", "BA", "BB"]
    space = MultiFidelity(BASES["word"], ["low", "high"], step)
    assert finished(space) == sorted((w, f) for w in words for f in ("low", "high"))


@pytest.mark.parametrize(
    ("step", "places"), [("first", {0}), ("last", {4}), ("any", {0, 1, 2, 3, 4})]
)
def test_the_fidelity_is_chosen_when_it_is_due(step: str, places: set[int]) -> None:
    space = MultiFidelity(Sequence("AB", 4, 4), ["low", "high"], step)
    _, steps = random_walks(space, 200)
    chosen = {i for i, (_, actions, _, _) in enumerate(steps) if bool((actions >= 2).any())}
    assert chosen == places
    assert space.max_steps == len(steps) == 5


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("base", [BOX, TORUS], ids=["box", "torus"])
def test_a_continuous_base_keeps_its_amounts_and_densities(base: dict[str, Any], step: str) -> None:
    space = MultiFidelity(base, ["low", "high"], step)
    plain = space.base
    assert space.action_heads is not None
    assert space.action_heads.tolist() == [*plain.action_heads.tolist(), -1, -1]
    assert space.circular_heads == plain.circular_heads
    states, steps = random_walks(space, 100)
    assert states.dtype == torch.float64
    for parents, actions, _, children in steps:
        mask = space.backward_mask(children)
        assert bool(mask.gather(1, actions[:, None]).all())
        again = space.amounts_between(parents, actions, children)
        assert torch.equal(space.step(parents, actions, again), children)
        is_base = actions < plain.n_actions
        rows = is_base.nonzero().squeeze(1)
        base_parents, base_children = parents[rows, :-1], children[rows, :-1]
        for widths, expected in (
            (space.log_width(parents, actions), plain.log_width(base_parents, actions[rows])),
            (
                space.log_width_back(children, actions),
                plain.log_width_back(base_children, actions[rows]),
            ),
        ):
            assert torch.equal(widths[rows], expected)
            assert bool((widths[~is_base] == 0).all())
        undone = space.step_back(children, actions, torch.full((len(actions),), 0.5).double())
        assert torch.equal(undone[~is_base], parents[~is_base])
    assert torch.equal(space.from_keys(space.keys(states)), states)
    assert torch.equal(space.encode(space.decode(states)), states)
    assert not bool(space.forward_mask(states).any())


def test_candidates_features_and_families_pair_both() -> None:
    space = MultiFidelity(HyperGrid(2, 5), ["low", "middle", "high"])
    states = space.from_keys(["1,4 @ low", "1,4 @ high", "0,2 @ middle"])
    candidate, name = space.decode(states)[0]
    assert (candidate.tolist(), name) == ([1.0, 4.0], "low")
    assert space.features(states).tolist() == [[0.25, 1.0, 0.0], [0.25, 1.0, 1.0], [0.0, 0.5, 0.5]]
    assert space.families(states) == ["1,4", "1,4", "0,2"]
    assert space.describe(states)[1] == {"x0": 1.0, "x1": 4.0, "fidelity": "high"}
    assert space.log_measure(states).tolist() == [0.0, 0.0, 0.0]


def test_a_single_fidelity_counts_as_the_last() -> None:
    space = MultiFidelity(HyperGrid(1, 3), ["only"])
    assert space.features(space.from_keys(["2 @ only"])).tolist() == [[1.0, 1.0]]


def test_a_candidate_that_cannot_be_made_stays_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = HyperGrid(1, 3)
    monkeypatch.setattr(grid, "decode", lambda states: [RuntimeError("no")] * len(states))
    space = MultiFidelity(grid, ["low", "high"])
    assert isinstance(space.decode(space.from_keys(["2 @ low"]))[0], RuntimeError)


def test_a_tree_stays_one_unless_the_fidelity_may_come_at_any_step() -> None:
    trees = {step: MultiFidelity(BASES["word"], ["a", "b"], step).is_tree for step in STEPS}
    assert trees == {"first": True, "last": True, "any": False}
    assert not MultiFidelity(BASES["grid"], ["a", "b"]).is_tree


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"fidelity": "high"}, {(w, "high") for w in ("AA", "AB", "BA", "BB")}),
        (
            {"fidelity": ["low", "middle"], "ends_with": "A"},
            {(w, f) for w in ("AA", "BA") for f in ("low", "middle")},
        ),
        ({"contains": "BB"}, {("BB", f) for f in ("low", "middle", "high")}),
    ],
    ids=["fidelity", "both", "base"],
)
def test_a_restriction_leaves_exactly_what_it_names(
    step: str, where: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    space = MultiFidelity(BASES["word"], ["low", "middle", "high"], step)
    narrow = space.restricted(where)
    assert set(finished(narrow)) == expected
    states = all_states(narrow)
    assert torch.equal(narrow.forward_mask(states).any(1), ~narrow.is_terminal(states))
    assert len(finished(space)) == 12, "the space itself was changed"


def test_a_continuous_base_is_restricted_too() -> None:
    space = MultiFidelity(BOX, ["low", "high"], "any")
    narrow = space.restricted({"x0": [0.5, 0.75], "fidelity": "high"})
    candidates = narrow.decode(random_walks(narrow, 100)[0])
    points = np.stack([point for point, _ in candidates])
    assert {name for _, name in candidates} == {"high"}
    assert points[:, 0].min() >= 0.5
    assert points[:, 0].max() <= 0.75


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"fidelity": "best"}, "where: fidelity: expected a fidelity of low, high, got 'best'"),
        ({"fidelity": []}, "a name or several"),
        ({"fidelty": "low"}, "unknown key 'fidelty'"),
        ({"fidelity": "low", "x0": 9}, "x0: no grid value"),
    ],
    ids=str,
)
def test_impossible_and_unknown_restrictions_are_refused(where: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MultiFidelity(BASES["grid"], ["low", "high"]).restricted(where)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": {"n_dims": 2}, "fidelities": ["a"]}, "base: expected"),
        ({"base": "hyper_grid", "fidelities": ["a"]}, "base: expected"),
        ({"base": BASES["grid"], "fidelities": []}, "fidelities: expected one or more"),
        ({"base": BASES["grid"], "fidelities": ["a", "a"]}, "distinct"),
        ({"base": BASES["grid"], "fidelities": ["a @ b"]}, "without ' @ '"),
        ({"base": BASES["grid"], "fidelities": "low"}, "fidelities"),
        ({"base": BASES["grid"], "fidelities": ["a"], "step": "middle"}, "step: expected one of"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        environment("multi_fidelity", **options)


@pytest.mark.parametrize("key", ["1,1", "1,1 @ best", "nonsense", "9,9 @ low"])
def test_keys_and_candidates_outside_the_space_are_refused(key: str) -> None:
    space = MultiFidelity(BASES["grid"], ["low", "high"])
    with pytest.raises(ValueError, match=key.partition(" @ ")[0]):
        space.from_keys([key])
    with pytest.raises(ValueError, match="pair"):
        space.encode([np.zeros(3)])


def test_random_pairs_obey_a_wish_for_a_fidelity() -> None:
    space = MultiFidelity(BASES["grid"], ["low", "middle", "high"])
    narrow = space.restricted({"fidelity": ["low", "high"]})
    drawn = narrow.random_states(200, torch.Generator().manual_seed(0))
    assert drawn is not None
    assert {name for _, name in space.decode(drawn)} == {"low", "high"}

"""The laws of `sampler.environment.Environment`, over every registered environment."""

import json
import os
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from sampler import ENVIRONMENTS, GFlowNet, environment
from sampler.baselines import Random
from sampler.environment import Environment
from sampler.rollout import Behaviour, Trajectories, roll_out

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "hyper_grid": (
        "hyper_grid",
        {"n_dims": 3, "length": 5, "bounds": [(-5.0, 10.0), (0.0, 15.0), (2.0, 3.0)]},
    ),
    "crystal": (
        "crystal",
        {
            "elements": ["Li", "Mg", "Ti", "O", "F"],
            "space_groups": [1, 2, 14, 62, 136, 166, 194, 225],
            "n_atoms": (2, 10),
            "n_elements": (1, 3),
            "lengths": (2.5, 15.0),
            "angles": (60.0, 120.0),
            "volume_per_atom": (6.0, 40.0),
        },
    ),
    "crystal composition first": (
        "crystal",
        {
            "elements": ["Li", "Mg", "Ti", "O", "F"],
            "n_elements": (1, 3),
            "n_atoms_per_element": (1, 6),
            "mixed_valence": True,
            "lengths": (5.0, 50.0),
            "order": ["composition", "space_group", "lattice"],
        },
    ),
    "crystal lattice before composition": (
        "crystal",
        {
            "elements": ["Mg", "Al", "Ti"],
            "space_groups": [2, 12, 123, 191, 229],
            "n_elements": (1, 2),
            "n_atoms_per_element": (1, 4),
            "charge_neutral": False,
            "lengths": (5.0, 20.0),
            "order": ["space_group", "lattice", "composition"],
        },
    ),
    "crystal positions": (
        "crystal",
        {
            "elements": ["Mg", "Ti", "O"],
            "space_groups": [1, 14, 62, 136, 148, 194, 216],
            "n_elements": (1, 3),
            "n_atoms": (2, 10),
            "lengths": (5.0, 20.0),
            "angles": (70.0, 120.0),
            "positions": "wyckoff",
        },
    ),
    "tetris": ("tetris", {"width": 4, "height": 4, "pieces": ["I", "O", "L"]}),
    "scrabble": ("scrabble", {"max_length": 5}),
    "sequence": ("sequence", {"alphabet": "ACGT", "min_length": 2, "max_length": 5}),
    "sequence fixed": ("sequence", {"alphabet": "ACGT", "min_length": 6, "max_length": 6}),
    "sequence both ends": (
        "sequence",
        {"alphabet": "01", "min_length": 1, "max_length": 6, "both_ends": True},
    ),
    "subset": ("subset", {"n_items": 9, "size": 4}),
    "subset of any size": ("subset", {"n_items": 6, "size": (0, 3)}),
    "tetris without rotations": ("tetris", {"width": 5, "height": 4, "rotations": False}),
    "torus walk": ("torus", {"n_dims": 2, "n_angles": 6, "n_steps": 7}),
    "hypercube discrete any order": (
        "hypercube",
        {"n_dims": 2, "bounds": [(-5.0, 10.0), (0.0, 15.0)], "n_levels": 3, "any_order": True},
    ),
    "hypercube": ("hypercube", {"n_dims": 3, "bounds": [(-5.0, 10.0), (0.0, 15.0), (2.0, 3.0)]}),
    "hypercube increments": (
        "hypercube",
        {"n_dims": 2, "bounds": [(-5.0, 10.0), (0.0, 15.0)], "n_increments": 3, "any_order": True},
    ),
    "hypercube discrete": (
        "hypercube",
        {"n_dims": 3, "bounds": [(-5.0, 10.0), (0.0, 15.0), (2.0, 3.0)], "n_levels": 4},
    ),
    "torus": ("torus", {"n_dims": 3}),
    "torus increments": ("torus", {"n_dims": 2, "n_increments": 2}),
    "torus discrete": ("torus", {"n_dims": 2, "n_angles": 6}),
    "multi_fidelity": (
        "multi_fidelity",
        {
            "base": {"kind": "hyper_grid", "n_dims": 2, "length": 4},
            "fidelities": ["low", "high"],
            "step": "any",
        },
    ),
    "multi_fidelity last": (
        "multi_fidelity",
        {
            "base": {"kind": "hypercube", "n_dims": 2, "bounds": [(0.0, 1.0), (0.0, 1.0)]},
            "fidelities": ["low", "middle", "high"],
            "step": "last",
        },
    ),
    "stack": (
        "stack",
        {
            "parts": {
                "word": {"kind": "sequence", "alphabet": "AB", "min_length": 1, "max_length": 3},
                "point": {"kind": "hypercube", "n_dims": 2, "bounds": [(0.0, 1.0), (0.0, 1.0)]},
            }
        },
    ),
}


@cache
def small(name: str) -> Environment:
    kind, options = SMALL[name]
    return environment(kind, **options)


@pytest.fixture(params=sorted(SMALL))
def space(request: pytest.FixtureRequest) -> Environment:
    return small(request.param)


@cache
def _trajectories(kind: str) -> tuple[Trajectories, Tensor]:
    space, generator = small(kind), torch.Generator().manual_seed(0)
    trajectories = roll_out(space, lambda states, rows: states, 500, generator, Behaviour())
    return trajectories, trajectories.states


@pytest.fixture
def walk(space: Environment, request: pytest.FixtureRequest) -> tuple[Trajectories, Tensor]:
    return _trajectories(request.node.callspec.params["space"])


def test_every_registered_environment_is_tested() -> None:
    assert {kind for kind, _ in SMALL.values()} == set(ENVIRONMENTS)


def forth(
    space: Environment, parents: Tensor, trajectories: Trajectories, rows: Tensor | None = None
) -> Tensor:
    """The children that the trajectories' actions lead to."""
    rows = torch.arange(len(parents)) if rows is None else rows
    amounts = None if trajectories.amounts is None else trajectories.amounts[rows]
    return space.step(parents, trajectories.actions[rows], amounts)


def flat_amounts(space: Environment, n: int) -> Tensor | None:
    """Amounts for n actions, None in a discrete space."""
    if space.action_heads is None:
        return None
    return torch.rand(n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_a_step_is_pure_and_repeats(space: Environment, walk: tuple[Trajectories, Tensor]) -> None:
    trajectories, parents = walk
    before = parents.clone()
    assert torch.equal(forth(space, parents, trajectories), trajectories.children)
    assert torch.equal(parents, before), "step changed its argument"
    assert trajectories.children.dtype == parents.dtype


def test_stepping_back_undoes_a_step(space: Environment, walk: tuple[Trajectories, Tensor]) -> None:
    trajectories, parents = walk
    if space.action_heads is None:
        assert torch.equal(space.step_back(trajectories.children, trajectories.actions), parents)
        return
    # Amounts back and forth: whatever parent is drawn, the amount between leads to the same child.
    children, actions = trajectories.children, trajectories.actions
    drawn = space.step_back(children, actions, flat_amounts(space, len(children)))
    amounts = space.amounts_between(drawn, actions, children)
    has_amount = space.action_heads[actions] >= 0
    assert bool(((amounts > 0) & (amounts < 1))[has_amount].all())
    assert torch.allclose(space.step(drawn, actions, amounts), children, rtol=0, atol=1e-8)
    between = space.amounts_between(parents, actions, children)
    assert torch.allclose(space.step(parents, actions, between), children, rtol=0, atol=1e-8)


def test_a_continuous_space_declares_its_amounts(
    space: Environment, walk: tuple[Trajectories, Tensor]
) -> None:
    trajectories, parents = walk
    if space.action_heads is None:
        assert space.circular_heads == ()
        assert trajectories.amounts is None
        assert parents.dtype == torch.int64
        return
    assert space.action_heads.shape == (space.n_actions,)
    assert int(space.action_heads.max()) == len(space.circular_heads) - 1
    assert parents.dtype == torch.float64
    assert bool(space.log_width(parents, trajectories.actions).isfinite().all())
    assert bool(space.log_width_back(trajectories.children, trajectories.actions).isfinite().all())


def test_a_tree_has_one_parent_a_state(
    space: Environment, walk: tuple[Trajectories, Tensor]
) -> None:
    trajectories, _ = walk
    counts = space.backward_mask(trajectories.children).sum(dim=1)
    assert int(counts.min()) >= 1
    if space.is_tree:
        assert int(counts.max()) == 1


def test_masks_agree_with_steps(space: Environment, walk: tuple[Trajectories, Tensor]) -> None:
    trajectories, parents = walk
    assert torch.equal(space.forward_mask(parents), trajectories.masks)
    assert bool(trajectories.masks.any(dim=1).all())
    backward = space.backward_mask(trajectories.children)
    assert bool(backward.gather(1, trajectories.actions[:, None]).all())
    rows, actions = backward.nonzero(as_tuple=True)
    amounts = flat_amounts(space, len(rows))
    grandparents = space.step_back(trajectories.children[rows], actions, amounts)
    assert bool(space.forward_mask(grandparents).gather(1, actions[:, None]).all())
    if space.action_heads is None:
        assert torch.equal(space.step(grandparents, actions), trajectories.children[rows])


def test_every_allowed_action_can_be_undone(
    space: Environment, walk: tuple[Trajectories, Tensor]
) -> None:
    _, parents = walk
    parents = parents[::25]
    rows, actions = space.forward_mask(parents).nonzero(as_tuple=True)
    children = space.step(parents[rows], actions, flat_amounts(space, len(rows)))
    assert bool(space.backward_mask(children).gather(1, actions[:, None]).all())
    if space.action_heads is None:
        assert torch.equal(space.step_back(children, actions), parents[rows])


def test_there_is_no_dead_end(space: Environment) -> None:
    states = Random(space).sample(2000, seed=1)  # raises at a dead end, or beyond max_steps
    assert bool(space.is_terminal(states).all())
    assert not bool(space.forward_mask(states).any())


def test_no_trajectory_is_longer_than_max_steps(walk: tuple[Trajectories, Tensor], space) -> None:
    trajectories, _ = walk
    assert int(trajectories.rows.bincount().max()) <= space.max_steps


def test_the_initial_state_has_no_parent(space: Environment) -> None:
    states = space.initial_states(3)
    assert len(states) == 3
    assert not bool(space.backward_mask(states).any())
    assert not bool(space.is_terminal(states).any())


def test_keys_tell_states_apart_and_lead_back(space: Environment) -> None:
    states = Random(space).sample(300, seed=2)
    keys = space.keys(states)
    assert torch.equal(space.from_keys(keys), states)
    assert len(set(keys)) == len(torch.unique(states, dim=0))
    assert space.keys(space.from_keys(keys)) == keys
    assert space.keys(states[:0]) == []
    assert space.from_keys([]).shape == states[:0].shape


def test_a_malformed_key_is_refused_by_name(space: Environment) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        space.from_keys(["nonsense"])


def test_decode_and_encode_are_inverse(space: Environment) -> None:
    states = Random(space).sample(60, seed=3)
    candidates = space.decode(states)
    assert len(candidates) == len(states)
    made = [i for i, made in enumerate(candidates) if not isinstance(made, Exception)]
    # Sampled positions may be too close, or more symmetric than their space group.
    assert len(made) > 0.4 * len(states)
    assert torch.equal(space.encode([candidates[i] for i in made]), states[made])


def test_features_are_finite_and_as_wide_as_declared(space: Environment) -> None:
    states = Random(space).sample(500, seed=4)
    features = space.features(states)
    assert features.shape == (500, space.n_features)
    assert features.dtype == torch.float64
    assert bool(features.isfinite().all())
    assert float(features.min()) >= -0.5
    assert float(features.max()) <= 1.5
    assert space.features(states[:0]).shape == (0, space.n_features)


def test_policy_inputs_are_float32_and_as_wide_as_declared(
    space: Environment, walk: tuple[Trajectories, Tensor]
) -> None:
    trajectories, parents = walk
    for states in (space.initial_states(2), parents, trajectories.terminal_states):
        inputs = space.policy_inputs(states)
        assert inputs.shape == (len(states), space.n_policy_inputs)
        assert inputs.dtype == torch.float32
        assert float(inputs.abs().max()) <= 1.0 + 1e-6


def test_the_policy_can_tell_states_apart(
    space: Environment, walk: tuple[Trajectories, Tensor]
) -> None:
    _, parents = walk
    n_states = len(torch.unique(parents, dim=0))
    assert len(torch.unique(space.policy_inputs(parents), dim=0)) == n_states


def test_no_rows_are_rows_too(space: Environment) -> None:
    none = Random(space).sample(0)
    assert none.shape == space.initial_states(0).shape
    assert space.decode(none) == []
    assert space.encode([]).shape == none.shape
    assert len(GFlowNet(space, hidden=(8,)).log_prob(none)) == 0


def test_families_and_columns_cover_every_state(space: Environment) -> None:
    states = Random(space).sample(20, seed=5)
    assert len(space.families(states)) == 20
    columns = space.describe(states)
    assert len(columns) == 20
    assert all(row.keys() == columns[0].keys() for row in columns)


_KEYS_ELSEWHERE = """
import json, sys
from tests.contracts.test_environments import SMALL, first_keys
print(json.dumps({name: first_keys(name) for name in sorted(SMALL)}))
"""


def test_random_candidates_lie_in_the_space_and_follow_the_seed(space: Environment) -> None:
    first, again = (space.random_states(50, torch.Generator().manual_seed(3)) for _ in range(2))
    if first is None:
        assert again is None
        return
    assert again is not None
    assert bool(space.is_terminal(first).all())
    assert torch.equal(first, again)
    assert torch.equal(space.from_keys(space.keys(first)), first)


def test_the_compact_space_has_the_same_candidates(space: Environment) -> None:
    states = Random(space, seed=2).sample(100)
    compact = space.compact()
    keys = space.keys(states)
    same = compact.from_keys(keys)
    assert compact.keys(same) == keys
    assert torch.equal(compact.features(same), space.features(states))
    assert compact.describe(same) == space.describe(states)
    assert compact.families(same) == space.families(states)
    assert compact.max_steps <= space.max_steps


def first_keys(name: str) -> list[str]:
    return small(name).keys(Random(small(name)).sample(20, seed=6))


def test_keys_are_the_same_in_another_process() -> None:
    told = subprocess.run(
        [sys.executable, "-c", _KEYS_ELSEWHERE],
        env={**os.environ, "PYTHONHASHSEED": "99"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert json.loads(told) == {name: first_keys(name) for name in sorted(SMALL)}


def test_every_parameter_of_its_policy_gets_a_gradient(space: Environment) -> None:
    net = GFlowNet(space, hidden=(8,), is_backward_learned=True, exploration=0.5)
    # Rewards that differ, else log Z alone would explain them; log Z is balanced at the first step.
    net.train(lambda states: space.features(states).sum(dim=1), n_steps=2, batch_size=64)
    for name, parameter in net.policy.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_training_and_sampling_reach_the_end(space: Environment) -> None:
    net = GFlowNet(space, hidden=(8,))
    net.train(lambda states: space.features(states).sum(dim=1), n_steps=3, batch_size=8)
    states = net.sample(20, seed=1)
    assert bool(space.is_terminal(states).all())
    assert bool(net.log_prob(states, n_samples=3).isfinite().all())

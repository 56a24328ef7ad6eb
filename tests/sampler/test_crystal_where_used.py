"""Restrictions of the crystal space in use: on a trained sampler, with a fidelity, and refused."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from torch import Tensor

from sampler import GFlowNet, Random
from sampler.environments.crystal import Crystal
from sampler.environments.multi_fidelity import MultiFidelity
from tests.sampler.crystal_spaces import REFERENCE
from tests.sampler.crystal_wishes import obeys, read


@cache
def space() -> Crystal:
    return Crystal(
        ["Li", "Mg", "Ti", "O", "F"], [2, 62, 136, 225], n_elements=(1, 3), n_atoms=(2, 10)
    )


@cache
def reference() -> Crystal:
    return Crystal(**REFERENCE)


def log_reward(crystal: Crystal) -> Callable[[Tensor], Tensor]:
    """High where an atom has about 12 Å³ and the cell few atoms."""

    def of(states: Tensor) -> Tensor:
        n_atoms = crystal.counts(states).sum(dim=1)
        per_atom = crystal.volumes(states) / n_atoms
        return -2 * (per_atom / 12).log().square() - n_atoms / 4

    return of


@cache
def trained() -> GFlowNet:
    crystal = Crystal(
        ["Li", "Mg", "O", "F"], [2, 62, 136, 225], n_atoms=(2, 12), n_elements=(1, 3),
        lengths=(2.5, 12.0), angles=(60.0, 120.0),
    )  # fmt: skip
    net = GFlowNet(crystal, hidden=(48,), learning_rate=1e-2, exploration=0.05)
    net.train(log_reward(crystal), 60, 48)
    return net


@pytest.mark.parametrize(
    "where",
    [
        {"elements": ["Mg", "F"]},
        {"formula": "MgO", "lengths": [3.0, 9.0]},
        {"crystal_system": "tetragonal"},
        {"required_elements": ["Li"], "c": [5.0, 12.0]},
    ],
    ids=["elements", "formula and lengths", "tetragonal", "required and c"],
)
def test_a_trained_sampler_prefers_high_rewards_inside_a_restriction(where: dict[str, Any]) -> None:
    net = trained()
    crystal = net.environment
    assert isinstance(crystal, Crystal)
    states = net.sample(60, where=where, seed=1, n_tries=16)
    assert all(obeys(where, read(key)) for key in crystal.keys(states))
    reward = log_reward(crystal)
    drawn, blind = reward(states), reward(Random(crystal).sample(200, seed=1, where=where))
    assert float(drawn.mean()) > float(blind.mean()) + float(blind.std()) / 2


def test_both_parts_of_a_wish_reach_a_crystal_with_a_fidelity() -> None:
    both = MultiFidelity(space(), ["low", "high"], step="any")
    where = {"fidelity": "high", "formula": "MgO", "lengths": [4.0, 6.0]}
    for key in both.keys(Random(both).sample(100, seed=0, where=where)):
        crystal, fidelity = key.split(" @ ")
        assert fidelity == "high"
        assert obeys({"formula": "MgO", "lengths": [4.0, 6.0]}, read(crystal))
    with pytest.raises(ValueError, match="did you mean 'formula'"):
        both.restricted({"formla": "MgO"})


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"element": ["O"]}, "unknown key 'element'; did you mean 'elements'"),
        ({"space_group": 5}, "did you mean 'space_groups'"),
        ({"elements": ["Xe"]}, "elements: Xe is not in this space"),
        ({"elements": "MgO"}, "elements: expected a list"),
        ({"elements": ["Fe", "Mg"]}, "'elements'.*charge-neutral"),
        ({"elements": ["O", "F"]}, "'elements'.*charge-neutral"),
        ({"required_elements": ["O"], "elements": ["Fe", "F"]}, "O is not among the wanted"),
        ({"required_elements": ["Fe", "O", "Mg"], "n_elements": 2}, r"n_elements \[2, 2\]"),
        ({"n_elements": [4, 5], "elements": ["Mg", "O"]}, r"n_elements \[4, 5\]"),
        ({"n_atoms": [90, 100]}, "n_atoms.*nothing in common with this space's 1 to 80"),
        ({"n_atoms_per_element": [20, 30]}, "'n_atoms_per_element'"),
        ({"n_atoms_per_element": 0}, "n_atoms_per_element: expected low <= high"),
        ({"formula": 5}, "formula: expected a formula such as Fe2O3"),
        ({"formula": {"Fe": 0}}, "formula: expected"),
        ({"formula": "Xe2"}, "formula: Xe is not in this space"),
        ({"formula": "Mg17O17.5"}, "'formula'.*an element may have here"),
        ({"formula": "Mg2O"}, "'formula'.*charge-neutral"),
        ({"formula": "MgO", "n_atoms": [2, 3], "space_groups": 225}, "'formula'.*Wyckoff sites"),
        ({"formula": "MgO", "elements": ["Fe", "O"]}, "'elements'.*'formula'.*conflict"),
        ({"composition": {"Fe": 1.5, "O": 2}}, "composition: expected whole numbers"),
        ({"composition": "Mg4O4", "space_groups": 227}, "'composition'.*Wyckoff sites"),
        ({"space_groups": 3000}, "space_groups: 3000 is not in this space"),
        ({"space_groups": 17}, "space_groups: 17 is not in this space"),
        ({"space_groups": "225"}, "space_groups: expected a number"),
        ({"space_groups": None}, "space_groups: expected a number"),
        ({"lattice_system": "cubical"}, "lattice_system: expected one of"),
        ({"lattice_system": 5}, "lattice_system: expected a name"),
        ({"space_groups": [1], "lattice_system": "cubic"}, "space_groups and lattice_system"),
        ({"lattice_system": "cubic", "angles": [100, 130]}, "cubic needs 90 degrees"),
        ({"lattice_system": "hexagonal", "gamma": [80, 100]}, "hexagonal needs 120 degrees"),
        ({"angles": [140, 150]}, r"angles \[140, 150\]"),
        ({"lengths": [200, 300]}, r"lengths: \[200, 300\] lies outside \[0.9, 100\]"),
        ({"a": [5, 6], "lengths": [10, 20]}, r"a: \[5, 6\] lies outside \[10, 20\]"),
        ({"a": [1, 2], "b": [3, 4], "lattice_system": "tetragonal"}, "tetragonal needs equal"),
        ({"lengths": [6, 5]}, "lengths: expected low <= high"),
        ({"lengths": None}, r"lengths: expected a number or \[low, high\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(where: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        reference().restricted(where)
    assert str(caught.value).startswith("where: ")
    assert "\n" not in str(caught.value)

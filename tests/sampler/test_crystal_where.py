"""Restrictions of the crystal space: every sample obeys, and all that obeys stays reachable."""

from typing import Any

import pytest
import torch

from sampler import GFlowNet, Random, environment
from sampler.environments.crystal import Crystal

SPACE = environment(
    "crystal",
    elements=["Li", "Mg", "Ti", "O", "F"],
    space_groups=[1, 2, 14, 62, 136, 166, 194, 225],
    n_atoms=(2, 10),
    n_bins=6,
)
CASES: list[tuple[dict[str, Any], Any]] = [
    ({"elements": ["Mg", "O"]}, lambda c, g: set(c) <= {"Mg", "O"}),
    ({"required_elements": ["F"]}, lambda c, g: "F" in c),
    ({"space_groups": [136, 225]}, lambda c, g: g in (136, 225)),
    ({"lattice_system": "hexagonal"}, lambda c, g: g in (166, 194)),
    ({"n_atoms": [4, 6]}, lambda c, g: 4 <= sum(c.values()) <= 6),
    ({"n_atoms_per_element": 3}, lambda c, g: max(c.values()) <= 3),
    (
        {"elements": ["Ti", "O", "Li"], "required_elements": ["Li"], "lattice_system": "triclinic"},
        lambda c, g: "Li" in c and set(c) <= {"Ti", "O", "Li"} and g in (1, 2),
    ),
]


def parts(space: Crystal, states: torch.Tensor) -> list[tuple[dict[str, int], int]]:
    read = []
    for key in space.keys(states):
        atoms, group, *_ = key.split(" | ")
        counts = {a.rstrip("0123456789"): int(a.lstrip("LiMgTOF")) for a in atoms.split()}
        read.append((counts, int(group)))
    return read


@pytest.mark.parametrize(("where", "obeys"), CASES)
def test_every_sample_obeys(where: dict[str, Any], obeys: Any) -> None:
    states = Random(SPACE).sample(500, seed=0, where=where)
    assert all(obeys(*part) for part in parts(SPACE, states))


@pytest.mark.parametrize(("where", "obeys"), CASES)
def test_what_obeys_stays_reachable(where: dict[str, Any], obeys: Any) -> None:
    """A free walk that happens to obey is allowed at each of its steps."""
    states = Random(SPACE).sample(3000, seed=1)
    good = states[torch.tensor([obeys(*part) for part in parts(SPACE, states)])]
    assert len(good) > 0
    restricted = SPACE.restricted(where)
    while True:
        mask = SPACE.backward_mask(good)
        good, mask = good[mask.any(dim=1)], mask[mask.any(dim=1)]
        if len(good) == 0:
            break
        actions = mask.int().argmax(dim=1)
        good = SPACE.step_back(good, actions)
        assert bool(restricted.forward_mask(good).gather(1, actions[:, None]).all())


def test_a_trained_sampler_obeys_too() -> None:
    net = GFlowNet(SPACE, hidden=(16,))
    net.train(lambda states: SPACE.log_measure(states), 5, 16)
    states = net.sample(50, where={"elements": ["Mg", "F"]}, seed=1)
    assert all(set(counts) == {"Mg", "F"} for counts, _ in parts(SPACE, states))


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ({"element": ["O"]}, "did you mean 'elements'"),
        ({"elements": ["Xe"]}, "Xe is not in this space"),
        ({"elements": "MgO"}, "expected a list"),
        ({"space_groups": [3]}, "3 is not in this space"),
        ({"lattice_system": "cubical"}, "expected one of"),
        ({"space_groups": [1], "lattice_system": "cubic"}, "no space group"),
        ({"elements": ["O", "F"]}, "no such composition"),
    ],
)
def test_what_cannot_be_is_refused(where: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SPACE.restricted(where)

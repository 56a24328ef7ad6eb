"""The crystal space as a whole: its parts, copies, wrappers, checkpoints and densities."""

import copy
import math
import pickle
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, Random
from sampler.environment import Environment
from sampler.environments.crystal import Crystal
from sampler.environments.crystal_part import STAGE
from sampler.environments.multi_fidelity import MultiFidelity
from tests.sampler.continuous_walks import walk

OPTIONS: dict[str, Any] = {
    "elements": ["Li", "Mg", "O", "F"],
    "space_groups": [1, 14, 62, 136, 166, 194, 225],
    "n_elements": (1, 3),
    "n_atoms": (2, 10),
    "lengths": (3.0, 12.0),
    "angles": (60.0, 120.0),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "composition first": {"order": ["composition", "space_group", "lattice"]},
    "lattice second": {"order": ["space_group", "lattice", "composition"]},
    "positions": {"positions": "wyckoff", "n_atoms": (2, 6)},
    "volume": {"volume_per_atom": (6.0, 30.0)},
    "mixed valence": {"mixed_valence": True, "pure_elements": True},
}
WHERE = {"formula": "MgO", "lengths": [4.0, 8.0]}


@cache
def space(variant: str = "plain") -> Crystal:
    return Crystal(**{**OPTIONS, **VARIANTS[variant]})


def check_steps(crystal: Environment, n: int = 100) -> Tensor:
    """Random walks undo and repeat, and the policy tells their states apart."""
    terminal, steps = walk(crystal, n)
    for parents, actions, amounts, children in steps:
        assert torch.equal(crystal.step_back(children, actions, amounts), parents)
        between = crystal.amounts_between(parents, actions, children)
        assert torch.equal(crystal.step(parents, actions, between), children)
        assert bool(crystal.log_width(parents, actions).isfinite().all())
        assert not bool(crystal.log_width_back(children, actions).any())
        inputs = crystal.policy_inputs(parents)
        assert float(inputs.abs().max()) <= 1
        assert len(torch.unique(inputs, dim=0)) == len(torch.unique(parents, dim=0))
    return terminal


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_undo_and_repeat(variant: str) -> None:
    terminal = check_steps(space(variant))
    assert torch.equal(space(variant).from_keys(space(variant).keys(terminal)), terminal)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_restricted_space_steps_as_well(variant: str) -> None:
    terminal = check_steps(space(variant).restricted(WHERE))
    keys = space(variant).keys(terminal)
    assert all(row["formula"] == "MgO" for row in space(variant).describe(terminal))
    assert set(space(variant).families(terminal)) == {"MgO"}
    assert torch.equal(space(variant).from_keys(keys), terminal)


def test_parts_come_one_after_another() -> None:
    for variant in VARIANTS:
        crystal = space(variant)
        _, steps = walk(crystal, 50)
        for parents, actions, _, children in steps:
            ahead = children[:, STAGE] - parents[:, STAGE]
            assert bool(((ahead == 0) | (ahead == 1)).all())
            assert torch.equal(crystal._part_of[actions].double(), parents[:, STAGE])


def test_crystals_do_not_depend_on_the_order_of_the_parts() -> None:
    keys = space().keys(Random(space()).sample(100, seed=0))
    for variant in ("composition first", "lattice second"):
        other = space(variant)
        assert other.keys(other.from_keys(keys)) == keys
        assert torch.equal(other.features(other.from_keys(keys)), space().features(
            space().from_keys(keys)))  # fmt: skip


def test_descriptions_say_what_the_key_says() -> None:
    key = "Mg4 O4 | 225 | 4.2100 4.2100 4.2100 | 90.00 90.00 90.00"
    states = space().from_keys([key])
    assert space().describe(states) == [
        {
            "formula": "MgO",
            "space_group": "Fm-3m (225)",
            "n_atoms": 8,
            "volume_per_atom": pytest.approx(4.21**3 / 8),
        }
    ]
    assert space().volumes(states).tolist() == pytest.approx([4.21**3])
    assert space().counts(states).sum(dim=1).tolist() == [8]


def tensors(value: Any, seen: set[int], name: str = "space") -> Iterator[tuple[str, Tensor]]:
    """Every tensor that an object holds, at any depth, tuples with names included."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from tensors(part, seen, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from tensors(part, seen, f"{name}[{i}]")
    elif type(value).__module__.startswith("sampler"):
        for key, part in getattr(value, "__dict__", {}).items():
            yield from tensors(part, seen, f"{name}.{key}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_table_moves_to_a_device(variant: str) -> None:
    """On "meta", which has no data: a table left behind would be seen."""
    for crystal in (space(variant), space(variant).restricted(WHERE)):
        found = list(tensors(crystal.to("meta"), set()))
        assert len(found) > 30
        assert [name for name, tensor in found if tensor.device.type != "meta"] == []
        assert all(tensor.device.type == "cpu" for _, tensor in tensors(crystal, set()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_copies_are_the_same_space(variant: str) -> None:
    original = space(variant)
    for twin in (original.to("cpu"), copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        states = Random(original).sample(20, seed=0)
        assert torch.equal(Random(twin).sample(20, seed=0), states)
        assert twin.keys(states) == original.keys(states)
        inside = [Random(each).sample(8, seed=1, where=WHERE) for each in (twin, original)]
        assert torch.equal(*inside)


@pytest.mark.parametrize("step", ["first", "last", "any"])
def test_a_crystal_with_a_fidelity(step: Any) -> None:
    both = MultiFidelity(space("positions" if step == "last" else "plain"), ["low", "high"], step)
    terminal = check_steps(both, 60)
    assert torch.equal(both.from_keys(both.keys(terminal)), terminal)
    made = [
        (state, candidate)
        for state, candidate in zip(terminal, both.decode(terminal), strict=True)
        if not isinstance(candidate, Exception)
    ]
    assert len(made) > 20
    states, candidates = zip(*made, strict=True)
    assert torch.equal(both.encode(candidates), torch.stack(states))
    net = GFlowNet(both, hidden=(8,))
    net.train(lambda states: states[:, -1], 2, 8)
    assert bool(net.log_prob(net.sample(5, seed=0), n_samples=2).isfinite().all())


EVERYTHING = {
    "hidden": (16,),
    "is_backward_learned": True,
    "exploration": 0.2,
    "schedule": "cosine",
    "schedule_steps": 4,
    "ema": 0.9,
    "replay": {"kind": "prioritized", "capacity": 12, "fraction": 0.25, "min_distance": 0.1},
    "local_search": {"n_rounds": 1},
}


@pytest.mark.parametrize("variant", ["plain", "composition first", "positions"])
def test_training_goes_on_bit_for_bit(variant: str, tmp_path: Path) -> None:
    def log_reward(states: Tensor) -> Tensor:
        return -space(variant).volumes(states) / 100

    def made(seed: int) -> GFlowNet:
        return GFlowNet(space(variant), seed=seed, device="cpu", **EVERYTHING)

    once, first, second = made(0), made(0), made(9)
    whole = once.train(log_reward, 2, 6)
    before = first.train(log_reward, 1, 6)
    first.save(tmp_path / "net.pt")
    second.load(tmp_path / "net.pt")
    assert before + second.train(log_reward, 1, 6) == whole
    for one, other in zip(once.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(once.sample(20), second.sample(20))
    where = {"elements": ["Mg", "O"], "space_groups": 194}
    drawn = [net.sample(2, seed=1, where=where, n_tries=1) for net in (once, second)]
    assert torch.equal(*drawn)


def uneven(crystal: Crystal, seed: int) -> GFlowNet:
    """A sampler whose densities are far from uniform: trained a little on large cells."""
    net = GFlowNet(crystal, hidden=(16,), seed=seed, device="cpu", learning_rate=0.02)
    net.train(lambda states: 1.5 * crystal.volumes(states).log(), 30, 32)
    return net


def sides(first: float, last: float, n: int) -> tuple[Tensor, float]:
    """Multiples of 0.0001 Å near the middles of n equal shares of log a, and such a share."""
    edges = torch.linspace(math.log(first - 5e-5), math.log(last + 5e-5), n + 1).double()
    return ((edges[1:] + edges[:-1]) / 2).exp(), float(edges[1] - edges[0])


def integral(net: GFlowNet, keys: list[str]) -> float:
    states = net.environment.from_keys(keys)
    return float(net.log_prob(states, n_samples=8).exp().sum())


def test_the_density_of_cubic_crystals_integrates_to_one() -> None:
    """Over a, in shares of its whole range on a logarithmic scale, and over compositions."""
    crystal = Crystal(
        ["Mg", "O"], [221, 225], n_atoms=(2, 8), lengths=(3.0, 9.0), volume_per_atom=None
    )
    drawn = crystal.keys(Random(crystal).sample(200, seed=0))
    heads = {tuple(key.split(" | ")[:2]) for key in drawn}
    values, share = sides(3.0, 9.0, 200)
    whole = math.log((9.0 + 5e-5) / (3.0 - 5e-5))
    keys = [
        f"{atoms} | {number} | {a:.4f} {a:.4f} {a:.4f} | 90.00 90.00 90.00"
        for atoms, number in sorted(heads)
        for a in values.tolist()
    ]
    assert len(heads) > 1
    net = uneven(crystal, seed=1)
    log_p = net.log_prob(crystal.from_keys(keys[:200]), n_samples=2)
    assert float(log_p.max() - log_p.min()) > 0.3
    assert integral(net, keys) * share / whole == pytest.approx(1, abs=0.02)


def test_densities_refer_to_the_whole_range_also_where_volumes_narrow_it() -> None:
    """Tetragonal, with volumes that tie c to a: over the plane of both lengths."""
    crystal = Crystal(
        ["Mg", "F"], [136], n_elements=(2, 2), n_atoms=(6, 6), lengths=(3.0, 9.0),
        volume_per_atom=(8.0, 14.0),
    )  # fmt: skip
    values, share = sides(3.0, 9.0, 60)
    whole = math.log((9.0 + 5e-5) / (3.0 - 5e-5))
    keys = [
        f"Mg2 F4 | 136 | {a:.4f} {a:.4f} {c:.4f} | 90.00 90.00 90.00"
        for a in values.tolist()
        for c in values.tolist()
        if 8.0 <= a * a * c / 6 <= 14.0
    ]
    assert 100 < len(keys) < 2000
    net = uneven(crystal, seed=2)
    assert integral(net, keys) * (share / whole) ** 2 == pytest.approx(1, abs=0.03)


def test_densities_of_coordinates_integrate_to_one() -> None:
    """One atom of silicon in an orbit (x, x, x): over x and the side of the cube."""
    crystal = Crystal(
        ["Si"], [198], n_elements=(1, 1), n_atoms=(4, 4), lengths=(4.0, 6.0),
        charge_neutral=False, positions="wyckoff",
    )  # fmt: skip
    drawn = crystal.keys(Random(crystal).sample(500, seed=0))
    x = [float(key.split("(")[1][:-1]) for key in drawn]
    n_x, last = 30, 1.0 if max(x) > 0.5 else 0.5
    assert last - 0.01 < max(x) < last
    values, share = sides(4.0, 6.0, 30)
    whole = math.log((6.0 + 5e-5) / (4.0 - 5e-5))
    keys = [
        f"Si4 | 198 | {a:.4f} {a:.4f} {a:.4f} | 90.00 90.00 90.00 | Si:a({x:.4f})"
        for a in values.tolist()
        for x in ((i + 0.5) / n_x * last for i in range(n_x))
    ]
    net = uneven(crystal, seed=3)
    total = integral(net, keys) * share / whole * last / n_x
    assert total == pytest.approx(1, abs=0.02)


def test_samples_follow_their_densities() -> None:
    """In thirds of the side of a cube: as many as log_prob says."""
    crystal = Crystal(["Mg", "O"], [225], n_atoms=(8, 8), lengths=(3.0, 9.0))
    net = uneven(crystal, seed=4)
    values, share = sides(3.0, 9.0, 300)
    keys = [f"Mg4 O4 | 225 | {a:.4f} {a:.4f} {a:.4f} | 90.00 90.00 90.00" for a in values.tolist()]
    mass = net.log_prob(crystal.from_keys(keys), n_samples=8).exp() * share / math.log(3)
    expected = mass.view(3, 100).sum(dim=1)
    assert float(expected.max() - expected.min()) > 0.05
    states = net.sample(4000, seed=0)
    lengths = (crystal.volumes(states) / 27).log() / 3 / math.log(3)
    found = (lengths * 3).long().clamp(0, 2).bincount(minlength=3) / 4000
    assert found.tolist() == pytest.approx(expected.tolist(), abs=0.03)

"""Sites of Wyckoff positions: laws of the walk, every arrangement once, conversions, bad input."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from sampler.environments.crystal_site_columns import PlacedSite
from sampler.environments.crystal_sites import WyckoffSites
from sampler.environments.crystal_symmetry import is_compatible, space_group
from sampler.environments.crystal_wyckoff_positions import (
    hall_number,
    symmetry_operations,
    wyckoff_positions,
)
from sampler.environments.make_wyckoff_table import sites_row

N_ELEMENTS = 6
ALL = [space_group(number) for number in range(1, 231)]


@cache
def machine() -> WyckoffSites:
    return WyckoffSites(ALL, max_count=16, n_elements=3, max_atoms=32)


@cache
def cases() -> tuple[Tensor, Tensor]:
    """Three random compatible compositions of each space group: groups `(n,)`, counts `(n, e)`."""
    rng = np.random.default_rng(3)
    groups, rows = [], []
    for index, group in enumerate(ALL):
        n_found = 0
        while n_found < 3:
            counts = np.zeros(N_ELEMENTS, dtype=np.int64)
            chosen = rng.choice(N_ELEMENTS, size=rng.integers(1, 4), replace=False)
            counts[chosen] = rng.choice([1, 2, 3, 4, 6, 8, 10, 12, 16], size=len(chosen))
            if counts.sum() <= 32 and is_compatible(group, counts[counts > 0].tolist()):
                groups.append(index)
                rows.append(counts)
                n_found += 1
    return torch.tensor(groups), torch.as_tensor(np.array(rows))


def walk(
    sites: WyckoffSites, groups: Tensor, counts: Tensor, seed: int
) -> list[tuple[Tensor, Tensor]]:
    """Random walk of all rows to the end: columns before each step and action, -1 in ended rows."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.zeros(len(groups), sites.width, dtype=torch.float64)
    steps: list[tuple[Tensor, Tensor]] = []
    for _ in range(sites.max_steps + 1):
        mask = sites.forward_mask(columns, groups, counts)
        assert torch.equal(~mask.any(1), sites.is_finished(columns, groups, counts))
        if not mask.any():
            return [*steps, (columns, torch.full((len(groups),), -1))]
        actions = torch.where(
            mask.any(1), torch.multinomial(mask + 1e-12, 1, generator=generator)[:, 0], -1
        )
        steps.append((columns, actions))
        rows = (actions >= 0).nonzero()[:, 0]
        part = (columns[rows], actions[rows])
        low, high = sites.bounds(*part, groups[rows], counts[rows])
        assert ((low >= 0) & (low < high) & (high <= 1)).all()
        value = low + (high - low) * torch.rand(len(rows), generator=generator).double()
        columns = columns.clone()
        columns[rows] = sites.step(*part, value, groups[rows], counts[rows])
    raise AssertionError("a walk did not end within max_steps")


@cache
def walked() -> list[tuple[Tensor, Tensor]]:
    return walk(machine(), *cases(), seed=0)


def test_every_walk_ends_with_all_atoms_on_vacant_sites() -> None:
    groups, counts = cases()
    final = walked()[-1][0]
    for sites, group, atoms in zip(
        machine().sites(final, groups, counts), groups.tolist(), counts.tolist(), strict=True
    ):
        positions = {p.letter: p for p in wyckoff_positions(ALL[group].number)}
        held = [0] * N_ELEMENTS
        for element, letter, point in sites:
            held[element] += positions[letter].multiplicity
            assert all(x == 0 or i in positions[letter].axes for i, x in enumerate(point))
        assert held == atoms
        fixed = [letter for _, letter, _ in sites if not positions[letter].axes]
        assert len(set(fixed)) == len(fixed)
        assert sites == sorted(
            sites, key=lambda s: (s[0], len(positions[s[1]].axes) > 0, rank(s[1]), s[2])
        )


def rank(letter: str) -> int:
    return "abcdefghijklmnopqrstuvwxyzA".index(letter)


def test_steps_back_undo_steps_and_are_the_only_ones() -> None:
    groups, counts = cases()
    for (before, actions), (after, _) in itertools.pairwise(walked()):
        rows = (actions >= 0).nonzero()[:, 0]
        mask = machine().backward_mask(after[rows], groups[rows], counts[rows])
        assert torch.equal(mask.long().argmax(1), actions[rows])
        assert (mask.sum(1) == 1).all()
        undone = machine().step_back(after[rows], actions[rows], groups[rows], counts[rows])
        assert torch.equal(undone, before[rows])
    start = torch.zeros_like(walked()[0][0])
    assert not machine().backward_mask(start, groups, counts).any()


def test_stepping_again_with_the_stored_value_changes_nothing() -> None:
    groups, counts = cases()
    for (before, actions), (after, _) in itertools.pairwise(walked()):
        rows = (actions >= machine().n_letters).nonzero()[:, 0]
        axis = actions[rows] - machine().n_letters
        first = 2 + 4 * (before[rows, 0].long() - 1)
        value = after[rows, first + 1 + axis]
        part = (before[rows], actions[rows])
        low, high = machine().bounds(*part, groups[rows], counts[rows])
        assert ((low <= value) & (value < high)).all()
        amount = (value - low) / (high - low)
        again = machine().step(*part, low + amount * (high - low), groups[rows], counts[rows])
        assert torch.equal(again, after[rows])


def test_sites_and_columns_are_inverse_in_any_order_of_sites() -> None:
    groups, counts = cases()
    final = walked()[-1][0]
    sites = machine().sites(final, groups, counts)
    assert torch.equal(machine().columns_of(sites, groups, counts), final)
    turned = [[*reversed(row)] for row in sites]
    assert torch.equal(machine().columns_of(turned, groups, counts), final)


def test_inputs_are_bounded_and_tell_states_apart() -> None:
    groups, counts = cases()
    states, inputs = [], []
    for columns, actions in walked():
        rows = (actions >= 0).nonzero()[:, 0]
        conditions = (groups[rows, None].double(), counts[rows].double())
        states.append(torch.cat([*conditions, columns[rows]], dim=1))
        seen = machine().inputs(columns[rows], groups[rows], counts[rows])
        assert seen.shape == (len(rows), machine().n_inputs)
        assert seen.dtype == torch.float32
        assert (seen.abs() <= 1.001).all()
        inputs.append(torch.cat([conditions[0].float(), conditions[1].float(), seen], dim=1))
    n_states = len(torch.unique(torch.cat(states), dim=0))
    assert len(torch.unique(torch.cat(inputs), dim=0)) == n_states


def arrangements_by_hand(number: int, counts: list[int]) -> set[tuple[tuple[int, str], ...]]:
    """Every way to give sites to elements, found by trying all multisets of letters."""
    positions = wyckoff_positions(number)
    per_element: list[list[tuple[str, ...]]] = []
    for count in counts:
        ways = [
            tuple(p.letter for p in chosen)
            for n in range(count + 1)
            for chosen in itertools.combinations_with_replacement(positions, n)
            if sum(p.multiplicity for p in chosen) == count
        ]
        per_element.append(ways)
    fixed = {p.letter for p in positions if not p.axes}
    found = set()
    for combination in itertools.product(*per_element):
        taken = [letter for way in combination for letter in way if letter in fixed]
        if len(set(taken)) == len(taken):
            found.add(tuple((e, x) for e, way in enumerate(combination) for x in sorted(way)))
    return found


@pytest.mark.parametrize(
    ("number", "counts"),
    [
        (3, [2, 2]),
        (2, [3, 0, 1]),
        (10, [2, 1]),
        (12, [4, 2]),
        (47, [1, 2]),
        (148, [3, 6]),
        (162, [3, 2, 1]),
        (163, [6, 4]),
        (166, [6, 3]),
        (167, [12, 6]),
        (167, [18, 12]),
        (176, [6, 2, 2]),
        (224, [4, 6, 2]),
        (224, [8, 8]),
        (225, [4, 4, 8]),
        (227, [8, 8]),
    ],
)
def test_exactly_the_arrangements_that_exist_are_reached(number: int, counts: list[int]) -> None:
    sites = WyckoffSites([space_group(number)], max(counts), len(counts), sum(counts))
    group, atoms = torch.zeros(1, dtype=torch.int64), torch.tensor([counts])
    reached = []
    frontier = [torch.zeros(1, sites.width, dtype=torch.float64)]
    while frontier:
        columns = frontier.pop()
        actions = sites.forward_mask(columns, group, atoms)[0].nonzero()[:, 0]
        assert len(actions) > 0 or sites.is_finished(columns, group, atoms).all()
        if len(actions) == 0:
            reached.append(sites.sites(columns, group, atoms)[0])
        for action in actions:
            value = torch.full((1,), 0.25)
            frontier.append(sites.step(columns, action[None], value, group, atoms))
    distinct = {tuple(sorted((e, letter) for e, letter, _ in row)) for row in reached}
    expected = {tuple(sorted(way)) for way in arrangements_by_hand(number, counts)}
    assert distinct == expected
    assert len(reached) == len(distinct)


def test_coordinates_of_equal_sites_ascend() -> None:
    sites = WyckoffSites([space_group(1)], 4, 1, 4)
    group, atoms = torch.zeros(1, dtype=torch.int64), torch.tensor([[2]])
    columns = torch.zeros(1, sites.width, dtype=torch.float64)
    x, y, z = (torch.tensor([sites.n_letters + axis]) for axis in range(3))
    for action, value in ((0, 0.0), (x, 0.5), (y, 0.25), (z, 1.0), (0, 0.0)):
        action = torch.as_tensor(action).reshape(1)
        columns = sites.step(columns, action, torch.tensor([value]), group, atoms)
    low, high = sites.bounds(columns, x, group, atoms)
    assert (float(low), float(high)) == (0.5, 1.0)
    same = sites.step(columns, x, torch.tensor([0.1]), group, atoms)
    assert float(sites.bounds(same, y, group, atoms)[0]) == 0.25
    other = sites.step(columns, x, torch.tensor([0.51234]), group, atoms)
    assert float(sites.bounds(other, y, group, atoms)[0]) == 0
    same = sites.step(same, y, torch.tensor([0.25]), group, atoms)
    assert float(sites.bounds(same, z, group, atoms)[0]) == 0.9999
    same = sites.step(same, z, torch.tensor([0.99999]), group, atoms)
    expected: list[PlacedSite] = [(0, "a", (0.5, 0.25, 0.9999))] * 2
    assert sites.sites(same, group, atoms) == [expected]


@pytest.mark.parametrize("number", [1, 15, 48, 68, 129, 167, 199, 227])
def test_shipped_sites_are_what_the_script_makes(number: int) -> None:
    made = sites_row(number)
    assert made["hall_number"] == hall_number(number)
    letters = [(p.letter, p.multiplicity) for p in wyckoff_positions(number)]
    assert letters == [(letter, m) for letter, m, _ in made["sites"]]


def test_orbits_have_the_multiplicity_of_their_position() -> None:
    point = np.array([0.1234, 0.3712, 0.6178, 1.0])
    for group in ALL:
        rotations, translations = symmetry_operations(group.number)
        for position in wyckoff_positions(group.number):
            orbit = (rotations @ (position.point @ point) + translations) % 1
            ticks = np.rint(orbit * 1e6).astype(int) % 1_000_000
            assert len(np.unique(ticks, axis=0)) == position.multiplicity


def test_bad_sites_are_named() -> None:
    sites = WyckoffSites([space_group(225)], 8, 2, 16)
    group, atoms = torch.zeros(1, dtype=torch.int64), torch.tensor([[4, 4]])
    origin = (0.0, 0.0, 0.0)
    for row, message in (
        ([(0, "a", origin), (1, "d", origin)], "site 'd': expected one of"),
        (
            [(0, "a", origin)],
            r"expected to hold \[4, 4\] atoms of the elements, they hold \[4, 0\]",
        ),
        ([(0, "a", origin), (1, "a", origin)], "site 'a' has no free coordinate"),
    ):
        with pytest.raises(ValueError, match=message):
            sites.columns_of([row], group, atoms)
    with pytest.raises(ValueError, match="max_atoms: expected at least 1, got 0"):
        WyckoffSites([space_group(225)], 8, 2, 0)

"""Restrictions of the crystal space: every sample obeys, and all that obeys stays reachable."""

import math
from collections.abc import Mapping
from functools import cache
from itertools import cycle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sampler import Random
from sampler.environments.crystal import Crystal
from tests.sampler.crystal_spaces import REFERENCE
from tests.sampler.crystal_wishes import (
    CELL_KEYS,
    Parts,
    all_by_masks,
    classes,
    has_cell,
    obeys,
    read,
    walk_back,
)

ELEMENTS = ["Li", "Mg", "Ti", "O", "F"]
GROUPS = [1, 2, 14, 62, 136, 166, 194, 216, 225]
ORDERS = {
    "group first": ["space_group", "composition", "lattice"],
    "composition first": ["composition", "space_group", "lattice"],
    "lattice second": ["space_group", "lattice", "composition"],
}


@cache
def space(order: str = "group first", volume: tuple[float, float] | None = None) -> Crystal:
    return Crystal(
        ELEMENTS,
        GROUPS,
        n_elements=(1, 3),
        n_atoms=(2, 10),
        lengths=(2.5, 20.0),
        angles=(55.0, 130.0),
        volume_per_atom=volume,
        order=ORDERS[order],
    )


@cache
def reference() -> Crystal:
    return Crystal(**REFERENCE)


@cache
def whole(order: str) -> dict[Any, Parts]:
    return all_by_masks(space(order))


def check_law(order: str, where: dict[str, Any]) -> None:
    """The restriction holds exactly the crystals of the space that obey."""
    symmetric = {key: value for key, value in where.items() if key not in CELL_KEYS}
    expected = {
        name
        for name, parts in whole(order).items()
        if obeys(symmetric, parts) and has_cell(where, parts[1])
    }
    if not expected:
        with pytest.raises(ValueError, match=r"^where: ") as caught:
            space(order).restricted(where)
        assert "\n" not in str(caught.value)
        return
    found = all_by_masks(space(order).restricted(where))
    assert set(found) == expected
    assert all(obeys(where, parts) for parts in found.values())


WISHES: dict[str, dict[str, Any]] = {
    "elements": {"elements": ["Mg", "O", "F"]},
    "required": {"required_elements": ["F", "Li"]},
    "formula": {"formula": "MgO"},
    "formula of three": {"formula": "Li2TiF6"},
    "composition": {"composition": {"Ti": 2, "O": 4}},
    "n_elements": {"n_elements": 3},
    "n_atoms": {"n_atoms": [4, 6]},
    "at most": {"n_atoms_per_element": 3},
    "at least": {"n_atoms_per_element": [2, 4]},
    "one space group": {"space_groups": 136},
    "space groups": {"space_groups": [136, 225]},
    "lattice system": {"lattice_system": "hexagonal"},
    "crystal system": {"crystal_system": ["trigonal", "cubic"]},
    "point symmetry": {"point_symmetry": "none"},
    "lengths": {"lengths": [5.0, 8.0]},
    "angles": {"angles": [75.0, 125.0]},
    "angles too narrow for hexagonal": {"angles": [80.0, 100.0]},
    "triclinic only": {"alpha": [95.0, 100.0]},
    "c": {"c": [9.0, 10.0]},
    "no cubic": {"a": [4.0, 5.0], "c": [6.0, 7.0]},
    "both": {"formula": "MgF2", "lattice_system": "tetragonal", "c": [3.0, 4.0]},
    "much": {
        "elements": ["Ti", "O", "Li"],
        "required_elements": ["Li"],
        "crystal_system": "triclinic",
        "n_atoms": [3, 8],
        "gamma": [70.0, 80.0],
    },
}


# Orders in turns; wishes of all kinds meet all orders in the test of any combination below.
@pytest.mark.parametrize(("name", "order"), zip(WISHES, cycle(ORDERS), strict=False))
def test_a_restriction_holds_exactly_what_obeys(name: str, order: str) -> None:
    check_law(order, WISHES[name])


def _range(low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=2, max_size=2).map(sorted)


def _some(values: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=4, unique=True)


_WISH = st.fixed_dictionaries(
    {},
    optional={
        "elements": _some(ELEMENTS),
        "required_elements": st.lists(st.sampled_from(ELEMENTS), min_size=1, max_size=1),
        "formula": st.sampled_from(["MgO", "LiF", "TiO2", "MgTiO3", "LiMgF3"]),
        "n_elements": _range(1, 3),
        "n_atoms": _range(2, 10),
        "n_atoms_per_element": st.integers(1, 8),
        "space_groups": _some(GROUPS),
        "lattice_system": _some(["triclinic", "orthorhombic", "rhombohedral", "cubic"]),
        "point_symmetry": _some(["centrosymmetric", "none", "enantiomorphic_polar"]),
        "lengths": st.sampled_from([[3, 9], [2.5, 3]]),
        "beta": st.sampled_from([[80, 95], [100, 110]]),
    },
)


@settings(max_examples=40, derandomize=True, database=None)
@given(where=_WISH, order=st.sampled_from(sorted(ORDERS)))
def test_any_combination_holds_exactly_what_obeys(where: dict[str, Any], order: str) -> None:
    check_law(order, where)


def at_the_ends(restricted: Crystal, n: int) -> Tensor:
    """Terminal states whose amounts are the least or the most that are allowed, or any."""
    generator = torch.Generator().manual_seed(0)
    states, done = restricted.initial_states(n), []
    while len(states) > 0:
        mask = restricted.forward_mask(states).double()
        assert bool(mask.any(dim=1).all())
        actions = torch.multinomial(mask, 1, generator=generator)[:, 0]
        low, high = restricted.amount_range(states, actions)
        assert bool((low < high).all())
        kind = torch.randint(3, (len(states),), generator=generator)
        share = torch.rand(len(states), generator=generator, dtype=torch.float64)
        share = torch.where(kind == 0, 0.0, torch.where(kind == 1, 1.0, share))
        states = restricted.step(states, actions, low + share * (high - low))
        is_done = restricted.is_terminal(states)
        done.append(states[is_done])
        states = states[~is_done]
    return torch.cat(done)


CELLS: dict[str, dict[str, Any]] = {
    "lengths": {"lengths": [4.0, 9.0]},
    "angles": {"angles": [70.0, 122.0]},
    "skew": {"angles": [92.0, 118.0], "lattice_system": "triclinic"},
    "each": {"a": [3.0, 8.0], "b": [3.0, 9.0], "c": [4.0, 12.0], "beta": [85.0, 110.0]},
    "composition too": {"lengths": [3.0, 8.0], "elements": ["Mg", "O", "F"]},
}


@pytest.mark.parametrize("volume", [None, (8.0, 30.0)], ids=["any volume", "volume_per_atom"])
@pytest.mark.parametrize("name", CELLS)
def test_amounts_lead_to_all_wanted_cells_and_no_others(
    name: str, volume: tuple[float, float] | None
) -> None:
    free, where = space(volume=volume), CELLS[name]
    restricted = free.restricted(where)
    ends = at_the_ends(restricted, 1500)
    for key in free.keys(ends):
        assert obeys(where, read(key)), key
    assert volume is None or is_within(free, ends, volume)
    by_chance = Random(free).sample(4000, seed=1)
    keys = free.keys(by_chance)
    good = by_chance[torch.tensor([obeys(where, read(key)) for key in keys])]
    assert len(good) > 20
    walk_back(free, restricted, good)


def is_within(crystal: Crystal, states: Tensor, volume: tuple[float, float]) -> bool:
    per_atom = crystal.volumes(states) / crystal.counts(states).sum(dim=1)
    return bool(((volume[0] * 0.99 < per_atom) & (per_atom < volume[1] * 1.01)).all())


def test_volumes_and_wanted_lengths_together_leave_the_numbers_of_atoms() -> None:
    """Groups whose volume is a product of lengths: it has to lie in the window of the atoms."""
    options: dict[str, Any] = {
        "elements": ["Mg", "Ti", "O"],
        "space_groups": [62, 136, 194, 225],
        "n_atoms": (1, 24),
        "n_elements": (1, 3),
        "lengths": (4.0, 7.0),
    }
    free = all_by_masks(Crystal(**options))
    windowed = Crystal(**options, volume_per_atom=(8.0, 14.0))
    for where in ({}, {"lengths": [4.0, 5.0]}, {"a": [5.0, 6.0]}, {"b": [4.0, 4.5], "c": [6, 7]}):
        expected = {
            name
            for name, (atoms, number, *_) in free.items()
            if has_cell(where, number) and _fits_window(where, number, sum(atoms.values()))
        }
        assert 0 < len(expected) < len(free)
        assert set(all_by_masks(windowed.restricted(where))) == expected


def _fits_window(where: Mapping[str, Any], number: int, n_atoms: int) -> bool:
    system = classes(number)["crystal_system"]
    tied = {"cubic": "abc", "tetragonal": "ab", "hexagonal": "ab"}.get(system, "a")
    wanted = {x: where.get(x, where.get("lengths", [4.0, 7.0])) for x in "abc"}
    joint = [max(wanted[x][0] for x in tied), min(wanted[x][1] for x in tied)]
    ends = [joint if x in tied else wanted[x] for x in "abc"]
    area = math.sqrt(3) / 2 if system == "hexagonal" else 1.0
    smallest, largest = (area * math.prod(end[i] for end in ends) for i in (0, 1))
    return smallest <= 14.0 * n_atoms and largest >= 8.0 * n_atoms


@pytest.mark.parametrize("system", ["triclinic", "monoclinic", "orthorhombic", "tetragonal",
                                    "trigonal", "hexagonal", "cubic"])  # fmt: skip
def test_every_lattice_system_fills_the_wanted_ranges(system: str) -> None:
    """Not only a corner of them: parameters that are free reach both ends."""
    where = {"crystal_system": system, "lengths": [6.0, 7.0], "angles": [80.0, 121.0]}
    states = Random(space()).sample(400, seed=2, where=where)
    parts = [read(key) for key in space().keys(states)]
    assert all(obeys(where, each) for each in parts)
    lengths = torch.tensor([each[2] for each in parts])
    assert float(lengths.amin(dim=0).max()) < 6.03
    assert float(lengths.amax(dim=0).min()) > 6.97
    if system in ("triclinic", "monoclinic"):
        beta = torch.tensor([each[3][1] for each in parts])
        assert float(beta.min()) < 82
        assert float(beta.max()) > 114


ISSUE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "A": (
        {"elements": ["Fe", "O"], "n_atoms_per_element": 10},
        {"elements": ["Fe", "O"], "n_atoms_per_element": (1, 10)},
    ),
    "B": (
        {"elements": ["Li", "Mn", "O"], "n_atoms_per_element": 16},
        {"elements": ["Li", "Mn", "O"], "n_atoms_per_element": (1, 16)},
    ),
    "C": (
        {"lattice_system": "cubic"},
        {"space_groups": [n for n in REFERENCE["space_groups"] if n >= 195]},
    ),
    "D": (
        {"lengths": [10, 20], "angles": [75, 135]},
        {"lengths": (10.0, 20.0), "angles": (75.0, 135.0)},
    ),
    "all": (
        {
            "elements": ["Li", "Mn", "O"],
            "n_atoms_per_element": 12,
            "lattice_system": ["cubic", "tetragonal"],
            "lengths": [5, 9],
            "n_atoms": [10, 40],
        },
        {
            "elements": ["Li", "Mn", "O"],
            "n_atoms_per_element": (1, 12),
            "space_groups": [
                n for n in REFERENCE["space_groups"] if n >= 195 or 75 <= n <= 142
            ],
            "lengths": (5.0, 9.0),
            "n_atoms": (10, 40),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ISSUE)
def test_the_reference_set_restricted_is_the_space_with_such_options(name: str) -> None:
    where, options = ISSUE[name]
    restricted, narrow = reference().restricted(where), Crystal(**{**REFERENCE, **options})
    states = Random(reference()).sample(100, seed=0, where=where)
    keys = reference().keys(states)
    assert all(obeys(where, read(key)) for key in keys)
    assert narrow.keys(narrow.from_keys(keys)) == keys  # which refuses what is outside
    others = narrow.keys(Random(narrow).sample(80, seed=1))
    walk_back(reference(), restricted, reference().from_keys(others))


WANTED: dict[str, dict[str, Any]] = {
    "formula": {"formula": "Fe2O3"},
    "formula in a group": {"formula": "MgAl2O4", "space_groups": 227},
    "composition": {"composition": "Fe8O12"},
    "everything": {
        "required_elements": ["Li", "O"],
        "space_groups": [14, 62, 166],
        "lengths": [4, 15],
        "gamma": [85, 125],
        "n_elements": [3, 4],
    },
}


@pytest.mark.parametrize("name", WANTED)
def test_samples_of_the_reference_set_obey(name: str) -> None:
    few = ["Li", "Mg", "Al", "O"]  # tables of many atoms of many elements take a second
    wide = {**REFERENCE, "elements": few, "n_atoms_per_element": (1, 32)} if "group" in name else {}
    crystal = Crystal(**wide) if wide else reference()
    keys = crystal.keys(Random(crystal).sample(150, seed=0, where=WANTED[name]))
    assert all(obeys(WANTED[name], read(key)) for key in keys)
    assert len(set(keys)) == len(keys)
    if name == "formula":  # in any multiple
        assert {sum(read(key)[0].values()) for key in keys} >= {5, 10, 15, 20, 25}


def test_a_formula_is_reduced_by_its_ratio_alone() -> None:
    """Not as pymatgen names compounds: O2 for O, Li2O2 for LiO."""
    crystal = Crystal(["Li", "O"], [1, 2], pure_elements=True, charge_neutral=False, n_atoms=(1, 9))
    for formula, n_atoms in (("O2", set(range(1, 10))), ("LiO", {2, 4, 6, 8})):
        found = all_by_masks(crystal.restricted({"formula": formula}))
        assert {sum(parts[0].values()) for parts in found.values()} == n_atoms
    halves = all_by_masks(crystal.restricted({"formula": {"Li": 0.5, "O": 0.75}}))
    assert {tuple(parts[0].items()) for parts in halves.values()} == {(("Li", 2), ("O", 3))}


def test_restrictions_add_up() -> None:
    wishes = [{"formula": "MgO"}, {"n_atoms": [4, 8]}, {"space_groups": [2, 225]}, {"a": [5, 6]}]
    one_by_one = space()
    for wish in wishes:
        one_by_one = one_by_one.restricted(wish)
    at_once = space().restricted({k: v for wish in wishes for k, v in wish.items()})
    assert all_by_masks(one_by_one) == all_by_masks(at_once)
    with pytest.raises(ValueError, match=r"^where: "):
        one_by_one.restricted({"formula": "LiF"})


BARRED: dict[str, tuple[dict[str, Any], str]] = {
    "elements": ({"elements": ["Li", "O"]}, "Mg1 O1 | 1 | 5 5 5 | 90 90 90"),
    "formula": ({"formula": "Li2O"}, "Mg1 O1 | 1 | 5 5 5 | 90 90 90"),
    "space_groups": ({"space_groups": [225]}, "Mg4 O4 | 221 | 5 5 5 | 90 90 90"),
    "n_atoms": ({"n_atoms": [1, 4]}, "Mg4 O4 | 225 | 5 5 5 | 90 90 90"),
    "lengths": ({"lengths": [4.5, 5]}, "Mg4 O4 | 225 | 5.2 5.2 5.2 | 90 90 90"),
    "c": ({"c": [4.5, 5]}, "Mg4 O4 | 225 | 5.2 5.2 5.2 | 90 90 90"),
    "gamma": ({"gamma": [100, 120]}, "Mg4 O4 | 225 | 5 5 5 | 90 90 90"),
}


@pytest.mark.parametrize("name", BARRED)
def test_crystals_outside_the_wish_are_refused(name: str) -> None:
    where, key = BARRED[name]
    crystal = Crystal(["Li", "Mg", "O"], [1, 168, 221, 225], lengths=(4.0, 8.0))
    restricted = crystal.restricted({"n_elements": 2}).restricted(where)
    state = crystal.from_keys([key])
    with pytest.raises(ValueError, match=r"does not satisfy \{'n_elements': 2\} and ") as caught:
        restricted.from_keys([key])
    assert str(where) in str(caught.value)
    assert crystal.keys(state)[0] in str(caught.value)
    structure = crystal.decode(state)[0]
    with pytest.raises(ValueError, match="does not satisfy"):
        restricted.encode([structure])
    inside = Random(crystal).sample(20, seed=0, where={"n_elements": 2, **where})
    assert torch.equal(restricted.from_keys(crystal.keys(inside)), inside)


def test_an_interval_of_no_numbers_is_named() -> None:
    for value in (["a", "b"], "5", [True, 2], [1], None, ["5", "9"]):
        with pytest.raises(ValueError, match="where: lengths: expected a number or"):
            space().restricted({"lengths": value})
    assert torch.equal(
        Random(space()).sample(5, seed=0, where={"n_atoms": [1, math.inf]}),
        Random(space()).sample(5, seed=0, where={"n_atoms": [0.5, 10_000]}),
    )

"""The crystal space: its masks hold exactly what chemistry, symmetry and geometry allow."""

import itertools
import math
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import Element
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from pyxtal.symmetry import Group
from pyxtal.tolerance import Tol_matrix

from sampler.baselines import Random
from sampler.environments.crystal import Crystal
from sampler.environments.crystal_classes import crystal_lattice_system, point_symmetry
from sampler.environments.crystal_elements import (
    atomic_volumes,
    oxidation_states,
    property_table,
)
from sampler.environments.crystal_part import STAGE
from sampler.environments.crystal_symmetry import space_group

REFERENCE = {
    "elements": [
        "H", "Li", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "V", "Mn",
        "Fe", "Co", "Ni", "Cu", "Se",
    ],
    "space_groups": [
        *range(1, 17), *range(18, 22), 25, 26, 29, 30, 31, 33, 36, 38, 40, 41, 43, 44, 46, 47,
        51, 52, 53, *range(55, 68), *range(69, 73), 74, 82, *range(84, 89), 92, 99, 102, 107, 113,
        114, 121, 122, 123, 126, 129, 131, *range(136, 142), 146, 147, 148, 150, 155, 156,
        *range(160, 165), 166, 167, 176, 181, 185, 186, 187, 189, 192, 194, 198, 199, 205, 206,
        216, 217, 220, 221, 224, 225, 227, 229, 230,
    ],
}  # fmt: skip
ELEMENTS = ["Li", "Na", "Mg", "Al", "Si", "O", "F", "S", "Cl", "K", "Ca", "Ti"]
GROUPS = [1, 2, 5, 12, 14, 15, 19, 62, 72, 88, 129, 136, 141, 148, 166, 186, 194, 216, 221, 225]
TOLERANCES = Tol_matrix(prototype="atomic")


@cache
def space() -> Crystal:
    return Crystal(
        ELEMENTS,
        GROUPS,
        n_elements=(1, 3),
        n_atoms=(2, 12),
        n_atoms_per_element=(1, 8),
        lengths=(2.5, 15.0),
        angles=(60.0, 120.0),
        volume_per_atom=(6.0, 40.0),
    )


@cache
def reference() -> Crystal:
    return Crystal(**REFERENCE)


@cache
def samples() -> torch.Tensor:
    return Random(space()).sample(400, seed=7)


@cache
def group(number: int) -> Group:
    return Group(number)


FLAGS = ("charge_neutral", "mixed_valence", "pure_elements")


def tiny(**options: Any) -> Crystal:
    defaults: dict[str, Any] = {
        "elements": ["Mg", "Ti", "O"],
        "space_groups": [2, 14, 62, 194, 225],
        "n_elements": (1, 3),
        "n_atoms": (2, 8),
        "n_atoms_per_element": (1, 4),
        "lengths": (2.5, 8.0),
        "angles": (50.0, 125.0),
        "volume_per_atom": (8.0, 20.0),
    }
    return Crystal(**{**defaults, **options})


def parts_of(key: str) -> tuple[dict[str, int], int, list[float], list[float]]:
    """Atoms, space group, lengths and angles that a key names."""
    atoms, number, lengths, angles = key.split(" | ")[:4]
    counts = {str(e): int(n) for e, n in Composition(atoms).get_el_amt_dict().items()}
    return counts, int(number), *([float(x) for x in p.split()] for p in (lengths, angles))


def compositions_by_masks(crystal: Crystal) -> set[tuple[int, tuple[int, ...]]]:
    """Space group and atom counts of every state that begins its lattice."""
    found, states = set(), crystal.initial_states(1)
    while len(states) > 0:
        is_done = states[:, STAGE] == 2
        for row in states[is_done]:
            number = crystal.space_groups[int(row[3]) - 1].number
            found.add((number, tuple(crystal.counts(row[None])[0].long().tolist())))
        states = states[~is_done]
        rows, actions = crystal.forward_mask(states).nonzero(as_tuple=True)
        states = torch.unique(crystal.step(states[rows], actions), dim=0)
    return found


def compositions_by_hand(
    crystal: Crystal, is_neutral: Any, n_atoms: tuple[int, int], most: int
) -> set[tuple[int, tuple[int, ...]]]:
    found = set()
    symbols = [element.symbol for element in crystal.elements]
    for counts in itertools.product(range(most + 1), repeat=len(symbols)):
        present = {s: n for s, n in zip(symbols, counts, strict=True) if n}
        if n_atoms[0] <= sum(counts) <= n_atoms[1] and is_neutral(present):
            for each in crystal.space_groups:
                if group(each.number).check_compatible(list(present.values()))[0]:
                    found.add((each.number, counts))
    return found


def one_state_each(atoms: dict[str, int]) -> bool:
    states = [Element(symbol).icsd_oxidation_states for symbol in atoms]
    return any(
        np.dot(choice, list(atoms.values())) == 0
        for choice in itertools.product(*states)
        if 0 not in choice
    )


def any_states(atoms: dict[str, int]) -> bool:
    sums = {0}
    for symbol, n in atoms.items():
        for _ in range(n):
            sums = {a + b for a in sums for b in Element(symbol).icsd_oxidation_states if b}
    return 0 in sums


@pytest.mark.parametrize(
    ("options", "is_neutral"),
    [
        ({}, one_state_each),
        ({"mixed_valence": True}, any_states),
        ({"charge_neutral": False}, lambda atoms: True),
        ({"pure_elements": True}, lambda atoms: len(atoms) == 1 or one_state_each(atoms)),
        ({"order": ["composition", "space_group", "lattice"]}, one_state_each),
    ],
    ids=["neutral", "mixed valence", "any charge", "pure elements", "composition first"],
)
def test_masks_reach_exactly_the_valid_compositions(options: Any, is_neutral: Any) -> None:
    crystal = tiny(volume_per_atom=None, **options)
    expected = compositions_by_hand(crystal, is_neutral, (2, 8), 4)
    assert {number for number, _ in expected} == {2, 14, 62, 194, 225}
    assert compositions_by_masks(crystal) == expected


def test_samples_are_neutral_by_pymatgen() -> None:
    formulas = {row["formula"] for row in space().describe(samples())}
    assert len(formulas) > 50
    for formula in sorted(formulas)[:60]:
        assert Composition(formula).oxi_state_guesses(), formula


def volume(lengths: list[float], angles: list[float]) -> float:
    x, y, z = (math.cos(math.radians(angle)) for angle in angles)
    return math.prod(lengths) * math.sqrt(max(0.0, 1 - x * x - y * y - z * z + 2 * x * y * z))


def test_samples_fit_their_space_group_their_ranges_and_the_volume_window() -> None:
    for row, key in zip(space().describe(samples()), space().keys(samples()), strict=True):
        atoms, number, lengths, angles = parts_of(key)
        assert group(number).check_compatible(list(atoms.values()))[0], key
        assert 2.5 <= min(lengths) <= max(lengths) <= 15.0
        assert 60.0 <= min(angles) <= max(angles) <= 120.0
        per_atom = volume(lengths, angles) / sum(atoms.values())
        assert row["volume_per_atom"] == pytest.approx(per_atom, rel=1e-6)
        assert 6.0 * (1 - 2e-3) <= per_atom <= 40.0 * (1 + 2e-3)


def test_the_reference_set_is_valid_by_other_libraries() -> None:
    states = Random(reference()).sample(2000, seed=0)
    keys = reference().keys(states)
    assert len(set(keys)) == len(keys)
    for key in keys:
        atoms, number, lengths, angles = parts_of(key)
        assert 1 <= len(atoms) <= 5
        assert max(atoms.values()) <= 16
        assert 0.9 <= min(lengths) <= max(lengths) <= 100.0
        assert 50.0 <= min(angles) <= max(angles) <= 150.0
        assert volume(lengths, angles) > 0.05 * math.prod(lengths)
        assert one_state_each(atoms), key
    compositions = [parts_of(key)[:2] for key in keys]
    for atoms, number in compositions[:500]:
        assert group(number).check_compatible(list(atoms.values()))[0], (atoms, number)
    for atoms, _ in sorted(compositions, key=lambda each: n_guesses(each[0]))[:200:2]:
        assert Composition(atoms).oxi_state_guesses(), atoms


def n_guesses(atoms: dict[str, int]) -> int:
    """How many ways to choose charges pymatgen would go through."""
    n_states = {symbol: len(Element(symbol).icsd_oxidation_states) for symbol in atoms}
    return math.prod(math.comb(n + n_states[symbol] - 1, n) for symbol, n in atoms.items())


def test_system_and_point_symmetry_come_in_any_order_and_narrow_each_other() -> None:
    crystal = space()
    first = crystal.forward_mask(crystal.initial_states(1))[0].nonzero()[:, 0].tolist()
    assert first == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]  # none of GROUPS is 5: P3 … P-3m1
    for system, point in itertools.product(range(8), range(8, 13)):
        both = []
        for order in ((system, point), (point, system)):
            states = crystal.initial_states(1)
            for action in order:
                mask = crystal.forward_mask(states)[0]
                states = crystal.step(states, torch.tensor([action])) if mask[action] else states
            both.append(states)
        done = both[0][0, 1:3].tolist() == [system + 1, point - 7]
        numbers = [
            n
            for n in GROUPS
            if (crystal_lattice_system(n), point_symmetry(n))
            == (crystal.systems[system], crystal.point_symmetries[point - 8])
        ]
        assert done == bool(numbers)
        if done:
            assert torch.equal(both[0], both[1])
            assert int(crystal.backward_mask(both[0]).sum()) == 2
            allowed = crystal.forward_mask(both[0])[0].nonzero()[:, 0] - 13
            assert [GROUPS[i] for i in allowed.tolist()] == numbers


def test_structures_have_the_cell_the_atoms_and_the_symmetry_of_their_state() -> None:
    states = samples()[:80]
    made = space().decode(states)
    assert sum(isinstance(structure, Exception) for structure in made) < 24
    for structure, key in zip(made, space().keys(states), strict=True):
        if isinstance(structure, Exception):
            assert str(structure).startswith(key)
            continue
        atoms, number, lengths, angles = parts_of(key)
        assert structure.lattice.parameters == pytest.approx((*lengths, *angles))
        assert structure.properties == {"space_group": number, "key": key}
        assert structure.composition.get_el_amt_dict() == atoms
        # The structure may be more symmetric than asked for, never less.
        found = SpacegroupAnalyzer(structure, symprec=1e-3).get_symmetry_dataset()
        asked = space_group(number)
        assert len(found.rotations) >= asked.point_group_order * asked.lattice_points
        symbols = [site.specie.symbol for site in structure]
        for i, j, distance in zip(
            *(part for k, part in enumerate(structure.get_neighbor_list(2.5)) if k != 2),
            strict=True,
        ):
            assert distance >= TOLERANCES.get_tol(symbols[i], symbols[j]) - 1e-6, key


def test_a_key_has_one_structure() -> None:
    states = samples()[:5]
    for one, other in zip(
        space().decode(states), space().decode(states.flip(0))[::-1], strict=True
    ):
        assert isinstance(one, Exception) or one == other


def test_atoms_without_room_are_an_answer_not_a_crash() -> None:
    crowded = Crystal(
        ["K", "Cl"], [225], n_atoms=(8, 8), lengths=(2.0, 3.0), volume_per_atom=(1.0, 3.0)
    )
    made = crowded.decode(Random(crowded).sample(3, seed=0))
    assert all(isinstance(answer, Exception) for answer in made)
    assert "no room" in str(made[0])


def test_keys_do_not_depend_on_the_order_of_options() -> None:
    other = Crystal(
        ELEMENTS[::-1],
        GROUPS[::-1],
        n_elements=(1, 3),
        n_atoms=(2, 12),
        n_atoms_per_element=(1, 8),
        lengths=(2.5, 15.0),
        angles=(60.0, 120.0),
        volume_per_atom=(6.0, 40.0),
    )
    keys = space().keys(samples()[:50])
    assert other.keys(other.from_keys(keys)) == keys
    assert keys[0].count(" | ") == 3


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("Mg4 O4", "expected text such as"),
        ("Mg4 Mg4 | 225 | 5 5 5 | 90 90 90", "expected text such as"),
        ("Mg4 O4 | 225 | 5 5 x | 90 90 90", "expected text such as"),
        ("Mg4 Fe4 | 225 | 4 4 4 | 90 90 90", "element Fe"),
        ("Mg4 O4 | 227 | 4 4 4 | 90 90 90", "space group 227"),
        ("Mg4 O9 | 225 | 4 4 4 | 90 90 90", "n_atoms_per_element: O: 9"),
        ("Mg8 O8 | 225 | 4 4 4 | 90 90 90", "n_atoms: 16"),
        ("Mg4 O5 | 225 | 4 4 4 | 90 90 90", "fills no Wyckoff sites of space group Fm-3m"),
        ("Mg2 O4 | 2 | 4 4 4 | 90 90 90", "not neutral with oxidation states Mg \\+2, O -2"),
        ("Mg4 O4 | 225 | 4 4 15.0 | 90 90 90", "c"),
        ("Mg4 O4 | 225 | 16 16 16 | 90 90 90", "2.5"),
        (
            "Mg4 O4 | 225 | 2.5 2.5 2.5 | 90 90 90",
            "volume is 15.625 Å³, expected .* 6 to 40 Å³ an atom",
        ),
    ],
)
def test_keys_outside_the_space_say_why(key: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        space().from_keys([key])


def test_no_more_atoms_of_an_element_than_of_all() -> None:
    few, many = (tiny(n_atoms_per_element=(1, most)) for most in (8, 400))
    assert few.n_actions == many.n_actions
    states = Random(few).sample(50, seed=0)
    assert few.keys(states) == many.keys(many.from_keys(few.keys(states)))


def test_every_element_is_described_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        elements = [Element.from_Z(z) for z in range(1, 95)]
        assert np.isfinite(property_table(elements)).all()
        assert np.isfinite(atomic_volumes(elements)).all()
        assert len({element.symbol for element in elements if oxidation_states(element)}) == 90


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"elements": []}, "elements"),
        ({"elements": ["Mg", "Xx"]}, "'Xx' is not the symbol"),
        ({"elements": ["Mg", "Mg"]}, "repeated"),
        ({"elements": ["He", "Ar", "O"]}, "Ar, He: no oxidation state"),
        ({"elements": ["Am", "O"]}, "Am: elements up to Pu"),
        ({"elements": "MgO"}, "elements: expected a list"),
        ({"elements": ["Mg", "D", "O"]}, "'D' is an isotope"),
        ({"space_groups": [0]}, "1 to 230"),
        *(
            ({"space_groups": groups}, "space_groups: expected a list of numbers from 1 to 230")
            for groups in (225, ["Fm-3m"], [225.0], "1-16", [], [True], [231])
        ),
        *(
            ({"n_elements": pair}, "n_elements: expected two whole numbers")
            for pair in (5, [1.5, 2], [1.0, 2.0], [1], [True, 2], "12", None)
        ),
        ({"n_atoms": [1, 8.5]}, r"n_atoms: expected two whole .*, got \[1, 8.5\]"),
        ({"n_atoms": "8"}, "n_atoms: expected two whole .*, got '8'"),
        ({"n_atoms_per_element": (1, 100_000)}, "n_atoms_per_element: expected at most 400"),
        ({"volume_per_atom": 10}, r"volume_per_atom: expected \[low, high\].*, got 10"),
        ({"volume_per_atom": [7]}, r"volume_per_atom: expected \[low, high\].*, got \[7\]"),
        ({"volume_per_atom": [1, math.inf]}, "volume_per_atom: expected"),
        ({"positions": "Wyckoff"}, "positions: expected one of none, wyckoff, got 'Wyckoff'"),
        ({"positions": True}, "positions: expected one of none, wyckoff, got True"),
        *(({key: "yes"}, f"{key}: expected true or false, got 'yes'") for key in FLAGS),
        *(
            ({"min_distance": given}, "min_distance: expected a number of 0 or more, got")
            for given in (-1, math.nan, "a", True, None)
        ),
        ({"lengths": "19"}, r"lengths: expected \[low, high\] in Å, got '19'"),
        ({"angles": [60]}, r"angles: expected \[low, high\] in degrees, got \[60\]"),
        ({"lengths": {"a": "19", "b": [1, 9], "c": [1, 9]}}, "lengths: a: expected"),
        ({"order": "lattice"}, "order: expected"),
        ({"order": 3}, "order: expected"),
        ({"space_groups": [225, 225]}, "space_groups"),
        ({"n_elements": (2, 1)}, "n_elements"),
        ({"n_elements": (4, 5)}, "n_elements"),
        ({"n_atoms": (0, 3)}, "n_atoms"),
        ({"lengths": (5.0, 4.0)}, "lengths"),
        ({"angles": (60.0, 180.0)}, "angles"),
        ({"volume_per_atom": (-1.0, 5.0)}, "volume_per_atom"),
        ({"order": ["lattice", "space_group", "composition"]}, "lattice comes after"),
        ({"order": ["space_group"]}, "order"),
        ({"order": ["space_group", "lattice", "composition"]}, "volume_per_atom"),
        ({"n_elements": (1, 1)}, "no crystal is possible"),
        ({"elements": ["Mg", "Ti"]}, "no crystal is possible.*neutral"),
        ({"space_groups": [227], "n_atoms": (2, 7)}, "no crystal is possible.*sites"),
        ({"volume_per_atom": (500.0, 501.0)}, "no crystal is possible"),
        ({"space_groups": [194], "angles": (60.0, 110.0)}, "120"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        tiny(**options)
    assert "\n" not in str(caught.value)


def test_a_polar_class_is_not_offered_where_no_group_of_it_is_possible() -> None:
    """Each narrows the others, and the composition's rules narrow them all."""
    crystal = tiny(n_elements=(1, 2), elements=["Mg", "O"], space_groups=[2, 227], n_atoms=(2, 7))
    mask = crystal.forward_mask(crystal.initial_states(1))[0]
    assert mask.nonzero()[:, 0].tolist() == [0, 8]  # triclinic, centrosymmetric


def test_all_elements_and_all_space_groups() -> None:
    symbols = [Element.from_Z(z).symbol for z in range(1, 95)]
    wide = Crystal([s for s in symbols if s not in ("He", "Ne", "Ar", "Rn")], n_elements=(1, 3))
    states = Random(wide).sample(500, seed=0)
    assert torch.equal(wide.from_keys(wide.keys(states)), states)
    assert len({key.split(" | ")[1] for key in wide.keys(states)}) > 100
    for key in wide.keys(states)[:100]:
        atoms, number, *_ = parts_of(key)
        assert group(number).check_compatible(list(atoms.values()))[0], key

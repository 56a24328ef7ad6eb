"""The crystal space: its masks hold exactly what chemistry, symmetry and volume allow."""

import itertools
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core.composition import Composition
from pymatgen.core.lattice import Lattice
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from pyxtal.symmetry import Group
from pyxtal.tolerance import Tol_matrix

from sampler.baselines import Random
from sampler.environments.crystal import Crystal
from sampler.environments.crystal_composition import is_neutral
from sampler.environments.crystal_lattice import FREE_SLOTS, MIN_VOLUME_FACTOR
from sampler.environments.crystal_placement import choose_sites, wyckoff_sites
from sampler.environments.crystal_symmetry import (
    SYSTEMS,
    compatible_counts,
    is_compatible,
    space_group,
)
from sampler.environments.make_wyckoff_table import row
from sampler.exact import terminal_distribution

ELEMENTS = ["Li", "Na", "Mg", "Al", "Si", "O", "F", "S", "Cl", "K", "Ca", "Ti"]
TOLERANCES = Tol_matrix(prototype="atomic")
GROUPS = [1, 2, 5, 12, 14, 15, 19, 62, 72, 88, 129, 136, 141, 148, 166, 186, 194, 216, 221, 225]


@cache
def space() -> Crystal:
    return Crystal(ELEMENTS, GROUPS, n_bins=16)


@cache
def samples() -> torch.Tensor:
    return Random(space()).sample(400, seed=7)


@cache
def group(number: int) -> Group:
    return Group(number)


def tiny(**options: Any) -> Crystal:
    defaults: dict[str, Any] = {
        "elements": ["Mg", "Ti", "O"],
        "space_groups": [2, 14, 62, 194, 225],
        "n_atoms": (2, 8),
        "n_atoms_per_element": (1, 4),
        "n_bins": 3,
        "lengths": (2.5, 8.0),
        "angles": (50.0, 125.0),
        # Off the volumes that the bins can make, so that rounding cannot decide.
        "volume_per_atom": (8.1, 19.7),
    }
    return Crystal(**{**defaults, **options})


def volume(lengths: list[float], angles: list[float]) -> float:
    x, y, z = (math.cos(math.radians(angle)) for angle in angles)
    return math.prod(lengths) * math.sqrt(max(0.0, 1 - x * x - y * y - z * z + 2 * x * y * z))


def all_crystals_by_hand(crystal: Crystal) -> set[tuple[int, str, tuple[int, ...]]]:
    """Every (space group, atoms, bins) that the rules allow, by trying them all."""
    found = set()
    lengths = crystal.grid.lengths.tolist()
    angles = crystal.grid.angles.tolist()
    low, high = crystal.grid.options.volume_per_atom
    symbols = [element.symbol for element in crystal.elements]
    for number in [g.number for g in crystal.space_groups]:
        system = SYSTEMS[space_group(number).system]
        cells = []
        for bins in itertools.product(range(3), repeat=len(FREE_SLOTS[system])):
            chosen = dict(zip(FREE_SLOTS[system], bins, strict=True))
            a = lengths[chosen[3]]
            cell = [a, lengths[chosen.get(4, chosen[3])], lengths[chosen.get(5, chosen[3])]]
            gamma = 120.0 if system == "hexagonal" else 90.0
            tilt = [angles[chosen[s]] if s in chosen else (90.0, 90.0, gamma)[s] for s in range(3)]
            if volume([1, 1, 1], tilt) >= MIN_VOLUME_FACTOR:
                cells.append((volume(cell, tilt), tuple(chosen.get(s, -1) + 1 for s in range(6))))
        for counts in itertools.product(range(5), repeat=3):
            n_atoms, present = sum(counts), [n for n in counts if n]
            if not 2 <= n_atoms <= 8:
                continue
            states = [
                Element(s).icsd_oxidation_states for s, n in zip(symbols, counts, strict=True) if n
            ]
            if all(np.dot(choice, present) != 0 for choice in itertools.product(*states)):
                continue
            if group(number).check_compatible(present)[0]:
                atoms = " ".join(f"{s}{n}" for s, n in zip(symbols, counts, strict=True) if n)
                found |= {(number, atoms, bins) for v, bins in cells if low <= v / n_atoms <= high}
    return found


def test_reachable_crystals_are_exactly_the_valid_ones() -> None:
    crystal = tiny()
    states, probabilities = terminal_distribution(Random(crystal), max_states=2_000_000)
    reached = set()
    for key, bins in zip(crystal.keys(states), states[:, 3:].tolist(), strict=True):
        atoms, number, *_ = key.split(" | ")
        reached.add((int(number), atoms, tuple(bins)))
    expected = all_crystals_by_hand(crystal)
    assert len(expected) > 1000
    assert {number for number, *_ in expected} == {2, 14, 62, 194, 225}
    assert reached == expected
    assert len(reached) == len(states)
    assert float(probabilities.sum()) == pytest.approx(1)


def test_wyckoff_programme_agrees_with_pyxtal() -> None:
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(500):
        number = int(rng.integers(1, 231))
        counts = rng.integers(1, 9, size=rng.integers(1, 4)).tolist()
        expected = bool(group(number).check_compatible(counts)[0])
        assert is_compatible(space_group(number), counts) == expected, (number, counts)
        answers.append(expected)
    assert 0.1 < np.mean(answers) < 0.9


def test_wyckoff_programme_agrees_with_pyxtal_where_fixed_sites_run_out() -> None:
    for number in (2, 47, 123, 221, 225):
        for counts in itertools.combinations_with_replacement([1, 2, 3, 4, 8], 3):
            expected = bool(group(number).check_compatible(list(counts))[0])
            assert is_compatible(space_group(number), counts) == expected, (number, counts)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 230), st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_compatibility_does_not_depend_on_the_order_of_elements(
    number: int, counts: list[int]
) -> None:
    orders = np.array(list(itertools.permutations(counts)))
    answers = compatible_counts(space_group(number), orders)
    assert len(set(answers.tolist())) == 1
    assert bool(answers[0]) == is_compatible(space_group(number), counts)


@pytest.mark.parametrize("number", [1, 47, 70, 148, 166, 194, 216, 227, 230])
def test_shipped_table_is_what_its_script_makes(number: int) -> None:
    made, shipped = row(number), space_group(number)
    assert (made["symbol"], made["lattice_points"]) == (shipped.symbol, shipped.lattice_points)
    assert made["point_group_order"] == shipped.point_group_order
    assert made["has_inversion"] == shipped.has_inversion
    assert tuple(made["free"]) == shipped.free
    assert {int(m): n for m, n in made["fixed"].items()} == dict(shipped.fixed)


def test_point_groups_and_systems() -> None:
    numbers = (1, 2, 3, 15, 16, 74, 75, 142, 143, 194, 195, 230)
    assert [space_group(n).system for n in numbers] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [space_group(n).point_group_order for n in (1, 14, 62, 166, 194, 225)] == [
        *(1, 4, 8, 12, 24, 48)
    ]
    # The 92 centrosymmetric space groups (International Tables A, table 2.1.2).
    assert sum(space_group(n).has_inversion for n in range(1, 231)) == 92


def test_neutrality_needs_one_non_zero_state_an_element() -> None:
    counts = np.array([[1, 1], [1, 2], [2, 3], [2, 1]])
    titanium_oxygen = [(2, 3, 4), (-2,)]
    assert is_neutral(counts, titanium_oxygen).tolist() == [True, True, True, False]
    assert not is_neutral(np.array([[16]]), [(2, 3, 4, 7)]).any()
    # Ti4O7 would need Ti in two states at once.
    assert not is_neutral(np.array([[4, 7]]), titanium_oxygen).any()


def test_samples_are_neutral_by_pymatgen() -> None:
    formulas = {row["formula"] for row in space().describe(samples())}
    assert len(formulas) > 50
    for formula in sorted(formulas)[:60]:
        assert Composition(formula).oxi_state_guesses(), formula


def test_samples_fit_their_space_group_and_volume_window() -> None:
    low, high = space().grid.options.volume_per_atom
    for row_, key in zip(space().describe(samples()), space().keys(samples()), strict=True):
        atoms, number, lengths, angles = key.split(" | ")
        counts = [int("".join(filter(str.isdigit, word))) for word in atoms.split()]
        assert group(int(number)).check_compatible(counts)[0], key
        cell = volume([float(x) for x in lengths.split()], [float(x) for x in angles.split()])
        assert row_["volume_per_atom"] == pytest.approx(cell / sum(counts), rel=1e-3)
        assert low * (1 - 1e-6) <= row_["volume_per_atom"] <= high * (1 + 1e-6)


def test_structures_have_the_cell_the_atoms_and_the_symmetry_of_their_state() -> None:
    states = samples()[:80]
    keys = space().keys(states)
    made = space().decode(states)
    assert sum(isinstance(structure, Exception) for structure in made) < 20
    lattices = space().grid.parameters(space()._system(states), states[:, 3:])
    for structure, key, lattice in zip(made, keys, lattices.tolist(), strict=True):
        if isinstance(structure, Exception):
            assert str(structure).startswith(key)
            continue
        assert structure.lattice.parameters == pytest.approx(tuple(lattice))
        assert structure.properties == {"space_group": int(key.split(" | ")[1]), "key": key}
        atoms = Composition(key.split(" | ")[0]).get_el_amt_dict()
        assert structure.composition.get_el_amt_dict() == atoms
        # The structure may be more symmetric than asked for, never less.
        found = SpacegroupAnalyzer(structure, symprec=1e-3).get_symmetry_dataset()
        asked = space_group(structure.properties["space_group"])
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
        ["K", "Cl"], [225], n_atoms=(8, 8), lengths=(2.0, 3.0), n_bins=8, volume_per_atom=(1.0, 3.0)
    )
    made = crowded.decode(Random(crowded).sample(3, seed=0))
    assert all(isinstance(answer, Exception) for answer in made)
    assert "no room" in str(made[0])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 230),
    st.dictionaries(st.sampled_from(ELEMENTS), st.integers(1, 12), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_chosen_sites_hold_the_atoms_and_none_is_taken_twice(
    number: int, counts: dict[str, int], seed: int
) -> None:
    if not is_compatible(space_group(number), list(counts.values())):
        return
    chosen = choose_sites(space_group(number), counts, np.random.default_rng(seed))
    for symbol, count in counts.items():
        assert sum(site.multiplicity for s, site in chosen if s == symbol) == count
    fixed = [site.letter for _, site in chosen if not site.is_free]
    assert len(set(fixed)) == len(fixed)


def test_orbits_have_their_multiplicity() -> None:
    for number in (14, 62, 148, 194, 227):
        for site in wyckoff_sites(number):
            point = np.array([0.1234, 0.3217, 0.4571, 1.0])
            orbit = np.mod(site.operations @ point, 1).round(6) % 1
            assert len(np.unique(orbit, axis=0)) == site.multiplicity


def test_keys_do_not_depend_on_the_order_of_options() -> None:
    other = Crystal(ELEMENTS[::-1], GROUPS[::-1], n_bins=16)
    keys = space().keys(samples()[:50])
    assert other.keys(other.from_keys(keys)) == keys
    assert keys[0].count(" | ") == 3


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("Mg4 O4", "expected text such as"),
        ("Mg4 Mg4 | 225 | 5 5 5 | 90 90 90", "expected text such as"),
        ("Mg4 O4 | 225 | 5 5 x | 90 90 90", "expected text such as"),
        ("Mg4 Fe4 | 225 | 2.5 2.5 2.5 | 90 90 90", "element Fe"),
        ("Mg4 O4 | 227 | 2.5 2.5 2.5 | 90 90 90", "space group 227"),
        ("Mg4 O5 | 225 | 2.5 2.5 2.5 | 90 90 90", "Mg4 O5 with space group 225"),
        ("Mg2 O2 | 225 | 2.5 2.5 2.5 | 90 90 90", "Mg2 O2 with space group 225"),
        ("Mg4 O4 | 225 | 2.6 2.6 2.6 | 90 90 90", "a = 2.6 fits no cubic"),
        ("Mg4 O4 | 225 | 2.5 2.5 15.0 | 90 90 90", "c = 15 fits no cubic"),
        ("Mg4 O4 | 225 | 2.5 2.5 2.5 | 90 90 90", "volume an atom"),
    ],
)
def test_keys_outside_the_space_say_why(key: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        space().from_keys([key])


def test_a_crystal_from_elsewhere_is_analysed_and_snapped() -> None:
    rock_salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    for structure in (rock_salt, rock_salt.get_primitive_structure()):
        state = space().encode([structure])
        assert space().families(state) == ["MgO"]
        assert space().describe(state)[0]["space_group"] == "Fm-3m (225)"
        a = space().decode(state)[0].lattice.a
        assert abs(math.log(a / 4.21)) <= math.log(15 / 2.5) / 15 / 2


def test_a_crystal_outside_the_space_is_refused() -> None:
    iron = Structure.from_spacegroup("Im-3m", Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])
    with pytest.raises(ValueError, match="space group 229"):
        space().encode([iron])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"elements": []}, "elements"),
        ({"elements": ["Mg", "Xx"]}, "'Xx' is not the symbol"),
        ({"elements": ["Mg", "Mg"]}, "repeated"),
        ({"elements": ["He", "O"]}, "He"),
        ({"space_groups": [0]}, "1 to 230"),
        ({"space_groups": [225, 225]}, "space_groups"),
        ({"n_elements": (2, 1)}, "n_elements"),
        ({"n_elements": (4, 5)}, "n_elements"),
        ({"n_atoms": (0, 3)}, "n_atoms"),
        ({"n_bins": 1}, "n_bins"),
        ({"n_bins": 100, "angles": (90.0, 91.0)}, "n_bins"),
        ({"lengths": (5.0, 5.0)}, "lengths"),
        ({"angles": (60.0, 180.0)}, "angles"),
        ({"volume_per_atom": (-1.0, 5.0)}, "volume_per_atom"),
        ({"n_elements": (1, 1)}, "no crystal satisfies"),
        ({"elements": ["Mg", "Ti"]}, "no crystal satisfies"),
        ({"space_groups": [227], "n_atoms": (2, 7)}, "no crystal satisfies"),
        ({"volume_per_atom": (500.0, 501.0)}, "no crystal satisfies"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        tiny(**options)
    assert "\n" not in str(caught.value)


def test_pure_elements_come_back_without_charges() -> None:
    metals = tiny(elements=["Mg", "Ti"], charge_neutral=False)
    formulas = {row["formula"] for row in metals.describe(Random(metals).sample(200, seed=0))}
    assert {"Mg", "Ti"} <= formulas


def test_more_than_64_space_groups() -> None:
    wide = Crystal(["Mg", "O"], list(range(1, 231)), n_atoms=(2, 8), n_bins=6)
    states = Random(wide).sample(500, seed=0)
    assert torch.equal(wide.from_keys(wide.keys(states)), states)
    for key in wide.keys(states)[:100]:
        atoms, number, *_ = key.split(" | ")
        counts = [int(word.lstrip("MgO")) for word in atoms.split()]
        assert group(int(number)).check_compatible(counts)[0], key

"""The crystal space: its keys, its structures, and how its parts narrow each other."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from pymatgen.core.periodic_table import Element
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from pyxtal.tolerance import Tol_matrix

from sampler.baselines import Random
from sampler.environments.crystal import Crystal
from sampler.environments.crystal_classes import crystal_lattice_system, point_symmetry
from sampler.environments.crystal_elements import (
    atomic_volumes,
    oxidation_states,
    property_table,
)
from sampler.environments.crystal_symmetry import space_group
from tests.sampler.crystal_spaces import (
    ELEMENTS,
    GROUPS,
    crystal_of,
    parts_of,
    samples,
    space,
    tiny,
)

TOLERANCES = Tol_matrix(prototype="atomic")


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
    other = crystal_of(ELEMENTS[::-1], GROUPS[::-1])
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


def test_a_polar_class_is_not_offered_where_no_group_of_it_is_possible() -> None:
    """Each narrows the others, and the composition's rules narrow them all."""
    crystal = tiny(n_elements=(1, 2), elements=["Mg", "O"], space_groups=[2, 227], n_atoms=(2, 7))
    mask = crystal.forward_mask(crystal.initial_states(1))[0]
    assert mask.nonzero()[:, 0].tolist() == [0, 8]  # triclinic, centrosymmetric

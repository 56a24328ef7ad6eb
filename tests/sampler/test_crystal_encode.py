"""Structures from elsewhere: which crystal each is, and what is said of those that are none."""

import math
from functools import cache
from typing import Any

import pytest
import torch
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from sampler.environments.crystal import Crystal
from tests.crystals import from_spacegroup
from tests.sampler.crystal_wishes import read


@cache
def known_crystals() -> dict[str, tuple[Structure, int]]:
    """Well-known structure types with measured cells (Å)."""
    make = from_spacegroup
    third = 1 / 3
    return {
        "rock salt": (
            make("Fm-3m", Lattice.cubic(4.212), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
            225,
        ),
        "fluorite": (
            make("Fm-3m", Lattice.cubic(5.463), ["Ca", "F"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
            225,
        ),
        "perovskite": (
            make(
                "Pm-3m",
                Lattice.cubic(3.905),
                ["Sr", "Ti", "O"],
                [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]],
            ),
            221,
        ),
        "spinel": (
            make(
                "Fd-3m",
                Lattice.cubic(8.083),
                ["Mg", "Al", "O"],
                [[0, 0, 0], [0.625, 0.625, 0.625], [0.3876, 0.3876, 0.3876]],  # origin at -43m
            ),
            227,
        ),
        "wurtzite": (
            make(
                "P6_3mc",
                Lattice.hexagonal(3.25, 5.207),
                ["Zn", "O"],
                [[third, 2 * third, 0], [third, 2 * third, 0.3817]],
            ),
            186,
        ),
        "rutile": (
            make(
                "P4_2/mnm",
                Lattice.tetragonal(4.594, 2.959),
                ["Ti", "O"],
                [[0, 0, 0], [0.3053, 0.3053, 0]],
            ),
            136,
        ),
        "zinc blende": (
            make("F-43m", Lattice.cubic(5.41), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
            216,
        ),
        "corundum": (
            make(
                "R-3c",
                Lattice.hexagonal(4.759, 12.991),
                ["Al", "O"],
                [[0, 0, 0.3522], [0.3064, 0, 0.25]],
            ),
            167,
        ),
    }


@pytest.mark.parametrize("name", sorted(known_crystals()))
def test_well_known_crystals_come_back(name: str) -> None:
    structure, number = known_crystals()[name]
    wide = everything()
    for given in (structure, structure.get_primitive_structure()):
        state = wide.encode([given])
        atoms, found, lengths, angles = read(wide.keys(state)[0])
        assert found == number
        assert atoms == structure.composition.get_el_amt_dict()
        assert (*lengths, *angles) == pytest.approx(structure.lattice.parameters, abs=2e-3)
        made = wide.decode(state)[0]
        assert torch.equal(wide.encode([made]), state)


@cache
def everything() -> Crystal:
    return Crystal(
        ["Mg", "O", "Ca", "F", "Sr", "Ti", "Al", "Zn", "S"], n_elements=(1, 3), n_atoms=(1, 56),
        n_atoms_per_element=(1, 32), lengths=(2.0, 20.0),
    )  # fmt: skip


def test_charges_and_spins_do_not_change_the_crystal() -> None:
    """Sites of one element are equal, whatever they are labelled with."""
    magnetite = from_spacegroup(
        "Fd-3m",
        Lattice.cubic(8.396),
        ["Fe", "Fe", "O"],
        [[0, 0, 0], [0.625, 0.625, 0.625], [0.3799, 0.3799, 0.3799]],
    )
    rock_salt, _ = known_crystals()["rock salt"]
    spins = [5 * (-1) ** round(2 * z) for _, _, z in rock_salt.frac_coords]
    labelled = {
        227: (magnetite, {"oxidation_states": [2 + n % 2 for n in range(24)] + [-2] * 32}),
        225: (rock_salt, {"oxidation_states": [2] * 4 + [-2] * 4, "spins": spins}),
    }
    for number, (structure, labels) in labelled.items():
        decorated = structure.copy()
        decorated.add_oxidation_state_by_site(labels["oxidation_states"])
        if "spins" in labels:
            decorated.add_spin_by_site(labels["spins"])
        assert SpacegroupAnalyzer(decorated).get_space_group_number() != number
        for crystal in (oxides("none"), oxides("wyckoff")):
            states = crystal.encode([structure, decorated])
            assert torch.equal(states[0], states[1])
            assert read(crystal.keys(states)[0])[1] == number


@cache
def oxides(positions: Any) -> Crystal:
    return Crystal(
        ["Mg", "O", "Fe"], n_elements=(1, 2), n_atoms=(1, 56), n_atoms_per_element=(1, 32),
        mixed_valence=True, space_groups=[221, 225, 227], positions=positions,
    )  # fmt: skip


def with_properties(structure: Structure, **properties: Any) -> Structure:
    marked = structure.copy()
    marked.properties = properties
    return marked


def test_a_space_group_is_trusted_only_beside_our_key() -> None:
    rock_salt, _ = known_crystals()["rock salt"]
    key = everything().keys(everything().encode([rock_salt]))
    for number in (221, "Fm-3m", {"number": 221}, None):
        marked = with_properties(rock_salt, space_group=number)
        for crystal in (oxides("none"), oxides("wyckoff")):
            state = crystal.encode([marked])
            assert torch.equal(state, crystal.encode([rock_salt]))
            assert read(crystal.keys(state)[0])[1] == 225
    for number in ("Fm-3m", {"number": 225}, 231, None):
        marked = with_properties(rock_salt, space_group=number, key=key[0])
        with pytest.raises(ValueError, match=r"Mg4 O4 is not in this space: .*'space_group'"):
            everything().encode([marked])


def unreadable_structures() -> dict[str, tuple[Structure, str]]:
    cell = Lattice.cubic(4)
    corner, centre = [0, 0, 0], [0.5, 0.5, 0.5]
    return {
        "dummy": (Structure(cell, ["X", "O"], [corner, centre]), "X1 O1 .* the dummy species X"),
        "empty": (Structure(cell, [], []), "an empty structure .* at least one atom"),
        "disordered": (Structure(cell, [{"Mg": 0.5}], [corner]), "Mg0.5 .* a disordered"),
        "overlap": (
            Structure(cell, ["Mg", "O", "Mg"], [corner, centre, [0, 0, 1e-3]]),
            r"Mg2 O1 .* got Mg \(atom 0\) and Mg \(atom 2\) 0.004 Å",
        ),
        "nowhere": (Structure(cell, ["Mg"], [[0, 0, math.nan]]), "Mg1 .* finite coordinates"),
        "flat": (
            Structure(Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), ["Mg"], [corner]),
            "Mg1 .* a cell with a volume",
        ),
    }


@pytest.mark.parametrize("name", sorted(unreadable_structures()))
def test_structures_that_are_no_crystals_are_named(name: str) -> None:
    structure, reason = unreadable_structures()[name]
    for crystal in (oxides("none"), oxides("wyckoff")):
        with pytest.raises(ValueError, match=reason) as caught:
            crystal.encode([structure])
        assert "\n" not in str(caught.value)
        assert "is not in this space: " in str(caught.value)


def test_atoms_that_moved_since_decode_are_named() -> None:
    rock_salt, _ = known_crystals()["rock salt"]
    made = oxides("wyckoff").decode(oxides("wyckoff").encode([rock_salt]))[0]
    made.translate_sites([0], [0.1, 0, 0])
    with pytest.raises(ValueError, match="Mg4 O4 is not in this space: expected an atom at"):
        oxides("wyckoff").encode([made])


def test_a_crystal_outside_the_space_is_refused() -> None:
    iron = from_spacegroup("Im-3m", Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])
    with pytest.raises(ValueError, match="Fe2 is not in this space: element Fe is not among"):
        everything().encode([iron])
    with pytest.raises(ValueError, match="expected a pymatgen Structure, got str"):
        everything().encode(["iron"])

"""Well-known crystals through a space with positions: state, key and back are the same crystal."""

from functools import cache

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from sampler.environments.crystal import Crystal
from tests.crystals import from_spacegroup

ELEMENTS = ["Mg", "O", "Ca", "F", "Sr", "Ti", "Al", "Zn", "S"]
ELEMENTS += ["Na", "Cl", "Cs", "Si", "Fe", "Zr", "C", "Ni", "As", "Mn"]
THIRD = 1 / 3
MATCHER = StructureMatcher(ltol=1e-3, stol=2e-3, angle_tol=0.05, scale=False)


def make(symbol: str, lattice: Lattice, sites: dict[str, list[float]]) -> Structure:
    """From the symbol of a space group and one atom an orbit, by pymatgen's own operations."""
    elements = [name.split()[0] for name in sites]
    return from_spacegroup(symbol, lattice, elements, list(sites.values()))


def hexagonal(a: float, c: float) -> Lattice:
    return Lattice.hexagonal(a, c)


def cubic(a: float) -> Lattice:
    return Lattice.cubic(a)


CORNER, CENTRE = [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]
KNOWN: dict[str, tuple[int, Structure]] = {
    "rock salt": (225, make("Fm-3m", cubic(4.212), {"Mg": CORNER, "O": CENTRE})),
    "fluorite": (225, make("Fm-3m", cubic(5.463), {"Ca": CORNER, "F": [0.25] * 3})),
    "caesium chloride": (221, make("Pm-3m", cubic(4.123), {"Cs": CORNER, "Cl": CENTRE})),
    "perovskite": (
        221,
        make("Pm-3m", cubic(3.905), {"Sr": CENTRE, "Ti": CORNER, "O": [0.5, 0.0, 0.0]}),
    ),
    "zinc blende": (216, make("F-43m", cubic(5.41), {"Zn": CORNER, "S": [0.25] * 3})),
    "spinel": (  # origin at -43m
        227,
        make("Fd-3m", cubic(8.083), {"Mg": CORNER, "Al": [0.625] * 3, "O": [0.3876] * 3}),
    ),
    "diamond": (227, make("Fd-3m", cubic(5.431), {"Si": CORNER})),
    "pyrite": (205, make("Pa-3", cubic(5.418), {"Fe": CORNER, "S": [0.385] * 3})),
    "body-centred iron": (229, make("Im-3m", cubic(2.866), {"Fe": CORNER})),
    "bixbyite": (
        206,
        make(
            "Ia-3",
            cubic(9.416),
            {"Mn": [0.25] * 3, "Mn 2": [0.4715, 0.0, 0.25], "O": [0.145, 0.379, 0.128]},
        ),
    ),
    "wurtzite": (
        186,
        make(
            "P6_3mc",
            hexagonal(3.25, 5.207),
            {"Zn": [THIRD, 2 * THIRD, 0.0], "O": [THIRD, 2 * THIRD, 0.3817]},
        ),
    ),
    "magnesium": (
        194,
        make("P6_3/mmc", hexagonal(3.209, 5.211), {"Mg": [THIRD, 2 * THIRD, 0.25]}),
    ),
    "nickeline": (
        194,
        make("P6_3/mmc", hexagonal(3.619, 5.034), {"Ni": CORNER, "As": [THIRD, 2 * THIRD, 0.25]}),
    ),
    "corundum": (
        167,
        make("R-3c", hexagonal(4.759, 12.991), {"Al": [0, 0, 0.3522], "O": [0.3064, 0, 0.25]}),
    ),
    "calcite": (
        167,
        make(
            "R-3c",
            hexagonal(4.989, 17.062),
            {"Ca": CORNER, "C": [0, 0, 0.25], "O": [0.2568, 0, 0.25]},
        ),
    ),
    "quartz": (
        152,
        make(
            "P3_121",
            hexagonal(4.913, 5.405),
            {"Si": [0.4697, 0, THIRD], "O": [0.4135, 0.2669, 0.4524]},
        ),
    ),
    "rutile": (
        136,
        make(
            "P4_2/mnm",
            Lattice.tetragonal(4.594, 2.959),
            {"Ti": CORNER, "O": [0.3053, 0.3053, 0]},
        ),
    ),
    "forsterite": (
        62,
        make(
            "Pnma",
            Lattice.orthorhombic(10.19, 5.98, 4.755),
            {
                "Mg": CORNER,
                "Mg 2": [0.2774, 0.25, 0.9915],
                "Si": [0.0940, 0.25, 0.4262],
                "O": [0.0913, 0.25, 0.7658],
                "O 2": [0.4474, 0.25, 0.2215],
                "O 3": [0.1631, 0.0333, 0.2772],
            },
        ),
    ),
    "baddeleyite": (
        14,
        make(
            "P2_1/c",
            Lattice.monoclinic(5.15, 5.212, 5.317, 99.23),
            {
                "Zr": [0.2754, 0.0395, 0.2083],
                "O": [0.07, 0.3317, 0.3447],
                "O 2": [0.4496, 0.7569, 0.4792],
            },
        ),
    ),
}  # fmt: skip


@cache
def space() -> Crystal:
    return Crystal(
        ELEMENTS,
        sorted({number for number, _ in KNOWN.values()}),
        n_elements=(1, 3),
        n_atoms=(1, 80),
        n_atoms_per_element=(1, 48),
        lengths=(2.0, 20.0),
        charge_neutral=False,
        positions="wyckoff",
    )


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_crystal_comes_back_from_state_and_key(name: str) -> None:
    number, structure = KNOWN[name]
    for given in (structure, structure.get_primitive_structure()):
        state = space().encode([given])
        key = space().keys(state)[0]
        assert int(key.split(" | ")[1]) == number
        assert torch.equal(space().from_keys([key]), state)
        assert bool(space().is_terminal(state)[0])
        made = space().decode(state)[0]
        assert isinstance(made, Structure), made
        assert MATCHER.fit(made, structure)
        assert SpacegroupAnalyzer(made, symprec=0.01).get_space_group_number() == number
        assert torch.equal(space().encode([made]), state)


@pytest.mark.parametrize("name", ["spinel", "wurtzite", "forsterite", "baddeleyite"])
def test_a_known_crystal_has_one_trajectory_that_masks_allow(name: str) -> None:
    """Taken back step by step to the start, apart from the two orders of the symmetry classes."""
    states = space().encode([KNOWN[name][1]])
    n_steps = 0
    while bool((mask := space().backward_mask(states)).any()):
        n_back = int(mask.sum())
        assert n_back == (2 if float(states[0, 0]) == 0 and bool((states[0, 1:3] > 0).all())
                          and float(states[0, 3]) == 0 else 1)  # fmt: skip
        action = mask.int().argmax(dim=1)
        parents = space().step_back(states, action)
        assert bool(space().forward_mask(parents)[0, action])
        amounts = space().amounts_between(parents, action, states)
        assert torch.equal(space().step(parents, action, amounts), states)
        states, n_steps = parents, n_steps + 1
    assert torch.equal(states, space().initial_states(1))
    assert 8 <= n_steps <= space().max_steps


def test_a_moved_and_disturbed_cell_is_the_same_crystal() -> None:
    """A foreign setting: a supercell, another origin, coordinates off by less than tolerance."""
    structure = KNOWN["rutile"][1].copy()
    structure.make_supercell([[1, 1, 0], [-1, 1, 0], [0, 0, 2]])
    structure.translate_sites(list(range(len(structure))), [0.13, 0.07, 0.21])
    structure.perturb(1e-4)
    made = space().decode(space().encode([structure]))[0]
    assert StructureMatcher(scale=False, stol=1e-2).fit(made, KNOWN["rutile"][1])


def small() -> Crystal:
    return Crystal(["Mg", "O"], [62, 194], n_atoms=(1, 8), positions="wyckoff")


def test_what_is_not_in_the_space_is_said() -> None:
    gold = make("Fm-3m", cubic(4.078), {"Au": CORNER})
    with pytest.raises(ValueError, match="Au4 is not in this space: element Au is not among"):
        space().encode([gold])
    with pytest.raises(ValueError, match=r"space group 225 is not among space_groups"):
        small().encode([KNOWN["rock salt"][1]])
    with pytest.raises(ValueError, match="a = 30"):
        space().encode([make("Im-3m", cubic(30.0), {"Si": CORNER})])

"""Structures from Wyckoff sites and back: well-known crystals, random ones, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from pyxtal.tolerance import Tol_matrix

from sampler.environments.crystal_distances import tolerance
from sampler.environments.crystal_placement import PlacementError, wyckoff_sites
from sampler.environments.crystal_sites import WyckoffSites
from sampler.environments.crystal_structures import (
    OtherSymmetryError,
    SitedCrystal,
    TooCloseError,
    build,
    read_structure,
)
from sampler.environments.crystal_symmetry import space_group
from sampler.environments.make_wyckoff_table import radii

Z = (0.0, 0.0, 0.0)


def cubic(a: float) -> tuple[float, ...]:
    return (a, a, a, 90, 90, 90)


def hexagonal(a: float, c: float) -> tuple[float, ...]:
    return (a, a, c, 90, 90, 120)


KNOWN: dict[str, SitedCrystal] = {
    "rock salt": SitedCrystal(225, cubic(5.64), (("Na", "a", Z), ("Cl", "b", Z))),
    "fluorite": SitedCrystal(225, cubic(5.46), (("Mg", "a", Z), ("F", "c", Z))),
    "perovskite": SitedCrystal(221, cubic(3.9), (("K", "b", Z), ("Mn", "a", Z), ("F", "d", Z))),
    "spinel": SitedCrystal(
        227, cubic(8.08), (("Mg", "a", Z), ("Al", "d", Z), ("O", "e", (0.2624, 0, 0)))
    ),
    "wurtzite": SitedCrystal(
        186, hexagonal(3.11, 4.98), (("Al", "b", Z), ("N", "b", (0, 0, 0.3821)))
    ),
    "rutile": SitedCrystal(
        136, (4.59, 4.59, 2.96, 90, 90, 90), (("Mn", "a", Z), ("O", "f", (0.3053, 0, 0)))
    ),
    "zinc blende": SitedCrystal(216, cubic(5.41), (("Cu", "a", Z), ("Cl", "c", Z))),
    "caesium chloride": SitedCrystal(221, cubic(3.2), (("Li", "a", Z), ("Cl", "b", Z))),
    "corundum": SitedCrystal(
        167, hexagonal(4.76, 12.99), (("Al", "c", (0, 0, 0.3522)), ("O", "e", (0.3063, 0, 0)))
    ),
    "diamond": SitedCrystal(227, cubic(3.57), (("C", "a", Z),)),
    "hexagonal close packing": SitedCrystal(194, hexagonal(3.21, 5.21), (("Mg", "c", Z),)),
    "P-1": SitedCrystal(
        2,
        (5.1, 6.3, 7.2, 80, 95, 103),
        (("Mn", "a", Z), ("O", "i", (0.12, 0.33, 0.71)), ("O", "i", (0.31, 0.76, 0.38))),
    ),
    "C2/c": SitedCrystal(
        15,
        (9.7, 8.9, 5.3, 90, 106, 90),
        (
            ("Mg", "e", (0, 0.9022, 0)),
            ("Mg", "e", (0, 0.2760, 0)),
            ("Si", "f", (0.2866, 0.0933, 0.2301)),
            ("O", "f", (0.1154, 0.0871, 0.1411)),
            ("O", "f", (0.3611, 0.2502, 0.3181)),
            ("O", "f", (0.3508, 0.0172, 0.9954)),
        ),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_reading_what_was_built_gives_the_same_sites(name: str) -> None:
    again = read_structure(build(KNOWN[name]))
    assert again.space_group == KNOWN[name].space_group
    assert again.sites == KNOWN[name].sites
    assert again.lattice == pytest.approx(KNOWN[name].lattice)


@pytest.mark.parametrize("name", KNOWN)
def test_foreign_cells_are_read_as_the_same_crystal(name: str) -> None:
    built = build(KNOWN[name])
    foreign = built.get_primitive_structure()
    foreign.properties = {}
    foreign.translate_sites(range(len(foreign)), [0.13, 0.27, 0.41])
    foreign.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    read = read_structure(foreign)
    assert read.space_group == built.properties["space_group"]
    assert read.counts == built.composition.get_el_amt_dict()
    rebuilt = build(read)
    assert StructureMatcher(primitive_cell=True, scale=False, stol=0.05).fit(rebuilt, built)
    assert read_structure(rebuilt) == read


def random_crystal(rng: np.random.Generator) -> SitedCrystal:
    number = int(rng.integers(1, 231))
    lattice = lattice_of(number, *rng.uniform(12, 16, 3).tolist())
    sites = []
    taken = set()
    for symbol in ("Li", "O", "F"):
        options = [
            s
            for s in wyckoff_sites(number)
            if s.multiplicity <= 48 and (s.is_free or s.letter not in taken)
        ]
        site = options[rng.integers(len(options))]
        taken.add(site.letter)
        used = np.abs(site.operations[0, :, :3]).sum(0) > 0
        x, y, z = np.where(used, np.rint(rng.random(3) * 9999) / 10_000, 0.0).tolist()
        sites.append((symbol, site.letter, (x, y, z)))
    return SitedCrystal(number, lattice, tuple(sites))


def test_walks_become_structures_and_structures_the_same_states_again() -> None:
    groups = [space_group(n) for n in (1, 2, 15, 62, 136, 148, 166, 167, 194, 221, 225)]
    sites = WyckoffSites(groups, max_count=12, n_elements=2, max_atoms=18)
    generator = torch.Generator().manual_seed(2)
    group = torch.arange(len(groups)).repeat_interleave(12)
    is_rhombohedral = torch.tensor([group.number in (148, 166, 167) for group in groups])[group]
    counts = torch.where(is_rhombohedral[:, None], torch.tensor([6, 12]), torch.tensor([4, 12]))
    columns = torch.zeros(len(group), sites.width, dtype=torch.float64)
    while (mask := sites.forward_mask(columns, group, counts)).any():
        rows = mask.any(1).nonzero()[:, 0]
        actions = torch.multinomial(mask[rows].float(), 1, generator=generator)[:, 0]
        part = (columns[rows], actions)
        low, high = sites.bounds(*part, group[rows], counts[rows])
        value = low + (high - low) * torch.rand(len(rows), generator=generator)
        columns[rows] = sites.step(*part, value, group[rows], counts[rows])
    symbols, n_same = ("Mn", "O"), 0
    for i, row in enumerate(sites.sites(columns, group, counts)):
        number = groups[int(group[i])].number
        placed = tuple((symbols[element], letter, point) for element, letter, point in row)
        try:
            structure = build(SitedCrystal(number, lattice_of(number, 11, 12, 13), placed))
        except PlacementError:
            continue
        read = read_structure(structure).sites
        again = [[(symbols.index(symbol), letter, point) for symbol, letter, point in read]]
        assert torch.equal(
            sites.columns_of(again, group[i : i + 1], counts[i : i + 1]), columns[i : i + 1]
        )
        n_same += 1
    assert n_same > 20


def lattice_of(number: int, a: float, b: float, c: float) -> tuple[float, ...]:
    """A lattice of the system of a space group."""
    lattices: list[tuple[int, tuple[float, ...]]] = [
        (2, (a, b, c, 81, 96, 104)),
        (15, (a, b, c, 90, 103, 90)),
        (74, (a, b, c, 90, 90, 90)),
        (142, (a, a, c, 90, 90, 90)),
        (194, (a, a, c, 90, 90, 120)),
        (230, (a, a, a, 90, 90, 90)),
    ]
    return next(lattice for last, lattice in lattices if number <= last)


def distances(structure: Structure) -> list[float]:
    """All distances up to 4 Å, in order."""
    found: list[float] = np.sort(structure.get_neighbor_list(4.0)[3]).tolist()
    return found


def test_random_crystals_survive_the_round_trip() -> None:
    rng = np.random.default_rng(5)
    built: list[tuple[SitedCrystal, Structure]] = []
    refused: list[type[PlacementError]] = []
    while len(built) < 40:
        crystal = random_crystal(rng)
        try:
            built.append((crystal, build(crystal)))
        except PlacementError as error:
            refused.append(type(error))
    assert {TooCloseError, OtherSymmetryError} == set(refused)
    for crystal, structure in built:
        assert read_structure(structure).sites == crystal.sites
        structure.properties = {}
        read = read_structure(structure)
        assert read.space_group == crystal.space_group
        assert read.counts == crystal.counts
        rebuilt = build(read)
        assert rebuilt.volume == pytest.approx(structure.volume, rel=1e-3)
        assert distances(rebuilt) == pytest.approx(distances(structure), abs=0.02)


def test_distances_agree_with_pymatgen() -> None:
    rng = np.random.default_rng(1)
    ratios: list[float] = []
    while len(ratios) < 30:
        crystal = random_crystal(rng)
        lattice = (*(x / 2 for x in crystal.lattice[:3]), *crystal.lattice[3:])
        small = SitedCrystal(crystal.space_group, lattice, crystal.sites)
        try:
            structure = build(small, min_distance=0)
        except OtherSymmetryError:
            continue
        symbols = [site.specie.symbol for site in structure]
        one, other, _, apart = structure.get_neighbor_list(1.4)
        pairs = zip(one.tolist(), other.tolist(), apart.tolist(), strict=True)
        near = [d / tolerance(symbols[i], symbols[j]) for i, j, d in pairs]
        ratios.append(min([1.0, *near]))
        build(small, min_distance=0.999 * ratios[-1])
        if ratios[-1] < 1:
            with pytest.raises(TooCloseError):
                build(small, min_distance=1.001 * ratios[-1])
    assert 5 < sum(ratio < 1 for ratio in ratios) < 30


def test_tolerances_are_those_of_pyxtal() -> None:
    theirs: Any = Tol_matrix(prototype="atomic")
    assert len(radii()) == 94
    for symbol, radius in radii().items():
        assert tolerance(symbol, symbol) == pytest.approx(radius)
    for one in ("H", "C", "Fe", "Pu"):
        for other in ("O", "Mn", "Cs"):
            assert tolerance(one, other) == pytest.approx(theirs.get_tol(one, other))
    with pytest.raises(ValueError, match="Am: expected an element up to Pu"):
        tolerance("Am", "O")


def test_refusals_say_which_check_failed() -> None:
    crowded = SitedCrystal(225, cubic(2.0), (("Na", "a", Z), ("Cl", "b", Z)))
    with pytest.raises(
        TooCloseError, match=r"atoms too close: .* are 1 Å apart, expected at least"
    ):
        build(crowded)
    assert len(build(crowded, min_distance=0.5)) == 8
    body_centred = SitedCrystal(221, cubic(3.0), (("Fe", "a", Z), ("Fe", "b", Z)))
    with pytest.raises(OtherSymmetryError, match="expected space group 221, spglib finds 229"):
        build(body_centred)
    coincident = SitedCrystal(225, cubic(9.0), (("Na", "e", Z),))
    with pytest.raises(TooCloseError, match="Na and Na are 0 Å apart"):
        build(coincident)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="site 'z': space group 2 has the positions a, b"):
        build(SitedCrystal(2, cubic(5), (("Na", "z", Z),)))
    shifted = build(KNOWN["rutile"])
    shifted.translate_sites([0], [0.1, 0, 0])
    with pytest.raises(ValueError, match=r"expected an atom at .* as space group 136 asks"):
        read_structure(shifted)
    with pytest.raises(ValueError, match="sites: expected at least one in space group 2"):
        build(SitedCrystal(2, cubic(5), ()))
    mixed = Structure(Lattice.cubic(4), [{"Fe": 0.5, "Co": 0.5}], [[0, 0, 0]])
    with pytest.raises(ValueError, match="expected whole atoms"):
        read_structure(mixed)

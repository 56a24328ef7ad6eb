"""Features of crystals against values computed by hand."""

import math

import pytest
import torch
from pymatgen.core.periodic_table import Element

from sampler import Random
from sampler.environments.crystal import Crystal
from sampler.environments.crystal_elements import valences
from sampler.environments.crystal_features import ionic_bonds

SYMBOLS = ["Ca", "Ti", "O", "F"]
ELEMENTS = [Element(symbol) for symbol in SYMBOLS]
CHI = torch.tensor([float(element.X) for element in ELEMENTS], dtype=torch.float64)


def bonds(**fractions: float) -> list[float]:
    row = torch.tensor([[fractions.get(s, 0.0) for s in SYMBOLS]], dtype=torch.float64)
    found: list[float] = ionic_bonds(row, CHI, torch.from_numpy(valences(ELEMENTS)))[0].tolist()
    return found


def test_fluorite_has_two_bonds_to_three_atoms() -> None:
    n, energy = bonds(Ca=1 / 3, F=2 / 3)
    assert n == pytest.approx(2 / 3)
    assert energy == pytest.approx(2 / 3 * (3.98 - 1.00) ** 2)


def test_an_anion_shares_its_bonds_by_the_cations_valences() -> None:
    """Perovskite CaTiO3: 6 bonds of 3 O, of which Ca (2) takes a third and Ti (4) the rest."""
    n, energy = bonds(Ca=0.2, Ti=0.2, O=0.6)
    assert n == pytest.approx(1.2)
    expected = 1.2 * ((3.44 - 1.00) ** 2 / 3 + 2 * (3.44 - 1.54) ** 2 / 3)
    assert energy == pytest.approx(expected)


def test_a_cation_has_no_more_bonds_than_its_valence() -> None:
    n, _ = bonds(Ca=0.1, F=0.9)
    assert n == pytest.approx(0.2)


def test_an_element_alone_has_none() -> None:
    assert bonds(O=1.0) == [0.0, 0.0]
    assert bonds(Ca=1.0) == [0.0, 0.0]


def space() -> Crystal:
    return Crystal(["Na", "Cl"], [2, 62, 166, 194, 225], n_atoms=(2, 16))


def features_of(key: str) -> list[float]:
    found: list[float] = space().features(space().from_keys([key]))[0].tolist()
    return found


def test_rock_salt_by_hand() -> None:
    found = features_of("Na4 Cl4 | 225 | 5.6400 5.6400 5.6400 | 90.00 90.00 90.00")
    na, cl = Element("Na"), Element("Cl")
    assert found[:2] == [0.5, 0.5]  # fractions
    assert found[2] == pytest.approx((na.X + cl.X) / 2 / 4)
    assert found[3] == pytest.approx((na.atomic_radius + cl.atomic_radius) / 2 / 2.6)
    assert found[7] == pytest.approx((cl.X - na.X) / 4)  # range of electronegativity
    assert found[12] == pytest.approx(2 * (cl.X - na.X) / 8)  # ionicity
    assert found[13] == pytest.approx(0.5 / 2)  # each atom has one bond, shared by two
    assert found[14] == pytest.approx(0.5 * (cl.X - na.X) ** 2 / 6)
    assert found[15] == pytest.approx(math.log(8) / 4)
    assert found[16] == pytest.approx(math.log10(5.64**3 / 8) - 0.5)
    spheres = sum(4 * 4 / 3 * math.pi * e.atomic_radius**3 for e in (na, cl))
    assert found[17] == pytest.approx(0.5 + math.log10(spheres / 5.64**3) / 2)
    assert found[18:23] == pytest.approx([0.5] * 5)  # equal axes, right angles
    assert found[23:29] == [0, 0, 0, 0, 0, 1]  # cubic
    assert found[29:] == pytest.approx([1.0, math.log(4) / 1.4, 1.0])


def test_a_hexagonal_cell_has_its_own_axes_and_angle() -> None:
    found = features_of("Na2 Cl2 | 194 | 4.0000 4.0000 6.0000 | 90.00 90.00 120.00")
    assert found[18:20] == pytest.approx([0.5, 0.5 + math.log(1.5) / 4])
    assert found[20:23] == pytest.approx([0.5, 0.5, 0.0])
    assert found[23:29] == [0, 0, 0, 0, 1, 0]


def test_features_of_absurd_cells_are_bent_and_still_differ() -> None:
    lengths = [0.9, 3.0, 30.0, 60.0, 99.0]
    rows = torch.tensor(
        [features_of(f"Na2 Cl2 | 194 | 5.0 5.0 {c:.4f} | 90.00 90.00 120.00") for c in lengths]
    )
    assert float(rows.min()) > -0.5
    assert float(rows.max()) < 1.5
    ratio = rows[:, 19]
    assert bool((ratio.diff() > 0).all())
    tiny = features_of("Na2 Cl2 | 2 | 0.9000 0.9000 0.9000 | 90.00 90.00 90.00")
    assert -0.5 < tiny[16] < 0  # 0.18 Å³ an atom
    assert 1 < tiny[17] < 1.5  # spheres fill the cell many times over


def test_a_whole_range_of_random_crystals_stays_bounded_and_finite() -> None:
    states = Random(space()).sample(500, seed=0)
    features = space().features(states)
    assert features.shape == (500, space().n_features)
    assert bool(features.isfinite().all())
    assert float(features.min()) >= -0.5
    assert float(features.max()) <= 1.5
    assert len(torch.unique(features, dim=0)) == len(torch.unique(states, dim=0))


def test_positions_add_features_within_the_unit_interval() -> None:
    crystal = Crystal(["Na", "Cl"], [62, 225], n_atoms=(2, 8), positions="wyckoff")
    bare = Crystal(["Na", "Cl"], [62, 225], n_atoms=(2, 8))
    states = Random(crystal).sample(100, seed=0)
    features = crystal.features(states)
    assert features.shape == (100, crystal.n_features)
    assert crystal.n_features > bare.n_features
    more = features[:, bare.n_features :]
    assert 0 <= float(more.min()) < float(more.max()) <= 1
    keys = [key.rsplit(" | ", 1)[0] for key in crystal.keys(states)]
    assert torch.equal(features[:, : bare.n_features], bare.features(bare.from_keys(keys)))


def test_densities_need_no_measure() -> None:
    """Those of lattice parameters refer to the cube of the free ones already."""
    assert space().log_measure(Random(space()).sample(20, seed=0)).tolist() == [0.0] * 20

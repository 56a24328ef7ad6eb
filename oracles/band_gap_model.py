"""The shipped model of band gaps from composition: its features, its networks, its file.

Named axes: n compositions, e elements of the table, p properties of an element, d features,
k networks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Reference = Literal["experiment", "pbe"]

FILE = "band_gap_model.npz"
REFERENCES: tuple[Reference, ...] = ("pbe", "experiment")
"""The outputs of each network, in order."""


@dataclass(frozen=True)
class Elements:
    """What the features are made of.

    `symbols` in order of atomic number; `table (e, p)`, properties standardised over the elements,
    the electronegativity first; `charges (e, 3)`, in units of e: the most positive and the most
    negative common one, and the least positive one that occurs (0 where there is none).
    """

    symbols: tuple[str, ...]
    table: Array
    charges: Array


@dataclass(frozen=True)
class GapModel:
    """An ensemble of small networks over features of a composition.

    `elements` are those that it knows; `layers` are weights `(k, in, out)` and biases `(k, out)`,
    with SiLU between them; `about` says how the model was made and how wrong it is.
    """

    elements: Elements
    layers: tuple[tuple[Array, Array], ...]
    about: Mapping[str, Any]
    digest: str

    def predict(self, fractions: Mapping[str, float]) -> tuple[Array, Array]:
        """Mean and standard deviation over the networks, eV, of the gaps `REFERENCES`, `(2,)`.

        `fractions` are atomic fractions by symbol. ValueError names an element that is not known.
        """
        symbols = self.elements.symbols
        unknown = sorted(set(fractions) - set(symbols))
        if unknown:
            raise ValueError(
                f"no band gaps were learned for {', '.join(unknown)}; known: "
                f"{symbols[0]} to {symbols[-1]}, in order of atomic number"
            )
        # One row at a time: what shares a call must not change the rounding of an answer.
        gaps = self.gaps(np.array([[fractions.get(symbol, 0.0) for symbol in symbols]]))[:, 0]
        return gaps.mean(axis=0), gaps.std(axis=0)

    def gaps(self, fractions: Array) -> Array:
        """What each network says of the gaps `REFERENCES` of compositions, eV, `(k, n, 2)`.

        `fractions` `(n, e)`: atomic fractions of `elements.symbols`. None is below 0.
        """
        values = features(fractions, self.elements)[None]
        for weights, biases in self.layers[:-1]:
            values = silu(values @ weights + biases[:, None])
        weights, biases = self.layers[-1]
        return np.maximum(values @ weights + biases[:, None], 0.0)


def silu(x: Array) -> Array:
    """Sigmoid-weighted x, x / (1 + exp(-x)), without overflow."""
    result: Array = 0.5 * x * (1.0 + np.tanh(0.5 * x))
    return result


def features(fractions: Array, elements: Elements) -> Array:
    """Features of compositions, atomic fractions `(n, e)`: `(n, 4 p + 9 + e)`.

    Of each property the mean, the mean absolute deviation from it, the greatest and the least over
    the elements present (Ward et al. 2016, doi 10.1038/npjcompumats.2016.28); the 2-norm of the
    fractions and their number; `charge_balance`; and twice the root of each fraction, which tells
    traces apart.
    """
    table = elements.table
    mean = fractions @ table
    deviation = np.stack(
        [
            (fractions * np.abs(column[None, :] - centre[:, None])).sum(axis=1)
            for column, centre in zip(table.T, mean.T, strict=True)
        ],
        axis=1,
    )
    is_there = fractions > 0
    greatest = np.stack([np.where(is_there, c, -np.inf).max(axis=1) for c in table.T], axis=1)
    least = np.stack([np.where(is_there, c, np.inf).min(axis=1) for c in table.T], axis=1)
    size = np.stack([np.sqrt((fractions**2).sum(axis=1)), is_there.sum(axis=1) / 4.0], axis=1)
    joined: Array = np.concatenate(
        [
            mean,
            deviation,
            greatest,
            least,
            size,
            charge_balance(fractions, elements),
            2.0 * np.sqrt(fractions),
        ],
        axis=1,
    )
    return joined


def charge_balance(fractions: Array, elements: Elements) -> Array:
    """How far ionic charges are from neutral, `(n, 7)`, in e per atom: what insulates is neutral.

    Elements above the mean electronegativity are anions at their lowest common charge. The others
    are cations, at their highest common charge in the sum b, and at their least one that occurs
    in c. Features: b, |b|, two bells of b; min(b, c); how far [c, b] is from 0, and a bell of that.
    """
    electronegativity = elements.table[:, 0]
    is_anion = electronegativity[None, :] > (fractions @ electronegativity)[:, None]
    highest, lowest, least = elements.charges.T
    anions = (fractions * is_anion) @ np.minimum(lowest, 0.0)
    cations = fractions * ~is_anion
    b = anions + cations @ highest
    c = np.minimum(b, anions + cations @ least)
    above, below = np.maximum(c, 0.0), np.maximum(-b, 0.0)
    columns = (
        b,
        np.abs(b),
        bell(b, 0.05),
        bell(b, 0.2),
        c,
        above - below,
        bell(above + below, 0.05),
    )
    stacked: Array = np.stack(columns, axis=1)
    return stacked


def bell(x: Array, width: float) -> Array:
    """1 at x = 0, falling to 1/e at `width`."""
    result: Array = np.exp(-((x / width) ** 2))
    return result


@cache
def gap_model() -> GapModel:
    """The model that lies beside this file."""
    content = files("oracles").joinpath(FILE).read_bytes()
    with np.load(BytesIO(content), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    n_layers = sum(name.startswith("weights") for name in arrays)
    return GapModel(
        Elements(
            tuple(arrays["symbols"].tolist()),
            arrays["table"].astype(np.float64),
            arrays["charges"].astype(np.float64),
        ),
        tuple(
            (arrays[f"weights_{i}"].astype(np.float64), arrays[f"biases_{i}"].astype(np.float64))
            for i in range(n_layers)
        ),
        json.loads(str(arrays["about"])),
        hashlib.sha256(content).hexdigest()[:12],
    )

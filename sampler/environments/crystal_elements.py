"""Element data from pymatgen: oxidation states and the properties that features are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pymatgen.core.periodic_table import Element

PROPERTIES = ("electronegativity", "radius", "group", "row", "mendeleev_number")
"""Columns of `property_table`, each scaled to about [0, 1]."""

_LAST = 94
_ALLEN_ELECTRONEGATIVITIES = {"He": 4.16, "Ne": 4.787, "Ar": 3.242}
"""Where Pauling's scale has none: Allen 1989, doi 10.1021/ja00207a003, table I."""

_COVALENT_RADII = {"At": 1.50, "Fr": 2.60}
"""Å, where no atomic radius is tabulated: Cordero et al. 2008, doi 10.1039/b801115j, table 2."""


def elements_by_electronegativity(symbols: Sequence[str]) -> list[Element]:
    """Return the elements as formulas order them; ValueError for an unknown or repeated symbol."""
    for symbol in symbols:
        if not Element.is_valid_symbol(symbol):
            raise ValueError(f"elements: {symbol!r} is not the symbol of an element")
        if Element.from_Z(Element(symbol).Z).symbol != symbol:
            raise ValueError(f"elements: {symbol!r} is an isotope of hydrogen: give H")
    if len(set(symbols)) < len(symbols):
        raise ValueError(f"elements: a symbol is repeated in {list(symbols)}")
    elements = [Element(symbol) for symbol in symbols]
    for element in elements:
        if element.Z > _LAST:
            raise ValueError(
                f"elements: {element.symbol}: elements up to Pu (94) are known, got {element.Z}"
            )
    return sorted(elements, key=lambda element: (_electronegativity(element), element.symbol))


def oxidation_states(element: Element) -> tuple[int, ...]:
    """Non-zero oxidation states that the ICSD holds in at least 1 % of an element's compounds.

    These rather than textbook ones: Ti 2, 3 and 4 rather than 4 alone, Cl -1 without +7. The
    common ones where pymatgen has none from the ICSD, as its `oxi_state_guesses` does. Zero is
    left out, for with it every metal and alloy would pass as neutral. Empty for He, Ne, Ar, Rn.
    """
    states = element.icsd_oxidation_states or element.common_oxidation_states
    return tuple(int(state) for state in states if state != 0)


def valences(elements: Sequence[Element]) -> NDArray[np.float64]:
    """Highest positive and highest negative valence of each element, 0 for none, `(e, 2)`."""
    states = [[0, *oxidation_states(element)] for element in elements]
    return np.array([[max(row), -min(row)] for row in states], dtype=np.float64)


def property_table(elements: Sequence[Element]) -> NDArray[np.float64]:
    """`PROPERTIES` of each element, `(e, 5)`."""
    return np.array(
        [
            [
                _electronegativity(element) / 4.0,
                _radius(element) / 2.6,
                element.group / 18.0,
                element.row / 7.0,
                float(element.mendeleev_no) / 103.0,
            ]
            for element in elements
        ]
    )


def atomic_volumes(elements: Sequence[Element]) -> NDArray[np.float64]:
    """Volume of a sphere of each element's atomic radius, `(e,)` Å³."""
    radii = np.array([_radius(element) for element in elements])
    return 4.0 / 3.0 * np.pi * radii**3


def _radius(element: Element) -> float:
    if element.symbol in _COVALENT_RADII:
        return _COVALENT_RADII[element.symbol]
    return float(element.atomic_radius or element.atomic_radius_calculated)


def _electronegativity(element: Element) -> float:
    if element.symbol in _ALLEN_ELECTRONEGATIVITIES:
        return _ALLEN_ELECTRONEGATIVITIES[element.symbol]
    return float(element.X)

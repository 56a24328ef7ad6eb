"""Options of the crystal space that nothing satisfies, or that are none, are refused."""

import math
from typing import Any

import pytest

from tests.sampler.crystal_spaces import tiny

FLAGS = ("charge_neutral", "mixed_valence", "pure_elements")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"elements": []}, "elements"),
        ({"elements": ["Mg", "Xx"]}, "'Xx' is not the symbol"),
        ({"elements": ["Mg", "Mg"]}, "repeated"),
        ({"elements": ["He", "Ar", "O"]}, "Ar, He: no oxidation state"),
        ({"elements": ["Am", "O"]}, "Am: elements up to Pu"),
        ({"elements": "MgO"}, "elements: expected a list"),
        ({"elements": ["Mg", "D", "O"]}, "'D' is an isotope"),
        ({"space_groups": [0]}, "1 to 230"),
        *(
            ({"space_groups": groups}, "space_groups: expected a list of numbers from 1 to 230")
            for groups in (225, ["Fm-3m"], [225.0], "1-16", [], [True], [231])
        ),
        *(
            ({"n_elements": pair}, "n_elements: expected two whole numbers")
            for pair in (5, [1.5, 2], [1.0, 2.0], [1], [True, 2], "12", None)
        ),
        ({"n_atoms": [1, 8.5]}, r"n_atoms: expected two whole .*, got \[1, 8.5\]"),
        ({"n_atoms": "8"}, "n_atoms: expected two whole .*, got '8'"),
        ({"n_atoms_per_element": (1, 100_000)}, "n_atoms_per_element: expected at most 400"),
        ({"volume_per_atom": 10}, r"volume_per_atom: expected \[low, high\].*, got 10"),
        ({"volume_per_atom": [7]}, r"volume_per_atom: expected \[low, high\].*, got \[7\]"),
        ({"volume_per_atom": [1, math.inf]}, "volume_per_atom: expected"),
        ({"positions": "Wyckoff"}, "positions: expected one of none, wyckoff, got 'Wyckoff'"),
        ({"measure": "flat"}, "measure: expected one of uniform, per_group, got 'flat'"),
        ({"measure": None}, "measure: expected one of uniform, per_group, got None"),
        ({"positions": True}, "positions: expected one of none, wyckoff, got True"),
        *(({key: "yes"}, f"{key}: expected true or false, got 'yes'") for key in FLAGS),
        *(
            ({"min_distance": given}, "min_distance: expected a number of 0 or more, got")
            for given in (-1, math.nan, "a", True, None)
        ),
        ({"lengths": "19"}, r"lengths: expected \[low, high\] in Å, got '19'"),
        ({"angles": [60]}, r"angles: expected \[low, high\] in degrees, got \[60\]"),
        ({"lengths": {"a": "19", "b": [1, 9], "c": [1, 9]}}, "lengths: a: expected"),
        ({"order": "lattice"}, "order: expected"),
        ({"order": 3}, "order: expected"),
        ({"space_groups": [225, 225]}, "space_groups"),
        ({"n_elements": (2, 1)}, "n_elements"),
        ({"n_elements": (4, 5)}, "n_elements"),
        ({"n_atoms": (0, 3)}, "n_atoms"),
        ({"lengths": (5.0, 4.0)}, "lengths"),
        ({"angles": (60.0, 180.0)}, "angles"),
        ({"volume_per_atom": (-1.0, 5.0)}, "volume_per_atom"),
        ({"order": ["lattice", "space_group", "composition"]}, "lattice comes after"),
        ({"order": ["space_group"]}, "order"),
        ({"order": ["space_group", "lattice", "composition"]}, "volume_per_atom"),
        ({"n_elements": (1, 1)}, "no crystal is possible"),
        ({"elements": ["Mg", "Ti"]}, "no crystal is possible.*neutral"),
        ({"space_groups": [227], "n_atoms": (2, 7)}, "no crystal is possible.*sites"),
        ({"volume_per_atom": (500.0, 501.0)}, "no crystal is possible"),
        ({"space_groups": [194], "angles": (60.0, 110.0)}, "120"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        tiny(**options)
    assert "\n" not in str(caught.value)

"""Spaces of crystals that several tests share, and what their keys say."""

from functools import cache
from typing import Any

import torch
from pymatgen.core.composition import Composition
from pyxtal.symmetry import Group

from sampler.baselines import Random
from sampler.environments.crystal import Crystal
from sampler.environments.crystal_part import STAGE

REFERENCE = {
    "elements": [
        "H", "Li", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "V", "Mn",
        "Fe", "Co", "Ni", "Cu", "Se",
    ],
    "space_groups": [
        *range(1, 17), *range(18, 22), 25, 26, 29, 30, 31, 33, 36, 38, 40, 41, 43, 44, 46, 47,
        51, 52, 53, *range(55, 68), *range(69, 73), 74, 82, *range(84, 89), 92, 99, 102, 107, 113,
        114, 121, 122, 123, 126, 129, 131, *range(136, 142), 146, 147, 148, 150, 155, 156,
        *range(160, 165), 166, 167, 176, 181, 185, 186, 187, 189, 192, 194, 198, 199, 205, 206,
        216, 217, 220, 221, 224, 225, 227, 229, 230,
    ],
}  # fmt: skip
ELEMENTS = ["Li", "Na", "Mg", "Al", "Si", "O", "F", "S", "Cl", "K", "Ca", "Ti"]
GROUPS = [1, 2, 5, 12, 14, 15, 19, 62, 72, 88, 129, 136, 141, 148, 166, 186, 194, 216, 221, 225]


@cache
def space() -> Crystal:
    return crystal_of(ELEMENTS, GROUPS)


def crystal_of(elements: list[str], groups: list[int]) -> Crystal:
    """The tests' space of crystals, of whatever elements and space groups."""
    return Crystal(
        elements,
        groups,
        n_elements=(1, 3),
        n_atoms=(2, 12),
        n_atoms_per_element=(1, 8),
        lengths=(2.5, 15.0),
        angles=(60.0, 120.0),
        volume_per_atom=(6.0, 40.0),
    )


@cache
def reference() -> Crystal:
    return Crystal(**REFERENCE)


@cache
def samples() -> torch.Tensor:
    return Random(space()).sample(400, seed=7)


@cache
def group(number: int) -> Group:
    return Group(number)


def tiny(**options: Any) -> Crystal:
    defaults: dict[str, Any] = {
        "elements": ["Mg", "Ti", "O"],
        "space_groups": [2, 14, 62, 194, 225],
        "n_elements": (1, 3),
        "n_atoms": (2, 8),
        "n_atoms_per_element": (1, 4),
        "lengths": (2.5, 8.0),
        "angles": (50.0, 125.0),
        "volume_per_atom": (8.0, 20.0),
    }
    return Crystal(**{**defaults, **options})


def parts_of(key: str) -> tuple[dict[str, int], int, list[float], list[float]]:
    """Atoms, space group, lengths and angles that a key names."""
    atoms, number, lengths, angles = key.split(" | ")[:4]
    counts = {str(e): int(n) for e, n in Composition(atoms).get_el_amt_dict().items()}
    return counts, int(number), *([float(x) for x in p.split()] for p in (lengths, angles))


def compositions_by_masks(crystal: Crystal) -> set[tuple[int, tuple[int, ...]]]:
    """Space group and atom counts of every state that begins its lattice."""
    found, states = set(), crystal.initial_states(1)
    while len(states) > 0:
        is_done = states[:, STAGE] == 2
        for row in states[is_done]:
            number = crystal.space_groups[int(row[3]) - 1].number
            found.add((number, tuple(crystal.counts(row[None])[0].long().tolist())))
        states = states[~is_done]
        rows, actions = crystal.forward_mask(states).nonzero(as_tuple=True)
        states = torch.unique(crystal.step(states[rows], actions), dim=0)
    return found

"""What restrictions of crystals mean, by independent code, and walks that test them."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from pymatgen.core.composition import Composition
from pymatgen.symmetry.groups import SpaceGroup
from torch import Tensor

from sampler.environments.crystal import Crystal

Parts = tuple[dict[str, int], int, list[float], list[float]]
"""Atoms, space group, lengths, angles."""


def read(key: str) -> Parts:
    atoms, number, lengths, angles = key.split(" | ")[:4]
    counts = {str(e): int(n) for e, n in Composition(atoms).get_el_amt_dict().items()}
    return counts, int(number), *([float(x) for x in p.split()] for p in (lengths, angles))


# What each key means, from the keys of crystals and by pymatgen alone.

_POINT_GROUPS = {
    "centrosymmetric": "-1 2/m mmm 4/m 4/mmm -3 -3m 6/m 6/mmm m-3 m-3m",
    "enantiomorphic": "222 422 32 622 23 432",
    "polar": "m mm2 4mm 3m 6mm",
    "enantiomorphic_polar": "1 2 3 4 6",
    "none": "-4 -42m -6 -62m -6m2 -43m",
}


@cache
def classes(number: int) -> dict[str, str]:
    """Names of a space group's three classes."""
    group = SpaceGroup.from_int_number(number)
    is_r, system = group.symbol.startswith("R"), group.crystal_system
    lattice = {"trigonal": "rhombohedral" if is_r else "hexagonal"}.get(system, system)
    point = next(k for k, v in _POINT_GROUPS.items() if group.point_group in v.split())
    return {"lattice_system": lattice, "crystal_system": system, "point_symmetry": point}


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _inside(x: float, value: Any) -> bool:
    low, high = value if isinstance(value, list) else (value, value)
    return bool(low - 1e-9 <= x <= high + 1e-9)


def _is_multiple(atoms: Mapping[str, int], formula: str) -> bool:
    units = Composition(formula).get_el_amt_dict()
    ratios = {atoms.get(symbol, 0) / n for symbol, n in units.items()}
    return set(atoms) == set(units) and len(ratios) == 1


MEANING: dict[str, Callable[[Any, Parts], bool]] = {
    "elements": lambda v, p: set(p[0]) <= set(v),
    "required_elements": lambda v, p: set(v) <= set(p[0]),
    "formula": lambda v, p: _is_multiple(p[0], v),
    "composition": lambda v, p: p[0] == Composition(v).get_el_amt_dict(),
    "n_elements": lambda v, p: _inside(len(p[0]), v),
    "n_atoms": lambda v, p: _inside(sum(p[0].values()), v),
    "n_atoms_per_element": lambda v, p: all(
        _inside(n, v if isinstance(v, list) else [1, v]) for n in p[0].values()
    ),
    "space_groups": lambda v, p: p[1] in _as_list(v),
    **{
        name: (lambda v, p, name=name: classes(p[1])[name] in _as_list(v))
        for name in ("lattice_system", "crystal_system", "point_symmetry")
    },
    "lengths": lambda v, p: all(_inside(x, v) for x in p[2]),
    "angles": lambda v, p: all(_inside(x, v) for x in p[3]),
    **{
        name: (lambda v, p, i=i: _inside(p[2 + i // 3][i % 3], v))
        for i, name in enumerate(("a", "b", "c", "alpha", "beta", "gamma"))
    },
}  # fmt: skip
CELL_KEYS = ("lengths", "angles", "a", "b", "c", "alpha", "beta", "gamma")


def obeys(where: Mapping[str, Any], parts: Parts) -> bool:
    return all(MEANING[key](value, parts) for key, value in where.items())


def has_cell(where: Mapping[str, Any], number: int) -> bool:
    """Whether the fixed angles and tied lengths of a system leave a cell in the wanted ranges."""
    system = classes(number)["crystal_system"]
    is_hexagonal = system in ("trigonal", "hexagonal")
    fixed = {
        "triclinic": {},
        "monoclinic": {"alpha": 90, "gamma": 90},
    }.get(system, {"alpha": 90, "beta": 90, "gamma": 120 if is_hexagonal else 90})
    wanted = [(where[k], x) for k, x in fixed.items() if k in where]
    wanted += [(where["angles"], x) for x in fixed.values() if "angles" in where]
    tied = {"cubic": "abc", "tetragonal": "ab", "trigonal": "ab", "hexagonal": "ab"}.get(system, "")
    ranges = [where[k] for k in tied if k in where]
    lows, highs = ([x[i] for x in ranges] for i in (0, 1))
    return all(_inside(x, r) for r, x in wanted) and (not ranges or max(lows) <= min(highs))


def all_by_masks(crystal: Crystal) -> dict[tuple[int, tuple[tuple[str, int], ...]], Parts]:
    """Every space group with every composition that masks lead to, and one crystal of each."""
    states, keys = crystal.initial_states(1), []
    while len(states) > 0:
        rows, actions = crystal.forward_mask(states).nonzero(as_tuple=True)
        low, high = crystal.amount_range(states[rows], actions)
        states = crystal.step(states[rows], actions, (low + high) / 2)
        states = torch.unique(states, dim=0)
        is_done = crystal.is_terminal(states)
        keys += crystal.keys(states[is_done])
        states = states[~is_done]
    found = [read(key) for key in keys]
    return {
        (number, tuple(sorted(atoms.items()))): (atoms, number, *c) for atoms, number, *c in found
    }


def walk_back(free: Crystal, restricted: Crystal, states: Tensor) -> None:
    """Assert that every way to `states` is open in `restricted`."""
    heads = free.action_heads
    assert heads is not None
    while len(states) > 0:
        rows, actions = free.backward_mask(states).nonzero(as_tuple=True)
        parents = free.step_back(states[rows], actions)
        allowed = restricted.forward_mask(parents).gather(1, actions[:, None])[:, 0]
        assert bool(allowed.all()), parents[~allowed]
        low, high = restricted.amount_range(parents, actions)
        amounts = free.amounts_between(parents, actions, states[rows])
        is_inside = (low <= amounts) & (amounts <= high) | (heads[actions] < 0)
        assert bool(is_inside.all()), (parents[~is_inside], low, amounts, high)
        states = torch.unique(parents, dim=0)

"""Restrictions of the crystal space: which compositions, space groups and cells are wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from pymatgen.core.composition import Composition
from torch import Tensor

from sampler.environments.crystal_cell import Cell
from sampler.environments.crystal_classes import (
    CRYSTAL_SYSTEMS,
    LATTICE_SYSTEMS,
    POINT_SYMMETRIES,
    crystal_system,
    lattice_system,
    point_symmetry,
)
from sampler.environments.crystal_rules import CrystalRules, Wish
from sampler.restriction import check_keys, interval

_CLASSES: dict[str, tuple[tuple[str, ...], Callable[[int], str]]] = {
    "lattice_system": (LATTICE_SYSTEMS, lattice_system),
    "crystal_system": (CRYSTAL_SYSTEMS, crystal_system),
    "point_symmetry": (POINT_SYMMETRIES, point_symmetry),
}
_LENGTHS, _ANGLES = ("a", "b", "c"), ("alpha", "beta", "gamma")
_CELL_KEYS = ("lengths", "angles", *_LENGTHS, *_ANGLES)
KEYS = (
    "elements",
    "required_elements",
    "formula",
    "composition",
    "n_elements",
    "n_atoms",
    "n_atoms_per_element",
    "space_groups",
    *_CLASSES,
    *_CELL_KEYS,
)


def read_where(where: Mapping[str, Any], rules: CrystalRules, everything: Wish) -> Wish:
    """Narrow `everything` to `where`; ValueError names the key that is wrong.

    Composition. `elements`: no others. `required_elements`: all of them. `formula`: such as
    `Fe2O3`, in any multiple. `composition`: atoms of the conventional cell, such as
    `{Fe: 12, O: 18}`. `n_elements`, `n_atoms`, `n_atoms_per_element`: [low, high] or a number,
    which for `n_atoms_per_element` is the most.

    Symmetry. `space_groups`: a number or a list. `lattice_system`, `crystal_system`,
    `point_symmetry`: one name or a list.

    Cell. `lengths`, `angles`, or one of them: `a`, `b`, `c`, `alpha`, `beta`, `gamma`:
    [low, high] in Å and degrees.
    """
    check_keys(where, KEYS)
    allowed = everything.allowed[0].clone()
    _narrow_elements(where, rules, allowed)
    return replace(
        everything,
        groups=everything.groups & _groups(where, rules),
        allowed=_formulas(where, rules, allowed),
        n_elements=_narrowed(where, "n_elements", everything.n_elements),
        n_atoms=_narrowed(where, "n_atoms", everything.n_atoms),
        cell=_cell(where, everything),
    )


def _narrow_elements(where: Mapping[str, Any], rules: CrystalRules, allowed: Tensor) -> None:
    """Forbid in `allowed` `(e, c + 1)` what the keys about single elements forbid."""
    symbols = [element.symbol for element in rules.elements]
    if "elements" in where:
        allowed[~_is_among(where["elements"], "elements", symbols), 1:] = False
    if "required_elements" in where:
        required = _is_among(where["required_elements"], "required_elements", symbols)
        allowed[required, 0] = False
        lacking = [
            s for s, row in zip(symbols, allowed.any(dim=1).tolist(), strict=True) if not row
        ]
        if lacking:
            raise ValueError(
                f"where: required_elements: {lacking[0]} is not among the wanted elements"
            )
    if "n_atoms_per_element" in where:
        most = where["n_atoms_per_element"]
        low, high = interval([1, most] if isinstance(most, int) else most, "n_atoms_per_element")
        number = torch.arange(allowed.shape[1])
        allowed &= (number == 0) | ((number >= low) & (number <= high))


def _is_among(wanted: Any, key: str, known: Sequence[str]) -> Tensor:
    if isinstance(wanted, str) or not isinstance(wanted, Sequence) or not wanted:
        raise ValueError(f"where: {key}: expected a list of symbols, got {wanted!r}")
    for symbol in wanted:
        if symbol not in known:
            raise ValueError(f"where: {key}: {symbol} is not in this space ({', '.join(known)})")
    return torch.tensor([symbol in wanted for symbol in known])


def _formulas(where: Mapping[str, Any], rules: CrystalRules, allowed: Tensor) -> tuple[Tensor, ...]:
    """Each way to satisfy `formula` and `composition` as a table of allowed numbers of atoms."""
    ways = [allowed]
    if "formula" in where:
        units = _atoms(where["formula"], "formula", rules)
        most = allowed.shape[1] - 1
        multiples = range(1, most // max(units.values()) + 1)
        ways = [
            allowed & _exactly({s: n * k for s, n in units.items()}, rules, allowed)
            for k in multiples
        ]
    if "composition" in where:
        atoms = _atoms(where["composition"], "composition", rules)
        ways = [way & _exactly(atoms, rules, allowed) for way in ways]
    possible = tuple(way for way in ways if bool(way.any(dim=1).all()))
    if not possible:
        wish = {key: where[key] for key in ("formula", "composition") if key in where}
        raise ValueError(
            f"where: {wish} conflicts with the numbers of atoms that an element may have here "
            f"({rules.n_atoms_per_element[0]} to {rules.most}) or with the other keys"
        )
    return possible


def _atoms(wanted: Any, key: str, rules: CrystalRules) -> dict[str, int]:
    """Read atoms of each element; a formula is reduced to its smallest whole numbers."""
    try:
        read = Composition(wanted)
        if key == "formula":
            read = Composition(read.reduced_formula)
        atoms = {str(symbol): round(n) for symbol, n in read.get_el_amt_dict().items()}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"where: {key}: expected a formula such as Fe2O3 or a mapping such as "
            f"{{Fe: 2, O: 3}}, got {wanted!r}"
        ) from error
    if not atoms:
        raise ValueError(f"where: {key}: expected at least one element, got {wanted!r}")
    _is_among(list(atoms), key, [element.symbol for element in rules.elements])
    return atoms


def _exactly(atoms: Mapping[str, int], rules: CrystalRules, like: Tensor) -> Tensor:
    exact = torch.zeros_like(like)
    for row, element in enumerate(rules.elements):
        n = atoms.get(element.symbol, 0)
        if n < like.shape[1]:
            exact[row, n] = True
    return exact


def _narrowed(where: Mapping[str, Any], key: str, whole: tuple[int, int]) -> tuple[int, int]:
    if key not in where:
        return whole
    low, high = interval(where[key], key)
    narrowed = max(whole[0], int(-(-low // 1))), min(whole[1], int(high // 1))
    if narrowed[0] > narrowed[1]:
        raise ValueError(
            f"where: {key}: {where[key]!r} has nothing in common with this space's "
            f"{whole[0]} to {whole[1]}"
        )
    return narrowed


def _groups(where: Mapping[str, Any], rules: CrystalRules) -> Tensor:
    numbers = [group.number for group in rules.groups]
    wanted = torch.ones(len(numbers), dtype=torch.bool)
    if "space_groups" in where:
        listed = where["space_groups"]
        listed = [listed] if isinstance(listed, int) else listed
        for number in listed:
            if number not in numbers:
                raise ValueError(f"where: space_groups: {number} is not in this space")
        wanted &= torch.tensor([number in listed for number in numbers])
    for key, (names, class_of) in _CLASSES.items():
        if key in where:
            listed = [where[key]] if isinstance(where[key], str) else where[key]
            for name in listed:
                if name not in names:
                    raise ValueError(
                        f"where: {key}: expected one of {', '.join(names)}, got {name!r}"
                    )
            wanted &= torch.tensor([class_of(number) in listed for number in numbers])
    if not bool(wanted.any()):
        keys = [key for key in ("space_groups", *_CLASSES) if key in where]
        raise ValueError(f"where: no space group of this space satisfies {' and '.join(keys)}")
    return wanted


def _cell(where: Mapping[str, Any], everything: Wish) -> Cell:
    ranges = {key: interval(where[key], key) for key in _CELL_KEYS if key in where}
    if not ranges:
        return everything.cell
    single = [{key: ranges[key] for key in keys if key in ranges} for keys in (_LENGTHS, _ANGLES)]
    try:
        cell = everything.cell.narrowed(ranges.get("lengths"), ranges.get("angles"))
        return cell.narrowed(*single)
    except ValueError as error:
        raise ValueError(f"where: {error}") from error

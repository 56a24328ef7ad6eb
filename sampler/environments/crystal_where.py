"""Restrictions of the crystal space: which compositions, space groups and cells are wanted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
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
_COMPOSITION_KEYS = (
    "elements",
    "required_elements",
    "n_atoms_per_element",
    "formula",
    "composition",
)
KEYS = (
    *_COMPOSITION_KEYS,
    "n_elements",
    "n_atoms",
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
    return replace(
        everything,
        groups=everything.groups & _groups(where, rules),
        allowed=_allowed(where, rules, everything.allowed),
        n_elements=_narrowed(where, "n_elements", everything.n_elements),
        n_atoms=_narrowed(where, "n_atoms", everything.n_atoms),
        cell=_cell(where, everything),
    )


def check_wanted(
    wanted: Tensor, where: Sequence[Mapping[str, Any]], keys: Callable[[Tensor], list[str]]
) -> None:
    """ValueError names the first crystal, with `keys` of rows, that is not `wanted` `(n,)`."""
    rows = (~wanted).nonzero()[:1, 0]
    if len(rows) > 0:
        wishes = " and ".join(str(dict(wish)) for wish in where)
        raise ValueError(f"{keys(rows)[0]!r} does not satisfy {wishes}")


def _allowed(
    where: Mapping[str, Any], rules: CrystalRules, whole: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Numbers of atoms as `Wish.allowed` has them: what `whole` and the wish both allow."""
    single = _single_elements(where, rules, whole[0])
    ways = [known & single & way for known in whole for way in _formulas(where, rules, whole[0])]
    _check_required(where, rules, ways)
    possible = tuple(way for way in ways if bool(way.any(dim=1).all()))
    if not possible:
        wish = {key: where[key] for key in _COMPOSITION_KEYS if key in where}
        raise ValueError(
            f"where: {wish} conflict with each other, or with the numbers of atoms that an element "
            f"may have here ({rules.n_atoms_per_element[0]} to {rules.most})"
        )
    return possible


def _single_elements(where: Mapping[str, Any], rules: CrystalRules, like: Tensor) -> Tensor:
    """What the keys about single elements allow, `(e, c + 1)` bool."""
    symbols = [element.symbol for element in rules.elements]
    allowed = torch.ones_like(like)
    if "elements" in where:
        allowed[~_is_among(where["elements"], "elements", symbols), 1:] = False
    if "required_elements" in where:
        allowed[_is_among(where["required_elements"], "required_elements", symbols), 0] = False
    if "n_atoms_per_element" in where:
        most = where["n_atoms_per_element"]
        pair = [1, most] if isinstance(most, int | float) else most
        low, high = interval(pair, "n_atoms_per_element")
        number = torch.arange(allowed.shape[1])
        allowed &= (number == 0) | ((number >= low) & (number <= high))
    return allowed


def _check_required(where: Mapping[str, Any], rules: CrystalRules, ways: Sequence[Tensor]) -> None:
    """ValueError for a required element that may have no atoms whichever way is taken."""
    for row, element in enumerate(rules.elements):
        is_required = element.symbol in where.get("required_elements", ())
        if is_required and not any(bool(way[row].any()) for way in ways):
            raise ValueError(
                f"where: required_elements: {element.symbol} is not among the wanted elements"
            )


def _is_among(wanted: Any, key: str, known: Sequence[str]) -> Tensor:
    if isinstance(wanted, str) or not isinstance(wanted, Sequence) or not wanted:
        raise ValueError(f"where: {key}: expected a list of symbols, got {wanted!r}")
    for symbol in wanted:
        if symbol not in known:
            raise ValueError(f"where: {key}: {symbol} is not in this space ({', '.join(known)})")
    return torch.tensor([symbol in wanted for symbol in known])


def _formulas(where: Mapping[str, Any], rules: CrystalRules, like: Tensor) -> list[Tensor]:
    """Each way to satisfy `formula` and `composition` as a table of allowed numbers of atoms."""
    ways = [torch.ones_like(like)]
    if "formula" in where:
        units = _reduced(_amounts(where["formula"], "formula", rules))
        multiples = range(1, max(1, rules.most // max(units.values())) + 1)
        ways = [_exactly({s: n * k for s, n in units.items()}, rules, like) for k in multiples]
    if "composition" in where:
        amounts = _amounts(where["composition"], "composition", rules)
        if any(n.denominator > 1 for n in amounts.values()):
            raise ValueError(
                f"where: composition: expected whole numbers of atoms of the conventional cell, "
                f"got {where['composition']!r}; for a ratio use formula"
            )
        atoms = {symbol: int(n) for symbol, n in amounts.items()}
        ways = [way & _exactly(atoms, rules, like) for way in ways]
    return ways


def _amounts(wanted: Any, key: str, rules: CrystalRules) -> dict[str, Fraction]:
    """Read the amount of each element, to 1/1000."""
    try:
        read = Composition(wanted).get_el_amt_dict()
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"where: {key}: expected a formula such as Fe2O3 or a mapping such as "
            f"{{Fe: 2, O: 3}}, got {wanted!r}"
        ) from error
    amounts = {str(s): Fraction(n).limit_denominator(1000) for s, n in read.items()}
    if not amounts or not all(amounts.values()):
        raise ValueError(f"where: {key}: expected atoms of at least one element, got {wanted!r}")
    _is_among(list(amounts), key, [element.symbol for element in rules.elements])
    return amounts


def _reduced(amounts: Mapping[str, Fraction]) -> dict[str, int]:
    """The smallest whole numbers in this ratio. (pymatgen makes O to O2, and LiO to Li2O2.)"""
    denominator = math.lcm(*(n.denominator for n in amounts.values()))
    whole = {symbol: int(n * denominator) for symbol, n in amounts.items()}
    return {symbol: n // math.gcd(*whole.values()) for symbol, n in whole.items()}


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
    narrowed = math.ceil(max(whole[0], low)), math.floor(min(whole[1], high))
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
        listed = _listed(where["space_groups"], "space_groups", int)
        for number in listed:
            if number not in numbers:
                raise ValueError(f"where: space_groups: {number} is not in this space")
        wanted &= torch.tensor([number in listed for number in numbers])
    for key, (names, class_of) in _CLASSES.items():
        if key in where:
            listed = _listed(where[key], key, str)
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


def _listed(wanted: Any, key: str, kind: type) -> Sequence[Any]:
    """One or several numbers (names) as a list; ValueError names `key`."""
    listed = [wanted] if isinstance(wanted, kind) else wanted
    is_list = isinstance(listed, list | tuple | range) and len(listed) > 0
    if not is_list or not all(isinstance(x, kind) and x is not True for x in listed):
        what = "a number or a list of numbers" if kind is int else "a name or a list of names"
        raise ValueError(f"where: {key}: expected {what}, got {wanted!r}")
    return listed


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

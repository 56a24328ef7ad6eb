"""Restrictions of the crystal space: which compositions and space groups are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sampler.environments.crystal_symmetry import SYSTEMS, SpaceGroup
from sampler.restriction import check_keys, interval

KEYS = (
    "elements",
    "required_elements",
    "space_groups",
    "lattice_system",
    "n_atoms",
    "n_atoms_per_element",
)


@dataclass(frozen=True)
class Wanted:
    """What a restriction leaves: space groups `(g,)` and compositions `(v,)`, both bool."""

    groups: Tensor
    nodes: Tensor


def read_where(
    where: Mapping[str, Any],
    elements: Sequence[str],
    groups: Sequence[SpaceGroup],
    counts: Tensor,
) -> Wanted:
    """Read a restriction of compositions with `counts` `(v, e)`; ValueError names what is wrong.

    `elements`: no others. `required_elements`: all of them. `space_groups`: numbers.
    `lattice_system`: one of `SYSTEMS`. `n_atoms`, `n_atoms_per_element`: [low, high] or a number,
    which for `n_atoms_per_element` is the most.
    """
    check_keys(where, KEYS)
    nodes = torch.ones(len(counts), dtype=torch.bool, device=counts.device)
    if "elements" in where:
        nodes &= (counts[:, ~_is_among(where, "elements", elements)] == 0).all(dim=1)
    if "required_elements" in where:
        nodes &= (counts[:, _is_among(where, "required_elements", elements)] > 0).all(dim=1)
    if "n_atoms" in where:
        low, high = interval(where["n_atoms"], "n_atoms")
        total = counts.sum(dim=1)
        nodes &= (total >= low) & (total <= high)
    if "n_atoms_per_element" in where:
        most = where["n_atoms_per_element"]
        low, high = interval([1, most] if isinstance(most, int) else most, "n_atoms_per_element")
        nodes &= ((counts == 0) | ((counts >= low) & (counts <= high))).all(dim=1)
    return Wanted(_wanted_groups(where, groups).to(counts.device), nodes)


def _is_among(where: Mapping[str, Any], key: str, known: Sequence[str]) -> Tensor:
    wanted = where[key]
    if isinstance(wanted, str) or not isinstance(wanted, Sequence) or not wanted:
        raise ValueError(f"where: {key}: expected a list of symbols, got {wanted!r}")
    for symbol in wanted:
        if symbol not in known:
            raise ValueError(f"where: {key}: {symbol} is not in this space ({', '.join(known)})")
    return torch.tensor([symbol in wanted for symbol in known])


def _wanted_groups(where: Mapping[str, Any], groups: Sequence[SpaceGroup]) -> Tensor:
    wanted = torch.ones(len(groups), dtype=torch.bool)
    if "space_groups" in where:
        numbers = where["space_groups"]
        numbers = [numbers] if isinstance(numbers, int) else numbers
        known = [group.number for group in groups]
        for number in numbers:
            if number not in known:
                raise ValueError(f"where: space_groups: {number} is not in this space")
        wanted &= torch.tensor([number in numbers for number in known])
    if "lattice_system" in where:
        system = where["lattice_system"]
        if system not in SYSTEMS:
            raise ValueError(
                f"where: lattice_system: expected one of {', '.join(SYSTEMS)}, got {system!r}"
            )
        wanted &= torch.tensor([SYSTEMS[group.system] == system for group in groups])
    if not bool(wanted.any()):
        raise ValueError(
            "where: no space group of this space satisfies space_groups and lattice_system"
        )
    return wanted

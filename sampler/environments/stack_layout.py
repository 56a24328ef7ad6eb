"""How the parts of a `Stack` lie beside one another: columns, heads, keys."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from sampler.environment import Environment


def slices(widths: list[int], start: int = 0) -> list[slice]:
    """Slices of these widths that follow one another from `start`."""
    slices = []
    for width in widths:
        slices.append(slice(start, start + width))
        start += width
    return slices


def heads_of(spaces: list[Environment]) -> tuple[Tensor | None, tuple[bool, ...]]:
    """Heads of all parts numbered through, -1 for those of discrete ones; None if all are."""
    if all(space.action_heads is None for space in spaces):
        return None, ()
    heads: list[Tensor] = []
    circular: tuple[bool, ...] = ()
    for space in spaces:
        own = space.action_heads
        own = torch.full((space.n_actions,), -1) if own is None else own
        heads.append(torch.where(own >= 0, own + len(circular), -1))
        circular += space.circular_heads
    return torch.cat(heads), circular


def as_lists(columns: list[list[str]]) -> list[str]:
    """Row by row, the texts of all parts as a JSON list."""
    return [json.dumps(row, ensure_ascii=False) for row in zip(*columns, strict=True)]


def key_parts(key: str, n_parts: int) -> list[str]:
    """What `as_lists` joined; ValueError names the key."""
    try:
        parts = json.loads(key)
    except json.JSONDecodeError as error:
        raise ValueError(f"key {key!r}: expected a JSON list of the parts' keys") from error
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"key {key!r}: expected a JSON list of the parts' keys")
    if len(parts) != n_parts:
        raise ValueError(f"key {key!r}: expected {n_parts} parts, got {len(parts)}")
    return parts

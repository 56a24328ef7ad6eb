"""Which of the user's structures are candidates of the space, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.assemble import Parts
from pipeline.config import ConfigError
from pipeline.structures import Given

SHOWN = 5
"""How many structures outside the space are named before the rest is only counted."""


@dataclass(frozen=True)
class Inside:
    """Terminal states `(k, w)` of the structures inside, their numbers, and what to tell."""

    states: Tensor
    numbers: list[int]
    notes: tuple[str, ...]


def inside(given: Sequence[Given], path: Path, parts: Parts) -> Inside:
    """The structures that lie in the space.

    ConfigError names those outside, unless `initial.outside` is `skip`; also when none is left.
    """
    states, numbers, outside = [parts.environment.initial_states(0)], list[int](), list[str]()
    for number, one in enumerate(given):
        try:
            states.append(parts.environment.encode([one.structure]))
            numbers.append(number)
        except (ValueError, TypeError) as error:
            outside.append(f"{one.name}: {error}")
    skips = parts.config.initial.outside == "skip"
    if outside and not (skips and numbers):
        hint = "" if skips else "; `outside: skip` leaves such structures out"
        lines = [f"initial.file: {path}: outside the space: {text}{hint}" for text in outside]
        raise ConfigError([*lines[:SHOWN], *_more(len(outside), path)])
    return Inside(torch.cat(states), numbers, _note(outside, len(given), path))


def _more(n: int, path: Path) -> list[str]:
    if n <= SHOWN:
        return []
    return [f"initial.file: {path}: and {n - SHOWN} more structures outside the space"]


def _note(outside: Sequence[str], n: int, path: Path) -> tuple[str, ...]:
    if not outside:
        return ()
    shown = "; ".join(outside[:SHOWN]) + ("; …" if len(outside) > SHOWN else "")
    text = f"initial.file: {path}: {len(outside)} of {n} structures lie outside the space"
    return (f"{text} and are left out: {' '.join(shown.split())}",)

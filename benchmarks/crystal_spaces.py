"""The reference set of Crystal-GFN (arXiv 2310.04925) as spaces, and what is exact about them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from sampler import environment
from sampler.environments.crystal import Crystal

_CONFIG = Path(__file__).parent.parent / "configs" / "crystal_density.yaml"
_SHIPPED: dict[str, Any] = yaml.safe_load(_CONFIG.read_text())["space"]
REFERENCE = {k: v for k, v in _SHIPPED.items() if k not in ("kind", "volume_per_atom")}
"""The options of the reference set, from the shipped config."""
VOLUME_PER_ATOM = (6.0, 40.0)
"""Å³, from diamond's to that of loose molecular crystals: where a potential means something."""

_GRAM_PER_CM3 = 1.66053907
"""One atomic mass unit in 1 Å³, in g/cm³."""


@cache
def whole_space() -> Crystal:
    """The reference set as the paper has it: any volume that the lengths and angles allow."""
    return _crystal(environment("crystal", **REFERENCE))


@cache
def dense_space(measure: str = "per_group") -> Crystal:
    """The reference set with `VOLUME_PER_ATOM` and a measure."""
    options = {**REFERENCE, "volume_per_atom": VOLUME_PER_ATOM, "measure": measure}
    return _crystal(environment("crystal", **options))


def density(space: Crystal, states: Tensor) -> Tensor:
    """Density of each crystal in g/cm³, exact, `(n,)`."""
    masses = [float(element.atomic_mass) for element in space.elements]
    mass = space.counts(states) @ torch.tensor(masses, dtype=torch.float64)
    return _GRAM_PER_CM3 * mass / space.volumes(states)


def _crystal(space: object) -> Crystal:
    assert isinstance(space, Crystal)
    return space

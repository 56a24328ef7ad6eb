"""Surrogates: models of a property at every fidelity, and what a query is worth (acquisition).

Importing this package is cheap: torch is loaded with the first class that is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surrogate.acquisition import (
        Acquisition,
        LogExpectedImprovement,
        MultiFidelityGibbon,
        UpperConfidenceBound,
    )
    from surrogate.auto import Auto
    from surrogate.deep_kernel import DeepKernel
    from surrogate.ensemble import Ensemble
    from surrogate.gp import GP, MultiFidelityGP
    from surrogate.surrogate import Surrogate

SURROGATES: dict[str, str] = {
    "auto": "surrogate.auto:Auto",
    "gp": "surrogate.gp:GP",
    "multi_fidelity_gp": "surrogate.gp:MultiFidelityGP",
    "deep_kernel": "surrogate.deep_kernel:DeepKernel",
    "ensemble": "surrogate.ensemble:Ensemble",
}
"""Surrogate classes by kind, as "module:Class"."""

ACQUISITIONS: dict[str, str] = {
    "log_ei": "surrogate.acquisition:LogExpectedImprovement",
    "ucb": "surrogate.acquisition:UpperConfidenceBound",
    "mf_gibbon": "surrogate.acquisition:MultiFidelityGibbon",
}
"""Acquisition classes by kind, as "module:Class"."""

__all__ = [
    "ACQUISITIONS",
    "GP",
    "SURROGATES",
    "Acquisition",
    "Auto",
    "DeepKernel",
    "Ensemble",
    "LogExpectedImprovement",
    "MultiFidelityGP",
    "MultiFidelityGibbon",
    "Surrogate",
    "UpperConfidenceBound",
]

_HOMES = {
    "Surrogate": "surrogate.surrogate",
    "GP": "surrogate.gp",
    "MultiFidelityGP": "surrogate.gp",
    "Auto": "surrogate.auto",
    "DeepKernel": "surrogate.deep_kernel",
    "Ensemble": "surrogate.ensemble",
    "Acquisition": "surrogate.acquisition",
    "LogExpectedImprovement": "surrogate.acquisition",
    "MultiFidelityGibbon": "surrogate.acquisition",
    "UpperConfidenceBound": "surrogate.acquisition",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'surrogate' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)

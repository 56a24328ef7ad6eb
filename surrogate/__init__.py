"""Surrogates: models of a property at every fidelity, and what a query is worth (acquisition).

Importing this package is cheap: torch is loaded with the first class that is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surrogate.acquisition import Acquisition
    from surrogate.auto import Auto
    from surrogate.deep_kernel import DeepKernel
    from surrogate.ensemble import Ensemble
    from surrogate.entropy import (
        Gibbon,
        MaxValueEntropySearch,
        MultiFidelityGibbon,
        MultiFidelityMaxValueEntropySearch,
    )
    from surrogate.gp import GP, MultiFidelityGP
    from surrogate.improvement import LogExpectedImprovement, UpperConfidenceBound
    from surrogate.knowledge_gradient import MultiFidelityKnowledgeGradient
    from surrogate.pending import WithPending
    from surrogate.surrogate import Surrogate
    from surrogate.thompson import ThompsonSampling

SURROGATES: dict[str, str] = {
    "auto": "surrogate.auto:Auto",
    "gp": "surrogate.gp:GP",
    "multi_fidelity_gp": "surrogate.gp:MultiFidelityGP",
    "deep_kernel": "surrogate.deep_kernel:DeepKernel",
    "ensemble": "surrogate.ensemble:Ensemble",
}
"""Surrogate classes by kind, as "module:Class"."""

ACQUISITIONS: dict[str, str] = {
    "log_ei": "surrogate.improvement:LogExpectedImprovement",
    "ucb": "surrogate.improvement:UpperConfidenceBound",
    "thompson": "surrogate.thompson:ThompsonSampling",
    "mes": "surrogate.entropy:MaxValueEntropySearch",
    "gibbon": "surrogate.entropy:Gibbon",
    "mf_mes": "surrogate.entropy:MultiFidelityMaxValueEntropySearch",
    "mf_gibbon": "surrogate.entropy:MultiFidelityGibbon",
    "mf_kg": "surrogate.knowledge_gradient:MultiFidelityKnowledgeGradient",
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
    "Gibbon",
    "LogExpectedImprovement",
    "MaxValueEntropySearch",
    "MultiFidelityGP",
    "MultiFidelityGibbon",
    "MultiFidelityKnowledgeGradient",
    "MultiFidelityMaxValueEntropySearch",
    "Surrogate",
    "ThompsonSampling",
    "UpperConfidenceBound",
    "WithPending",
]

_HOMES = {
    "Surrogate": "surrogate.surrogate",
    "GP": "surrogate.gp",
    "MultiFidelityGP": "surrogate.gp",
    "Auto": "surrogate.auto",
    "DeepKernel": "surrogate.deep_kernel",
    "Ensemble": "surrogate.ensemble",
    "Acquisition": "surrogate.acquisition",
    "Gibbon": "surrogate.entropy",
    "LogExpectedImprovement": "surrogate.improvement",
    "MaxValueEntropySearch": "surrogate.entropy",
    "MultiFidelityGibbon": "surrogate.entropy",
    "MultiFidelityKnowledgeGradient": "surrogate.knowledge_gradient",
    "MultiFidelityMaxValueEntropySearch": "surrogate.entropy",
    "ThompsonSampling": "surrogate.thompson",
    "UpperConfidenceBound": "surrogate.improvement",
    "WithPending": "surrogate.pending",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'surrogate' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)

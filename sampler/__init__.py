"""Generative flow networks over spaces of candidates.

`environment(kind, **options)` makes a space, `GFlowNet(environment)` learns to sample from it in
proportion to a reward. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Imported before the function `environment` below is defined: importing a submodule sets the
# package attribute of its name, and a later first import would hide the function.
import sampler.environment  # noqa: F401
from sampler.registry import resolve

if TYPE_CHECKING:
    from sampler.baselines import Random
    from sampler.environment import Environment
    from sampler.genetic import Genetic
    from sampler.gflownet import GFlowNet
    from sampler.mcmc import Mcmc

__all__ = [
    "ENVIRONMENTS",
    "LOSSES",
    "SAMPLERS",
    "GFlowNet",
    "Genetic",
    "Mcmc",
    "Random",
    "environment",
]

ENVIRONMENTS: dict[str, str] = {
    "crystal": "sampler.environments.crystal:Crystal",
    "hyper_grid": "sampler.environments.hyper_grid:HyperGrid",
    "hypercube": "sampler.environments.hypercube:Hypercube",
    "multi_fidelity": "sampler.environments.multi_fidelity:MultiFidelity",
    "scrabble": "sampler.environments.scrabble:Scrabble",
    "sequence": "sampler.environments.sequence:Sequence",
    "stack": "sampler.environments.stack:Stack",
    "subset": "sampler.environments.subset:Subset",
    "tetris": "sampler.environments.tetris:Tetris",
    "torus": "sampler.environments.torus:Torus",
}
SAMPLERS: dict[str, str] = {
    "genetic": "sampler.genetic:Genetic",
    "gflownet": "sampler.gflownet:GFlowNet",
    "mcmc": "sampler.mcmc:Mcmc",
    "random": "sampler.baselines:Random",
}
LOSSES: dict[str, str] = {
    "detailed_balance": "sampler.losses:detailed_balance",
    "flow_matching": "sampler.losses:flow_matching",
    "log_partition_variance": "sampler.losses:log_partition_variance",
    "sub_trajectory_balance": "sampler.losses:sub_trajectory_balance",
    "trajectory_balance": "sampler.losses:trajectory_balance",
}

_LAZY = {
    "GFlowNet": SAMPLERS["gflownet"],
    "Genetic": SAMPLERS["genetic"],
    "Mcmc": SAMPLERS["mcmc"],
    "Random": SAMPLERS["random"],
}


def environment(kind: str, **options: Any) -> Environment:
    """Make the space called `kind` (see `ENVIRONMENTS`, or `package.module:Class`)"""
    made: Environment = resolve(kind, ENVIRONMENTS, "environment")(**options)
    return made


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return resolve(_LAZY[name], {}, "name")
    raise AttributeError(f"module 'sampler' has no attribute {name!r}")

"""Log rewards of the field's test beds, each a function of terminal states `(n, w) → (n,)`.

`GFlowNet(grid).train(corners(grid))`. They can be pickled. Named axes: n rows, d coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sampler.environment import Environment
from sampler.restriction import Restricted

LogReward = Callable[[Tensor], Tensor]

_EPSILON = 1e-9
"""Grid values that equal a threshold but for rounding lie outside the open intervals."""
_MAX_MODES = 1_000_000


def corners(
    environment: Environment, r0: float = 0.1, r1: float = 0.5, r2: float = 2.0
) -> LogReward:
    """Log of R = r0 + r1 ∏ 1[1/4 < |x - 1/2|] + r2 ∏ 1[3/10 < |x - 1/2| < 4/10], x in [0, 1].

    2^d plateaus near the corners, a mode in each, and nearly nothing between: the smaller r0, the
    harder. `environment`: a hyper-grid or hypercube, restricted ones too; x are its coordinates
    scaled to [0, 1], on a grid i / (length - 1). ValueError for another space, or r0 < 0.
    Source: Bengio et al. 2021 (arXiv 2106.04399), section 4.1.
    """
    _check_weights(r0=r0, r1=r1, r2=r2)
    _check_has_coordinates(environment)
    return partial(_log_corners, environment, r0, r1, r2)


def cosine(environment: Environment, r0: float = 0.1, r1: float = 0.5) -> LogReward:
    """Log of R = r0 + r1 ∏ (cos(50 |x - 1/2|) + 1) φ(5 |x - 1/2|), φ the normal density.

    Ridges of many heights instead of plateaus. Space and errors as for `corners`. Source: the
    cosine variant of the hyper-grid, in the convention of torchgfn (`CosineReward`).
    """
    _check_weights(r0=r0, r1=r1)
    _check_has_coordinates(environment)
    return partial(_log_cosine, environment, r0, r1)


def torus(
    environment: Environment, power: float = 3.0, alpha: float = 1.0, beta: float = 1.0
) -> LogReward:
    """Log of R = (Σ sin(alpha θ_i) over even i + Σ cos(beta θ_i) over odd i + d)^power.

    `environment`: any whose candidates are vectors of d angles in radians, such as a torus. R is 0
    (log -inf) where every term is -1. Whole alpha and beta keep it periodic, and give it as many
    modes along each angle. Source: the torus of the continuous GFlowNets of Lahlou et al. 2023
    (arXiv 2301.12594), as written in the library gflownet (`proxy/torus.py`), there with power 3.
    """
    if power <= 0:
        raise ValueError(f"power: expected above 0, got {power}")
    return partial(_log_torus, environment, power, alpha, beta)


def is_corner_mode(environment: Environment, states: Tensor) -> Tensor:
    """Whether each terminal state is a mode of `corners`: 3/10 < |x_i - 1/2| < 4/10 for all i.

    `(n, w) → (n,)` bool.
    """
    _check_has_coordinates(environment)
    return _in_band(_offsets(environment, states)).all(1)


def corner_modes(environment: Environment) -> Tensor:
    """All modes of `corners` on a hyper-grid, terminal states `(m, w)` in sorted order.

    ValueError when no grid value lies in the band (choose another length), when there are more
    than a million, or for a space that is no hyper-grid.
    """
    from sampler.environments.hyper_grid import HyperGrid

    grid = environment.base if isinstance(environment, Restricted) else environment
    if not isinstance(grid, HyperGrid):
        raise ValueError(f"corner_modes: expected a hyper-grid, got {type(grid).__name__}")
    places = torch.arange(grid.length, dtype=torch.float64) / (grid.length - 1)
    band = _in_band((places - 0.5).abs()).nonzero().squeeze(1).tolist()
    if not band:
        raise ValueError(
            f"corner_modes: no value of a grid of length {grid.length} lies strictly between 3/10 "
            "and 4/10 from the middle; choose another length, such as 8 or 16"
        )
    if grid.n_dims * math.log(len(band)) > math.log(_MAX_MODES):
        raise ValueError(
            f"corner_modes: {len(band)}^{grid.n_dims} modes are more than {_MAX_MODES}; use "
            "is_corner_mode on samples instead"
        )
    axes = [torch.tensor(band)] * grid.n_dims
    coordinates = torch.cartesian_prod(*axes).reshape(-1, grid.n_dims)
    states = torch.cat([coordinates, torch.ones(len(coordinates), 1, dtype=torch.int64)], dim=1)
    if isinstance(environment, Restricted):
        states = states[environment.can_satisfy(states.to(_device(environment))).to(states.device)]
    return states.to(_device(environment))


def _log_corners(
    environment: Environment, r0: float, r1: float, r2: float, states: Tensor
) -> Tensor:
    offsets = _offsets(environment, states)
    is_outside = (offsets > 0.25 + _EPSILON).all(1).double()
    is_mode = _in_band(offsets).all(1).double()
    return (r0 + r1 * is_outside + r2 * is_mode).log()


def _log_cosine(environment: Environment, r0: float, r1: float, states: Tensor) -> Tensor:
    offsets = _offsets(environment, states)
    density = torch.exp(-0.5 * (5 * offsets).square()) / math.sqrt(2 * math.pi)
    return (r0 + r1 * ((torch.cos(50 * offsets) + 1) * density).prod(1)).log()


def _log_torus(
    environment: Environment, power: float, alpha: float, beta: float, states: Tensor
) -> Tensor:
    if len(states) == 0:
        return states.new_zeros(0, dtype=torch.float64)
    points = np.array(environment.decode(states), dtype=np.float64)
    angles = torch.from_numpy(points).to(states.device)
    even, odd = (alpha * angles[:, 0::2]).sin(), (beta * angles[:, 1::2]).cos()
    # Every term is at least -1, so only rounding makes the sum negative.
    total = (even.sum(1) + odd.sum(1) + angles.shape[1]).clamp_min(0.0)
    return power * total.log()


def _offsets(environment: Environment, states: Tensor) -> Tensor:
    """Distance of each coordinate from the middle of its axis, 0 … 1/2, float64 `(n, d)`."""
    return (environment.features(states) - 0.5).abs_()


def _in_band(offsets: Tensor) -> Tensor:
    return (offsets > 0.3 + _EPSILON) & (offsets < 0.4 - _EPSILON)


def _device(environment: Environment) -> torch.device:
    return environment.initial_states(0).device


def _check_has_coordinates(environment: Environment) -> None:
    """ValueError unless the features of the space are its coordinates scaled to [0, 1]."""
    space = environment.base if isinstance(environment, Restricted) else environment
    if getattr(space, "n_dims", None) != space.n_features:
        raise ValueError(
            f"expected a space of coordinates (hyper_grid, hypercube), got {type(space).__name__}"
        )


def _check_weights(**weights: float) -> None:
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name}: expected a finite number, 0 or more, got {weight}")

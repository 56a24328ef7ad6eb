"""The options of a sampler: what can be, said before anything is computed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sampler.environment import Environment


def find_device(name: str) -> torch.device:
    """The device that `name` means; ValueError if there is none such here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected 'auto', 'cpu' or 'cuda', got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {name!r} was asked for, but torch sees no CUDA device here")
    return device


def check_options(
    hidden: tuple[int, ...], learning_rate: float, log_z_learning_rate: float, exploration: float
) -> None:
    """ValueError for an option that cannot be."""
    if len(hidden) == 0 or min(hidden) < 1:
        raise ValueError(f"hidden: expected at least one width, each 1 or more, got {hidden}")
    if learning_rate <= 0 or log_z_learning_rate <= 0:
        raise ValueError(
            f"learning rates: expected above 0, got {learning_rate} and {log_z_learning_rate}"
        )
    if not 0 <= exploration <= 1:
        raise ValueError(f"exploration: expected a share from 0 to 1, got {exploration}")


def check_more_options(
    temperature: float,
    ema: float | None,
    beta_range: tuple[float, float] | None,
    sub_trajectory_decay: float,
) -> None:
    """The same for the rest of them."""
    if temperature <= 0:
        raise ValueError(f"temperature: expected above 0, got {temperature}")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema: expected a decay between 0 and 1, got {ema}")
    if beta_range is not None and not 0 < beta_range[0] < beta_range[1] < math.inf:
        raise ValueError(f"beta_range: expected 0 < low < high, got {beta_range}")
    if sub_trajectory_decay <= 0:
        raise ValueError(f"sub_trajectory_decay: expected above 0, got {sub_trajectory_decay}")


def check_examples(environment: Environment, examples: Tensor | None) -> None:
    """ValueError names the first of the examples that is not a finished candidate."""
    if examples is None or len(examples) == 0:
        return
    is_open = ~environment.is_terminal(examples)
    if bool(is_open.any()):
        raise ValueError(
            "examples: expected terminal states, such as encode gives, got "
            f"{examples[is_open][0].tolist()}, which is not finished"
        )


def n_examples_of(batch_size: int, examples: Tensor | None, fraction: float) -> int:
    """How many trajectories of a batch are replayed examples."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"example_fraction: expected a share from 0 to 1, got {fraction}")
    if examples is None or len(examples) == 0:
        return 0
    if fraction == 0:
        raise ValueError(
            f"example_fraction: expected above 0, got 0, with {len(examples)} examples, of which "
            "none would be used; name a share such as 0.25, or leave out examples"
        )
    return round(batch_size * fraction)

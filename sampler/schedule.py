"""What changes while a sampler trains, and when it has trained enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Shape = Literal["constant", "linear", "cosine"]
_SMOOTHING = 0.98


@dataclass(frozen=True)
class Schedule:
    """A share that falls from 1 to 0 over `n_steps` training steps, and stays there.

    "linear" falls evenly, "cosine" as (1 + cos πt) / 2 (Loshchilov & Hutter 2017, arXiv 1608.03983,
    equation 5, without restarts); "constant" stays 1.
    """

    shape: Shape = "constant"
    n_steps: int | None = None

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ValueError(f"schedule: expected {get_args(Shape)}, got {self.shape!r}")
        if self.shape != "constant" and (self.n_steps is None or self.n_steps < 1):
            raise ValueError(
                f"schedule {self.shape!r} needs schedule_steps, the steps until its end, "
                f"got {self.n_steps}"
            )

    def share(self, step: int) -> float:
        """What is left at `step`."""
        if self.shape == "constant" or self.n_steps is None:
            return 1.0
        t = min(step / self.n_steps, 1.0)
        return 1 - t if self.shape == "linear" else (1 + math.cos(math.pi * t)) / 2

    def between(self, start: float, end: float, step: int) -> float:
        """A value that goes from `start` to `end`."""
        return end + (start - end) * self.share(step)


@dataclass
class EarlyStopping:
    """Stop once the smoothed loss has not fallen by `tolerance` of itself for `patience` steps."""

    patience: int | None = None
    tolerance: float = 0.01
    smoothed: float = math.nan
    best: float = math.inf
    n_since: int = 0

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience: expected at least 1 step, got {self.patience}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance: expected a share from 0 to 1, got {self.tolerance}")

    def is_enough(self, loss: float) -> bool:
        """Hear of one more loss."""
        is_first = math.isnan(self.smoothed)
        self.smoothed = loss if is_first else _SMOOTHING * self.smoothed + (1 - _SMOOTHING) * loss
        if self.smoothed < self.best * (1 - self.tolerance):
            self.best, self.n_since = self.smoothed, 0
        else:
            self.n_since += 1
        return self.has_stopped

    @property
    def has_stopped(self) -> bool:
        """Whether the last loss was one too many: training again begins anew."""
        return self.patience is not None and self.n_since >= self.patience

    def reset(self) -> None:
        """Forget the losses so far: the reward has changed."""
        self.smoothed, self.best, self.n_since = math.nan, math.inf, 0

    def state(self) -> dict[str, float]:
        """All that `restore` needs."""
        return {"smoothed": self.smoothed, "best": self.best, "n_since": self.n_since}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave."""
        self.smoothed, self.best = state["smoothed"], state["best"]
        self.n_since = int(state["n_since"])

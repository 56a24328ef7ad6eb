"""Which values are better: the least, the greatest, or the nearest to a target."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:  # a worker reads the configuration, and starts sooner without pandas
    import pandas as pd

WAYS = ("minimize", "maximize")
EXPECTED = "expected `minimize`, `maximize` or `{target: NUMBER}`"


class Target(BaseModel):
    """The goal of a value as near as possible to `target`, in the property's units."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: float

    def __str__(self) -> str:
        return f"approach {self.target:g}"


Goal = Literal["minimize", "maximize"] | Target


def read_goal(given: object) -> Goal:
    """The goal that a configuration names; ValueError says what was expected."""
    if isinstance(given, Target) or given == "minimize" or given == "maximize":
        return given
    if isinstance(given, Mapping) and set(given) == {"target"}:
        return Target(target=_finite(given["target"]))
    close = difflib.get_close_matches(given, WAYS, n=1) if isinstance(given, str) else []
    hint = f"; did you mean `{close[0]}`?" if close else ""
    raise ValueError(f"{EXPECTED}, got {given!r}{hint}")


def _finite(number: Any) -> float:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not math.isfinite(number):
        raise ValueError(f"{EXPECTED}, a finite number, got target {number!r}")
    return float(number)


def sign(goal: Goal) -> float:
    """+1 where a greater `score` is better, -1 where a smaller one is."""
    return 1.0 if goal == "maximize" else -1.0


def score(values: pd.Series[float], goal: Goal) -> pd.Series[float]:
    """What is compared: the values `(n,)`, or their distances |value - target| to a target."""
    return (values - goal.target).abs() if isinstance(goal, Target) else values

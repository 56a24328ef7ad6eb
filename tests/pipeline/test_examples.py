"""Which known candidates a sampler is shown: the best by value and by gain, each once."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from pipeline.examples import best_observed, examples
from pipeline.goal import Target
from pipeline.pool import GainPool
from tests.fakes import Menu

MENU = Menu(40)
LADDER = ["low", "high"]
Row = tuple[int, str, float]


def ledger(*rows: Row, state: str = "done") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "candidate": [f"item {item}" for item, _, _ in rows],
            "family": [f"item {item}" for item, _, _ in rows],
            "fidelity": [fidelity for _, fidelity, _ in rows],
            "state": [state] * len(rows),
            "value": [value for _, _, value in rows],
        }
    )


def pool_of(*items: int) -> GainPool:
    states = MENU.from_keys([f"item {item}" for item in items])
    return GainPool(states, torch.arange(len(items), 0, -1).double())


ROWS: list[Row] = [(1, "low", 9.0), (2, "low", 1.0), (3, "high", 5.0), (4, "high", 7.0)]


@pytest.mark.parametrize(
    ("goal", "expected"),
    [("maximize", [4, 3]), ("minimize", [3, 4]), (Target(target=5.5), [3, 4])],
    ids=["maximize", "minimize", "target"],
)
def test_the_best_observed_are_those_of_the_highest_fidelity(
    goal: object, expected: list[int]
) -> None:
    keys = best_observed(ledger(*ROWS), LADDER, goal, 5)  # type: ignore[arg-type]
    assert keys == [f"item {i}" for i in expected]


def test_before_the_target_has_answered_a_cheaper_one_counts() -> None:
    assert best_observed(ledger(*ROWS[:2]), LADDER, "maximize", 5) == ["item 1", "item 2"]
    assert best_observed(ledger(*ROWS, state="failed"), LADDER, "maximize", 5) == []


def test_observed_ones_come_first_then_the_best_by_gain_each_once() -> None:
    shown = examples(MENU, ledger(*ROWS), LADDER, "maximize", pool_of(8, 4, 9, 10), 3)
    assert shown is not None
    assert MENU.keys(shown) == ["item 4", "item 8", "item 9"]


def test_a_tenth_is_chosen_by_value() -> None:
    rows: list[Row] = [(i, "high", float(i)) for i in range(10)]
    shown = examples(MENU, ledger(*rows), LADDER, "maximize", pool_of(*range(10, 40)), 20)
    assert shown is not None
    keys = [f"item {i}" for i in [9, 8, *range(10, 28)]]
    assert MENU.keys(shown) == keys


def test_without_anything_known_there_are_none() -> None:
    nothing = GainPool(MENU.initial_states(0), torch.zeros(0))
    assert examples(MENU, ledger(), LADDER, "maximize", nothing) is None


def test_none_wanted_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        examples(MENU, ledger(), LADDER, "maximize", pool_of(1), 0)

"""Figures against hand-computed values on hand-made ledgers."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from pipeline import metrics

COLUMNS = ["round", "candidate", "family", "fidelity", "state", "value", "actual_cost", "reason"]


def frame(*rows: tuple[Any, ...]) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=COLUMNS)
    numbers = ["value", "actual_cost"]
    return made.astype(dict.fromkeys(numbers, "float64"))


LEDGER = frame(
    (0, "a", "A", "low", "done", -99.0, 0.1, {}),  # best of all, but not at the target
    (0, "b", "B", "top", "done", 3.0, 1.0, {}),
    (0, "b'", "B", "top", "done", 2.0, 1.0, {}),  # a variant of b
    (1, "c", "C", "top", "done", 5.0, 1.0, {"mean": 4.0, "sd": 1.0}),
    (1, "d", "D", "top", "failed", -50.0, 1.0, {"mean": 1.0, "sd": 1.0}),
    (1, "e", "E", "top", "failed", None, 0.0, {}),  # a refund
    (1, "f", "F", "top", "reserved", None, None, {}),
    (1, "f", "F", "low", "done", 7.0, 0.1, {"mean": 7.5, "sd": 0.5}),
)


@pytest.mark.parametrize(
    ("goal", "best", "candidates"),
    [("minimize", 2.0, ["b'", "c"]), ("maximize", 5.0, ["c", "b"])],
)
def test_found_is_the_targets_best_of_each_family(
    goal: str, best: float, candidates: list[str]
) -> None:
    assert list(metrics.found(LEDGER, "top", goal)["candidate"]) == candidates
    assert metrics.best_value(LEDGER, "top", goal) == best
    assert list(metrics.top_k(LEDGER, "top", goal, 1)["candidate"]) == candidates[:1]


def test_nothing_found_is_none() -> None:
    for empty in (frame(), LEDGER[LEDGER["fidelity"] == "low"]):
        assert metrics.best_value(empty, "top", "minimize") is None
        assert metrics.top_k(empty, "top", "minimize", 5).empty


def test_equal_values_keep_the_order_of_reservation() -> None:
    rows = [(0, name, name, "top", "done", 1.0, 1.0, {}) for name in "zaqm"]
    assert list(metrics.found(frame(*rows), "top", "minimize")["candidate"]) == list("zaqm")


def test_spend_is_what_was_paid() -> None:
    assert metrics.spend(LEDGER) == pytest.approx(4.2)
    assert metrics.spend(frame()) == 0.0


def test_distinct_share_counts_families() -> None:
    assert metrics.distinct_share(LEDGER) == 6 / 8
    assert metrics.distinct_share(frame()) is None


def test_calibration_is_of_what_was_predicted_and_came_by_fidelity() -> None:
    figures = metrics.round_calibration(LEDGER)
    assert list(figures) == ["top", "low"]
    assert figures["top"]["n"] == 1
    assert figures["top"]["rmse"] == 1.0
    assert figures["low"]["rmse"] == 0.5
    assert metrics.round_calibration(LEDGER[LEDGER["round"] == 0]) == {}


def test_the_figures_of_a_round_are_its_own_and_the_campaigns_up_to_it() -> None:
    first = metrics.round_figures(LEDGER, 0, "top", "maximize")
    assert first["best"] == 3.0
    assert first["spend"] == pytest.approx(2.1)
    assert first["queries"] == 3
    assert first["failed"] == 0
    assert first["batch_diversity"] == pytest.approx(2 / 3)
    second = metrics.round_figures(LEDGER, 1, "top", "maximize")
    assert second["best"] == 5.0
    assert second["top_10_mean"] == 4.0  # of 5 and 3: b' is a variant of b
    assert second["round_cost"] == pytest.approx(2.1)
    assert second["spend"] == pytest.approx(4.2)
    assert second["failed"] == 2
    assert second["found_families"] == 2


def test_history_has_a_row_a_round() -> None:
    rows = metrics.history(LEDGER, "top", "minimize")
    assert list(rows["round"]) == [0, 1]
    assert list(rows["best"]) == [2.0, 2.0]
    assert "calibration" not in rows
    assert metrics.history(frame(), "top", "minimize").empty


def stepped(*values: float) -> pd.DataFrame:
    rows = [(0, f"{i}", f"{i}", "top", "done", value, 1.0, {}) for i, value in enumerate(values)]
    return frame(*rows)


@pytest.mark.parametrize(
    ("goal", "k", "below"), [("maximize", 1, 2.0), ("maximize", 9, 1.0), ("minimize", 1, 2.0)]
)
def test_the_level_below_the_kth_best_is_the_next_worse(goal: str, k: int, below: float) -> None:
    values = [3.0] * 8 + [2.0] * 8 + [1.0] * 8
    assert metrics.level_below(stepped(*values), "top", goal, k) == below


def test_values_that_differ_have_no_levels_and_nor_has_one_alone() -> None:
    different = stepped(*[float(i) for i in range(24)])
    assert metrics.level_below(different, "top", "maximize", 1) is None
    assert metrics.level_below(stepped(*[1.0] * 24), "top", "maximize", 1) is None
    assert metrics.level_below(stepped(*[1.0] * 24), "top", "maximize", 25) is None

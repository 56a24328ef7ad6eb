"""Figures asked of the ledger are those of its whole frame, and cost no more as it grows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import metrics
from pipeline.goal import Goal, Target
from pipeline.ledger import Ledger
from tests.fakes import a_query, comparable

GOALS: list[Goal] = ["minimize", "maximize", Target(target=2.0)]
ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),  # round
        st.sampled_from("abcd"),  # family
        st.sampled_from(["low", "target"]),
        st.sampled_from(["done", "done", "failed", "cancelled", "open", "again"]),
        st.sampled_from([1.0, 1.5, 2.0, 2.5, 3.0]),  # value: equals and equal distances
        st.sampled_from([0.1, 0.3, 1.0]),  # cost
    ),
    max_size=30,
)


def play(ledger: Ledger, rows: list[tuple[Any, ...]]) -> None:
    for i, (number, family, fidelity, state, value, cost) in enumerate(rows):
        key, reason = f"k{i}", {"mean": 0.5 * i, "sd": 1.0} if i % 2 else {}
        query = a_query(key, cost, family=family, fidelity=fidelity, round=number, reason=reason)
        ledger.reserve([query], "test", 1e9)
        if state == "done":
            ledger.commit(key, {"value": value}, value, cost, 0.1)
        elif state == "cancelled":
            ledger.cancel([key], "dropped")
        elif state != "open":
            ledger.fail(key, "went wrong", cost)
        if state == "again":
            ledger.reopen([key], 1e9)


def same(told: Any, expected: Any) -> None:
    assert told.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            same(told[name], value)
        else:
            assert told[name] == pytest.approx(value, nan_ok=True), name


@settings(max_examples=25)
@given(
    rows=ROWS,
    goal=st.sampled_from(GOALS),
    number=st.integers(0, 4),
    k=st.sampled_from([1, 3, 99]),
    through=st.sampled_from([None, 1, 2]),
)
def test_law_the_figures_of_the_ledger_are_those_of_its_frame(
    rows: list[tuple[Any, ...]],
    goal: Goal,
    number: int,
    k: int,
    through: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    ledger = Ledger.open(tmp_path_factory.mktemp("law") / "ledger.sqlite", {})
    with ledger.batch():
        play(ledger, rows)
    frame = ledger.to_frame()
    told = metrics.ledger_figures(ledger, number, "target", goal)
    same(told, metrics.round_figures(frame, number, "target", goal))
    part = frame if through is None else frame[frame["round"] <= through]
    expected, top = metrics.top_k(part, "target", goal, k), ledger.top("target", goal, k, through)
    assert list(top.columns) == list(expected.columns)
    assert comparable(top) == comparable(expected)
    ledger.close()


def test_one_family_that_fills_the_top_does_not_hide_the_others(ledger: Ledger) -> None:
    rows = [(0, "a", "target", "done", 0.001 * i, 0.0) for i in range(300)]
    with ledger.batch():
        play(ledger, [*rows, *((0, name, "target", "done", 5.0, 0.0) for name in "bc")])
    assert ledger.top("target", "minimize", 3)["family"].tolist() == ["a", "b", "c"]
    assert ledger.top("target", "minimize", 3)["key"].tolist() == ["k0", "k300", "k301"]


def test_only_the_rows_of_the_round_are_read(ledger: Ledger) -> None:
    with ledger.batch():
        play(ledger, [(i // 10, f"f{i}", "target", "done", float(i), 0.0) for i in range(100)])
    read: list[int] = []
    real = ledger._ask

    def counted(query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        found = real(query, values)
        read.append(len(found))
        return found

    ledger._ask = counted  # type: ignore[method-assign]
    metrics.ledger_figures(ledger, 9, "target", "minimize")
    assert sum(read) <= 10 + 80 + 10 + 3  # the round's, those looked at for the best, the best
    assert ledger.to_frame(["key"], 9)["key"].tolist() == [f"k{i}" for i in range(90, 100)]

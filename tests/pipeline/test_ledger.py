"""The ledger's laws: never over budget, never twice, never lost; whole or an error in one line."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.goal import Goal, Target
from pipeline.ledger import (
    Ledger,
    LedgerError,
    OverBudgetError,
    StorageError,
    affordable,
    query_key,
)
from pipeline.metrics import found
from tests.fakes import a_query
from tests.pipeline.ledgers import state_of

CONTRACT = [
    *("key", "campaign", "round", "candidate", "fidelity", "oracle", "state"),
    *("declared_cost", "actual_cost", "value", "error", "reason", "created_at", "finished_at"),
]
BUDGET = 5.0


KEYS = st.sampled_from([f"k{i}" for i in range(8)])
COSTS = st.sampled_from([0.1, 0.2, 0.3, 0.7, 1.0, 2.5])
MOVES = st.one_of(
    st.tuples(st.just("reserve"), st.lists(st.tuples(KEYS, COSTS), max_size=5)),
    st.tuples(st.just("start"), st.lists(KEYS, max_size=3)),
    st.tuples(st.just("commit"), KEYS),
    st.tuples(st.just("fail"), KEYS),
    st.tuples(st.just("refund"), KEYS),
    st.tuples(st.just("reopen"), st.none()),
)


@settings(max_examples=25)
@given(moves=st.lists(MOVES, max_size=15))
def test_law_any_sequence_keeps_the_budget_and_every_outcome(
    moves: list[tuple[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("law") / "ledger.sqlite"
    ledger = Ledger.open(path, {})
    held: dict[str, tuple[str, float]] = {}  # what the ledger ought to hold: state and cost
    for name, what in moves:
        if name == "reopen":
            ledger.close()
            ledger = Ledger.open(path, {})
        elif name == "reserve":
            _reserve(ledger, held, what)
        elif name == "start":
            ledger.start(what)
            for key in what:
                if held.get(key, ("", 0))[0] == "reserved":
                    held[key] = ("running", held[key][1])
        else:
            _finish(ledger, held, name, what)
        assert ledger.spend() + ledger.promised() <= BUDGET + 1e-8
        assert state_of(ledger) == {key: state for key, (state, _) in held.items()}
        ended = [cost for state, cost in held.values() if state in ("done", "failed")]
        assert ledger.spend() == pytest.approx(sum(ended))
    ledger.close()


def _reserve(ledger: Ledger, held: dict[str, tuple[str, float]], what: object) -> None:
    wanted = {key: cost for key, cost in what if key not in held}
    queries = [a_query(key, dict(what)[key]) for key, _ in what]
    committed = sum(cost for _, cost in held.values())
    if sum(wanted.values()) + committed > BUDGET + 1e-9:
        with pytest.raises(OverBudgetError):
            ledger.reserve(queries, "test", BUDGET)
        return
    assert sorted(ledger.reserve(queries, "test", BUDGET)) == sorted(wanted)
    held |= {key: ("reserved", cost) for key, cost in wanted.items()}


def _finish(ledger: Ledger, held: dict[str, tuple[str, float]], name: str, key: object) -> None:
    state, cost = held.get(key, ("", 0.0))

    def end() -> None:
        if name == "commit":
            ledger.commit(key, {"value": 1.5}, 1.5, cost, 0.1)
        else:
            ledger.fail(key, "why", cost if name == "fail" else 0.0)

    if state not in ("reserved", "running"):
        with pytest.raises(LedgerError, match="not open"):
            end()
        return
    end()
    held[key] = ("done" if name == "commit" else "failed", 0.0 if name == "refund" else cost)


def test_reserve_is_all_or_nothing(ledger: Ledger) -> None:
    with pytest.raises(OverBudgetError, match="costs 6; of 5 only 5 is left"):
        ledger.reserve([a_query(f"k{i}") for i in range(6)], "test", BUDGET)
    assert ledger.to_frame().empty
    ledger.reserve([a_query(f"k{i}") for i in range(5)], "test", BUDGET)
    assert ledger.promised() == 5


def test_decimal_costs_add_up_to_the_whole_budget(ledger: Ledger) -> None:
    for i in range(50):  # 50 × 0.1 is more than 5 in floating point
        ledger.reserve([a_query(f"k{i}", 0.1)], "test", BUDGET)
    with pytest.raises(OverBudgetError):
        ledger.reserve([a_query("one more", 0.1)], "test", BUDGET)


def test_a_held_key_is_free_whatever_its_state(ledger: Ledger) -> None:
    ledger.reserve([a_query("a", 4.0), a_query("b", 1.0)], "test", BUDGET)
    ledger.commit("a", {"value": 1.0}, 1.0, 4.0, 0.0)
    assert ledger.reserve([a_query("a", 4.0), a_query("b", 1.0)], "test", BUDGET) == []
    assert state_of(ledger) == {"a": "done", "b": "reserved"}


def test_a_key_twice_in_one_batch_is_one_query(ledger: Ledger) -> None:
    assert ledger.reserve([a_query("a"), a_query("a")], "test", 1.0) == ["a"]


def test_a_refund_costs_nothing_and_a_failure_its_price(ledger: Ledger) -> None:
    ledger.reserve([a_query("a"), a_query("b")], "test", BUDGET)
    ledger.fail("a", "could not start", 0.0)
    ledger.fail("b", "went wrong", 1.0, 2.5)
    assert ledger.spend() == 1.0
    assert ledger.promised() == 0.0
    frame = ledger.to_frame().set_index("key")
    assert frame.loc["a", "actual_cost"] == 0.0
    assert frame.loc["b", "error"] == "went wrong"
    assert frame.loc["b", "seconds"] == 2.5


def test_an_outcome_is_kept_whole(ledger: Ledger) -> None:
    ledger.reserve([a_query("a", 0.3)], "test", BUDGET)
    value = 0.1 + 0.2
    ledger.commit("a", {"energy": value, "gap": 1e-300}, value, 0.3, 1.0)
    (row,) = ledger.to_frame().to_dict("records")
    assert row["value"] == value
    assert row["properties"] == {"energy": value, "gap": 1e-300}
    assert row["description"] == {"formula": "Fe₂O₃"}
    assert row["reason"] == {"why": "test"}
    assert row["created_at"] <= row["finished_at"]


def test_the_table_has_the_columns_of_the_public_contract(ledger: Ledger) -> None:
    assert list(ledger.to_frame().columns)[: len(CONTRACT)] == CONTRACT
    with sqlite3.connect(ledger.path) as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(queries)")]
    assert names[: len(CONTRACT)] == CONTRACT


def test_queries_come_in_order_of_reservation(ledger: Ledger) -> None:
    keys = ["z", "a", "m"]
    ledger.reserve([a_query(k) for k in keys], "test", BUDGET)
    ledger.reserve([a_query("b", round=1)], "test", BUDGET)
    assert list(ledger.to_frame()["key"]) == [*keys, "b"]
    assert [row["key"] for row in ledger.open_queries()] == [*keys, "b"]
    assert [row["key"] for row in ledger.round_queries(1)] == ["b"]
    assert ledger.last_round() == 1
    ledger.start(["z"])
    assert ledger.counts() == {"target": {"reserved": 3, "running": 1}}


def test_an_empty_ledger_has_no_round_and_no_spend(ledger: Ledger) -> None:
    assert ledger.last_round() is None
    assert ledger.spend() == ledger.promised() == 0.0
    assert ledger.counts() == {}
    assert ledger.to_frame()["value"].dtype == "float64"


def test_known_values_cost_nothing_and_stay(ledger: Ledger) -> None:
    ledger.record_known([a_query("a"), a_query("b")], [1.0, 2.0], "test")
    ledger.record_known([a_query("a")], [9.0], "test")
    assert ledger.spend() == 0.0
    assert list(ledger.to_frame()["value"]) == [1.0, 2.0]
    assert ledger.reserve([a_query("a")], "test", BUDGET) == []


def test_about_is_kept_and_changed(tmp_path: Path) -> None:
    with_about = Ledger.open(tmp_path / "l.sqlite", {"campaign": "x", "config": "old"})
    with_about.set_about({"config": "new", "finished": "yes"})
    with_about.forget("finished")
    with_about.close()
    assert Ledger.read(tmp_path / "l.sqlite").about() == {"campaign": "x", "config": "new"}


def test_a_failed_transaction_leaves_nothing(ledger: Ledger) -> None:
    bad = a_query("b", reason={"why": object()})
    with pytest.raises(TypeError):
        ledger.reserve([a_query("a"), bad], "test", BUDGET)
    assert ledger.to_frame().empty
    ledger.reserve([a_query("a")], "test", BUDGET)  # and the ledger still works


def test_a_reader_sees_whole_transactions_while_a_writer_writes(ledger: Ledger) -> None:
    reader = Ledger.read(ledger.path)
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(len(reader.to_frame()))

    thread = threading.Thread(target=read)
    thread.start()
    for batch in range(30):
        ledger.reserve([a_query(f"{batch}-{i}", 0.01) for i in range(5)], "test", BUDGET)
    stop.set()
    thread.join()
    assert seen
    assert all(n % 5 == 0 for n in seen)  # never a part of a batch
    assert seen == sorted(seen)
    assert len(reader.to_frame()) == 150
    reader.close()


def test_a_reader_leaves_nothing_behind(ledger: Ledger) -> None:
    ledger.reserve([a_query("a")], "test", BUDGET)
    ledger.close()
    before = {p.name: p.read_bytes() for p in ledger.path.parent.iterdir()}
    reader = Ledger.read(ledger.path)
    assert len(reader.to_frame()) == 1
    reader.close()
    assert {p.name: p.read_bytes() for p in ledger.path.parent.iterdir()} == before
    assert list(before) == ["ledger.sqlite"]


def test_a_reader_cannot_write(ledger: Ledger) -> None:
    reader = Ledger.read(ledger.path)
    with pytest.raises(StorageError, match="cannot be written"):
        reader.reserve([a_query("a")], "test", BUDGET)
    reader.close()


def test_keys_are_stable_and_differ_by_every_part() -> None:
    assert query_key("branin", "low", "3,4") == "c74dd7617b8d31bf"
    parts = [("a", "low", "x"), ("a", "low", "y"), ("a", "top", "x"), ("b", "low", "x")]
    assert len({query_key(*p) for p in parts}) == 4
    assert query_key("a", "b", "cd") != query_key("a", "bc", "d")


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_affordable_allows_only_for_rounding(cost: float, left: float) -> None:
    assert affordable(cost, left) == (cost <= left + 1e-9 * max(1, left))


def test_reasons_are_json_that_other_programs_read(ledger: Ledger) -> None:
    ledger.reserve([a_query("a", reason={"why": "größer", "gain": -1.5})], "test", BUDGET)
    with sqlite3.connect(ledger.path) as db:
        (text,) = db.execute("SELECT reason FROM queries").fetchone()
    assert json.loads(text) == {"why": "größer", "gain": -1.5}


def test_a_batch_is_one_transaction_and_an_error_takes_all_of_it_back(ledger: Ledger) -> None:
    ledger.reserve([a_query(k) for k in "abc"], "test", BUDGET)
    reader = Ledger.read(ledger.path)
    with ledger.batch():
        ledger.commit("a", {"value": 1.0}, 1.0, 1.0, 0.0)
        ledger.fail("b", "why", 1.0)
        assert reader.spend() == 0  # nobody sees a part
    assert reader.spend() == 2
    with pytest.raises(LedgerError, match="not open"):
        _commit_all(ledger, "ca")
    assert state_of(ledger) == {"a": "done", "b": "failed", "c": "reserved"}
    with ledger.batch():  # an error that is caught inside takes back only its own part
        ledger.commit("c", {"value": 3.0}, 3.0, 1.0, 0.0)
        with pytest.raises(LedgerError, match="not open"):
            ledger.fail("a", "again", 1.0)
    assert state_of(ledger) == {"a": "done", "b": "failed", "c": "done"}
    reader.close()


def _commit_all(ledger: Ledger, keys: str) -> None:
    with ledger.batch():
        for key in keys:
            ledger.commit(key, {"value": 9.0}, 9.0, 1.0, 0.0)


def test_cancelled_costs_nothing_and_only_what_is_open_can_be(ledger: Ledger) -> None:
    ledger.reserve([a_query("a"), a_query("b"), a_query("c")], "test", BUDGET)
    ledger.commit("a", {"value": 1.0}, 1.0, 1.0, 0.0)
    ledger.start(["b"])
    for _ in range(2):  # again it does nothing
        ledger.cancel(["a", "b"], "dropped")
    assert state_of(ledger) == {"a": "done", "b": "cancelled", "c": "reserved"}
    assert (ledger.spend(), ledger.promised()) == (1.0, 1.0)
    row = ledger.to_frame().set_index("key").loc["b"]
    assert (row["error"], row["actual_cost"]) == ("dropped", 0.0)
    assert ledger.reserve([a_query("b")], "test", BUDGET) == []  # and it is never asked again


def test_a_second_try_is_paid_beside_the_first(ledger: Ledger) -> None:
    ledger.reserve([a_query("a"), a_query("b"), a_query("c")], "test", BUDGET)
    ledger.fail("a", "broke", 1.0, attempts=2)
    ledger.fail("b", "never began", 0.0)
    assert ledger.reopen(["a", "b", "c", "unknown"], BUDGET) == ["a", "b"]
    assert state_of(ledger) == {"a": "reserved", "b": "reserved", "c": "reserved"}
    assert (ledger.spend(), ledger.promised()) == (1.0, 3.0)
    ledger.commit("a", {"value": 2.0}, 2.0, 1.0, 0.0, attempts=1)
    ledger.cancel(["b"], "enough")
    assert ledger.spend() == 2.0
    row = ledger.to_frame().set_index("key").loc["a"]
    assert (row["actual_cost"], row["attempts"]) == (2.0, 3)
    assert row[["error"]].isna().all()
    ledger.reserve([a_query("d", 2.0)], "test", BUDGET)
    ledger.fail("d", "no", 2.0)
    with pytest.raises(OverBudgetError, match="trying again costs 2; only 0 is left"):
        ledger.reopen(["d"], BUDGET)


def test_a_handle_is_kept_while_a_query_is_open(ledger: Ledger) -> None:
    ledger.reserve([a_query("a"), a_query("b")], "test", BUDGET)
    ledger.start(["a"])
    ledger.commit("b", {"value": 1.0}, 1.0, 1.0, 0.0)
    ledger.note_handles({"a": "slurm 17", "b": "slurm 18"})
    frame = ledger.to_frame().set_index("key")
    assert frame.loc["a", "runner_handle"] == "slurm 17"
    assert frame["runner_handle"].isna().tolist() == [False, True]
    assert frame["started_at"].notna().tolist() == [True, False]


def test_a_clock_that_jumps_back_changes_no_order(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(["2030", "2030", "1970", "1970", "2001", "2001"])
    monkeypatch.setattr("pipeline.ledger._now", lambda: next(times))
    for key in "bca":
        ledger.reserve([a_query(key)], "test", BUDGET)
        ledger.fail(key, "why", 1.0)
    assert list(ledger.to_frame()["key"]) == ["b", "c", "a"]
    assert list(ledger.to_frame()["created_at"]) == ["2030", "1970", "2001"]


GOALS = ["minimize", "maximize", Target(target=2.0)]


@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_law_the_best_and_the_families_are_those_of_the_metrics(ledger: Ledger, goal: Goal) -> None:
    assert ledger.best("target", goal) is None
    values = [3.0, 1.0, 2.5, 1.0, 1.5, 9.0]
    queries = [
        a_query(f"k{i}", 0.1, family=f"family {i // 2}", fidelity="low" if i == 5 else "target")
        for i in range(len(values))
    ]
    ledger.reserve([*queries, a_query("open", 0.1)], "test", BUDGET)
    for query, value in zip(queries, values, strict=True):
        ledger.commit(query.key, {"value": value}, value, 0.1, 0.0)
    expected = found(ledger.to_frame(), "target", goal)
    top = expected.iloc[0]
    assert ledger.best("target", goal) == (top["candidate"], top["value"])
    assert ledger.n_families("target") == len(expected)


def test_a_narrow_frame_is_part_of_the_whole_one(ledger: Ledger) -> None:
    names = ["key", "value", "reason"]
    assert ledger.to_frame(names).columns.tolist() == names
    ledger.reserve([a_query("a"), a_query("b")], "test", BUDGET)
    ledger.commit("b", {"value": 2.0}, 2.0, 1.0, 0.0)
    pd.testing.assert_frame_equal(ledger.to_frame(names), ledger.to_frame()[names])

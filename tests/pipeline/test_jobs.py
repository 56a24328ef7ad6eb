"""Queries at work: an oracle runs once a query, and whatever it does is an outcome."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oracles.oracle import NotRun
from pipeline.jobs import (
    Bench,
    InlineRunner,
    Job,
    Outcome,
    ask,
    chunks,
    forget_result,
    locked,
    outcome,
    read_result,
    sync_results,
    write_result,
)
from sampler.environment import Environment
from tests import fakes
from tests.fakes import Killed, Menu, Price, price

ROOT = Path(__file__).parents[2]


class Scripted:
    """An oracle that does what it is told, and counts what it was asked."""

    fidelity, cost = "target", 1.0

    def __init__(self, act: Callable[[Sequence[Any]], Any], batch_size: int = 10) -> None:
        self.act, self.batch_size = act, batch_size
        self.asked: list[list[Any]] = []

    def query(self, candidates: Sequence[Any]) -> Any:
        self.asked.append(list(candidates))
        return self.act(candidates)


def jobs(*items: int, fidelity: int = 0) -> list[Job]:
    return [Job(f"key-{fidelity}-{i}", f"item {i}", fidelity) for i in items]


def bench(folder: Path, *ladder: Any, environment: Environment | None = None) -> Bench:
    return Bench(environment or Menu(10), ladder, folder)


def one(answer: Any) -> Outcome:
    return outcome("k", answer, 0.5)


def test_an_answer_is_in_its_file_and_the_same_when_read_again(tmp_path: Path) -> None:
    (made,) = bench(tmp_path, Price("target", 1.0)).answer(jobs(3))
    assert made.properties == {"value": price(3)}
    assert read_result(tmp_path, made.key) == made
    assert json.loads((tmp_path / made.key / "result.json").read_text())["ran"] is True


def test_answering_twice_runs_the_oracle_once(tmp_path: Path) -> None:
    oracle = Scripted(lambda items: [float(i) for i in items])
    here = bench(tmp_path, oracle)
    first = here.answer(jobs(1, 2))
    again = here.answer(jobs(2, 3, 1))
    assert oracle.asked == [[1, 2], [3]]
    assert [o.properties["value"] for o in again] == [2, 3, 1]
    assert first == [again[2], again[0]]


def test_a_failure_is_a_result_too(tmp_path: Path) -> None:
    oracle = Scripted(lambda items: [ValueError("no") for _ in items])
    here = bench(tmp_path, oracle)
    assert here.answer(jobs(1)) == here.answer(jobs(1))
    assert len(oracle.asked) == 1


def test_threads_at_once_run_the_oracle_once(tmp_path: Path) -> None:
    def slow(items: Sequence[int]) -> list[float]:
        time.sleep(0.05)
        return [float(i) for i in items]

    oracle = Scripted(slow)
    benches = [bench(tmp_path, oracle) for _ in range(5)]
    found: list[list[Outcome]] = []
    # In different orders, so that benches which locked as they come would wait for ever.
    orders = [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1), (1, 3)]
    threads = [
        threading.Thread(target=lambda b=b, o=o: found.append(b.answer(jobs(*o))), daemon=True)
        for b, o in zip(benches, orders, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 5
    assert sorted(item for asked in oracle.asked for item in asked) == [1, 2, 3]


def test_processes_at_once_run_the_oracle_once(tmp_path: Path) -> None:
    shutil.copy(fakes.__file__, tmp_path / "lab_of_two.py")
    log = tmp_path / "log"
    script = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path; from lab_of_two import Menu, Price\n"
        "from pipeline.jobs import Bench, Job\n"
        "oracle = Price('t', 1.0, log=sys.argv[3], seconds=0.2)\n"
        "bench = Bench(Menu(10), [oracle], Path(sys.argv[1]) / 'jobs')\n"
        "found = bench.answer([Job('a', 'item 1', 0), Job('b', 'item 2', 0)])\n"
        "print([o.properties['value'] for o in found])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(ROOT), str(log)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0] for process in running]
    assert printed[0] == printed[1] == f"{[price(1), price(2)]}\n"
    assert sorted(log.read_text().splitlines()) == ["t item 1", "t item 2"]


def test_a_half_written_result_does_not_count(tmp_path: Path) -> None:
    (job,) = jobs(4)
    (tmp_path / job.key).mkdir()
    (tmp_path / job.key / "result.tmp").write_text('{"key": "key-0-4", "prop')
    assert read_result(tmp_path, job.key) is None
    (made,) = bench(tmp_path, Price("target", 1.0)).answer([job])
    assert made.properties == {"value": price(4)}


def test_a_kill_before_the_result_stands_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.job_files.os.fsync", die)
        (tmp_path / "k").mkdir()
        with pytest.raises(Killed):
            write_result(tmp_path, Outcome("k", {"value": 1.0}))
    assert read_result(tmp_path, "k") is None


def test_locks_are_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(Killed), locked(tmp_path, ["b", "a"]):
        raise Killed
    with locked(tmp_path, ["a", "b"]):
        assert (tmp_path / "a" / "lock").exists()


def test_a_runner_answers_the_dearest_first(tmp_path: Path) -> None:
    cheap, dear = Price("low", 0.1), Price("target", 1.0)
    wanted = [*jobs(1, 2), *jobs(5, 6, fidelity=1)]
    runner = InlineRunner(bench(tmp_path, cheap, dear))
    answered = [o.key for o in runner.run(wanted)]
    runner.close()
    assert answered == ["key-1-5", "key-1-6", "key-0-1", "key-0-2"]


def test_an_inline_runner_hands_out_each_outcome_once_and_forgets_what_is_cancelled(
    tmp_path: Path,
) -> None:
    runner = InlineRunner(bench(tmp_path, Price("target", 1.0)))
    for _ in range(2):  # again it does nothing
        runner.submit(jobs(1, 2, 3))
    assert runner.running() == {"key-0-1", "key-0-2", "key-0-3"}
    assert runner.cancel(["key-0-2", "unknown"]) == {"key-0-2"}
    answered = [o.key for _ in range(3) for o in runner.poll()]
    assert answered == ["key-0-1", "key-0-3"]
    assert runner.running() == set()
    assert [o.key for o in runner.run(jobs(1))] == ["key-0-1"]  # from its file


def test_a_run_ends_when_what_it_waits_for_is_cancelled(tmp_path: Path) -> None:
    runner = InlineRunner(bench(tmp_path, Price("target", 1.0)))
    answered = []
    for answer in runner.run(jobs(1, 2, 3)):
        answered.append(answer.key)
        runner.cancel(["key-0-2", "key-0-3"])
    assert answered == ["key-0-1"]


def test_a_torn_result_is_set_aside_and_the_query_answered_again(tmp_path: Path) -> None:
    here = bench(tmp_path, Price("target", 1.0))
    path = tmp_path / "key-0-1" / "result.json"
    path.parent.mkdir()
    for n, torn in enumerate(["", '{"key": "key-0-1", "prop', "[1]", '{"strange": 1}'], start=1):
        path.write_text(torn)
        assert read_result(tmp_path, "key-0-1") is None
        assert (path.parent / f"result.{n}.json").read_text() == torn
        (made,) = here.answer(jobs(1))
        assert made.properties == {"value": price(1)}


def test_a_result_of_a_newer_version_counts(tmp_path: Path) -> None:
    oracle = Scripted(lambda items: [2.0 for _ in items])
    here = bench(tmp_path, oracle)
    path = tmp_path / "key-0-1" / "result.json"
    path.parent.mkdir()
    path.write_text('{"key": "key-0-1", "properties": {"value": 1.0}, "not known yet": 3}')
    assert [o.properties["value"] for o in here.answer(jobs(1))] == [1.0]
    assert oracle.asked == []


def test_a_forgotten_result_is_kept_for_people_and_the_query_asked_again(tmp_path: Path) -> None:
    oracle = Scripted(lambda items: [ValueError("no") for _ in items])
    here = bench(tmp_path, oracle)
    here.answer(jobs(1))
    forget_result(tmp_path, "key-0-1")
    here.answer(jobs(1))
    assert len(oracle.asked) == 2
    assert "no" in (tmp_path / "key-0-1" / "result.1.json").read_text()
    forget_result(tmp_path, "key-0-9")  # where there is none it does no harm


def test_results_that_are_synced_together_are_the_same_as_alone(tmp_path: Path) -> None:
    here = bench(tmp_path, Price("target", 1.0))
    made = [o for i in range(5) for o in here.answer(jobs(i), durable=False)]
    sync_results(tmp_path, [o.key for o in made])
    assert [read_result(tmp_path, o.key) for o in made] == made
    sync_results(tmp_path, [])
    with pytest.raises(FileNotFoundError):
        sync_results(tmp_path, ["there is none"])


def test_a_lock_that_is_held_is_told_without_waiting(tmp_path: Path) -> None:
    with locked(tmp_path, ["a"]):
        with pytest.raises(BlockingIOError), locked(tmp_path, ["b", "a"], wait=False):
            pass
        with locked(tmp_path, ["b"], wait=False):
            pass


def test_chunks_hold_each_job_once_in_order_and_no_more_than_asked_for() -> None:
    ladder = [Price("low", 0.1, batch_size=3), Price("target", 1.0, batch_size=2)]
    wanted = [job for i in range(7) for job in jobs(i, fidelity=i % 2)]
    pieces = chunks(wanted, ladder)
    assert [[j.candidate for j in p] for p in pieces] == [
        ["item 1", "item 3"],
        ["item 5"],
        ["item 0", "item 2", "item 4"],
        ["item 6"],
    ]


def test_an_oracle_without_batch_size_gets_one_at_a_time() -> None:
    class Single:
        fidelity, cost = "target", 1.0

        def query(self, candidates: Sequence[Any]) -> list[Any]:
            return [1.0 for _ in candidates]

    assert [len(piece) for piece in chunks(jobs(1, 2, 3), [Single()])] == [1, 1, 1]
    assert chunks([], [Single()]) == []


class Shaky(Menu):
    """A menu on which some items cannot be made."""

    def decode(self, states: torch.Tensor) -> list[Any]:
        return [ValueError("no such dish") if i % 2 else i for i in states[:, 0].tolist()]


def test_what_cannot_be_made_is_a_refund_and_the_rest_is_answered(tmp_path: Path) -> None:
    oracle = Scripted(lambda items: [float(i) for i in items])
    found = bench(tmp_path, oracle, environment=Shaky(10)).answer(jobs(1, 2, 3, 4))
    assert [o.ran for o in found] == [False, True, False, True]
    assert found[0].error == "the candidate could not be made: no such dish"
    assert [o.properties for o in found if o.ran] == [{"value": 2.0}, {"value": 4.0}]
    assert oracle.asked == [[2, 4]]


def test_an_oracle_is_not_asked_for_nothing(tmp_path: Path) -> None:
    oracle = Scripted(lambda items: [])
    found = bench(tmp_path, oracle, environment=Shaky(10)).answer(jobs(1, 3))
    assert [o.ran for o in found] == [False, False]
    assert oracle.asked == []


@pytest.mark.parametrize(
    ("answer", "properties"),
    [
        (1, {"value": 1.0}),
        (-2.5, {"value": -2.5}),
        (np.float32(0.5), {"value": 0.5}),
        (np.array(3), {"value": 3.0}),
        (torch.tensor(4.0), {"value": 4.0}),
        ({"energy": 1, "gap": np.float64(2.5)}, {"energy": 1.0, "gap": 2.5}),
        ({}, {}),
    ],
)
def test_numbers_are_values(answer: object, properties: dict[str, float]) -> None:
    found = one(answer)
    assert found == Outcome("k", properties, None, True, 0.5)
    assert all(type(number) is float for number in found.properties.values())


class Unfloatable:
    def __float__(self) -> float:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "much",
        "",
        [],
        [1.0, 2.0],
        np.zeros(3),
        1 + 2j,
        {"value": None},
        {"value": "much"},
        float("nan"),
        float("inf"),
        -float("inf"),
        {"value": 1.0, "gap": float("nan")},
        pytest.param(10**400, id="too large"),
        pytest.param(10**9999, id="far too large"),
        Unfloatable(),
    ],
)
def test_what_is_no_finite_number_is_a_paid_failure(answer: object) -> None:
    found = one(answer)
    assert found.properties == {}
    assert found.ran
    assert found.error is not None
    assert "oracle gave" in found.error
    assert len(found.error) <= 600


def test_an_exception_is_a_paid_failure_with_its_name() -> None:
    assert one(ValueError("cell\n  collapsed")) == Outcome(
        "k", error="ValueError: cell collapsed", seconds=0.5
    )
    assert one(KeyError()).error == "KeyError: KeyError"


def test_not_run_is_a_refund() -> None:
    assert one(NotRun("license expired")) == Outcome("k", {}, "license expired", False, 0.5)
    assert one(NotRun()).error == "NotRun"


def test_a_reason_is_text_that_a_database_takes() -> None:
    found = one(OSError("b\udcffd name"))
    assert found.error is not None
    found.error.encode("utf-8")


def test_whatever_an_oracle_does_is_one_answer_a_candidate() -> None:
    def complain(items: Sequence[Any]) -> Any:
        raise RuntimeError("no license")

    assert [str(a) for a in ask(Scripted(complain), [1, 2])] == ["no license"] * 2
    for bad in ([1.0], [1.0, 2.0, 3.0], []):
        answers = ask(Scripted(lambda _, bad=bad: bad), [1, 2])
        expected = f"the oracle gave {len(bad)} answers to 2 candidates"
        assert [str(a) for a in answers] == [expected] * 2
    assert [type(a) for a in ask(Scripted(lambda _: None), [1, 2])] == [TypeError] * 2
    assert ask(Scripted(lambda _: iter([1.0, 2.0])), [1, 2]) == [1.0, 2.0]
    assert ask(Scripted(np.array), [1, 2]) == [1, 2]


def test_ctrl_c_is_no_answer() -> None:
    def interrupt(items: Sequence[Any]) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(Scripted(interrupt), [1])


def test_time_is_shared_by_a_chunk(tmp_path: Path) -> None:
    found = bench(tmp_path, Price("target", 1.0, seconds=0.05)).answer(jobs(1, 2))
    assert all(0.05 <= o.seconds < 5 for o in found)


def test_a_chunk_leaves_no_file_open(tmp_path: Path) -> None:
    here = bench(tmp_path, Price("target", 1.0))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for i in range(10):
        here.answer(jobs(i))
    assert len(list(Path("/proc/self/fd").iterdir())) == before

"""The queue between the driver and its workers."""

from __future__ import annotations

import threading
import time

from flows.runners.backlog import Backlog, Work
from pipeline.jobs import Job


def work(*items: int, fidelity: int = 0, attempt: int = 1) -> Work:
    return Work(tuple(Job(f"k{i}", f"item {i}", fidelity) for i in items), attempt)


def alone(_: Work, __: int) -> int:
    return 1


def all_of_it(_: Work, waiting: int) -> int:
    return waiting


def test_the_dearest_comes_first_and_equals_in_order() -> None:
    backlog = Backlog()
    backlog.put([work(1), work(2, fidelity=2), work(3, fidelity=1), work(4, fidelity=2)])
    taken = [backlog.take(alone)[0].chunk[0].key for _ in range(4)]
    assert taken == ["k2", "k4", "k3", "k1"]


def test_a_stretch_is_of_one_fidelity_and_what_is_tried_again_goes_alone() -> None:
    backlog = Backlog()
    backlog.put([work(1), work(2), work(3, fidelity=1), work(4, attempt=2), work(5), work(6)])
    stretches = [[w.chunk[0].key for w in backlog.take(all_of_it)] for _ in range(4)]
    assert stretches == [["k3"], ["k1", "k2"], ["k4"], ["k5", "k6"]]


def test_what_must_wait_is_not_taken_before() -> None:
    backlog = Backlog()
    began = time.monotonic()
    backlog.put([work(1)], wait_s=0.2)
    backlog.put([work(2)])
    assert backlog.take(alone) == [work(2)]
    assert backlog.take(alone) == [work(1)]
    assert time.monotonic() - began >= 0.2


def test_what_is_dropped_is_gone_and_its_neighbours_stay() -> None:
    backlog = Backlog()
    backlog.put([work(1, 2), work(3), work(4)])
    backlog.put([work(5)], wait_s=0.01)
    backlog.drop({"k2", "k3", "k5"})
    assert [backlog.take(alone) for _ in range(2)] == [[work(1)], [work(4)]]
    time.sleep(0.02)
    backlog.put([work(6)])
    assert backlog.take(all_of_it) == [work(6)]


def test_closing_wakes_all_who_wait() -> None:
    backlog = Backlog()
    found: list[list[Work]] = []
    threads = [
        threading.Thread(target=lambda: found.append(backlog.take(alone)), daemon=True)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    backlog.close()
    for thread in threads:
        thread.join(timeout=10)
    assert found == [[], [], []]
    backlog.put([work(1)])
    assert backlog.take(alone) == []

"""Several runners as one: each job goes where its fidelity says, and none waits for the others."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from flows.execution import make_runner
from flows.runners.local import LocalRunner
from flows.runners.routes import Runners
from flows.runners.site import Site
from flows.runners.slurm import SlurmRunner
from pipeline.jobs import Bench, InlineRunner, Job, Outcome, Runner
from pipeline.places import Dask, Place
from tests.fakes import Menu, Price, price


class Silent(Runner):
    """Takes jobs and answers when it is told to."""

    def __init__(self) -> None:
        self.out: set[str] = set()
        self.came: list[Outcome] = []
        self.is_closed = False

    def submit(self, jobs: Sequence[Job]) -> None:
        self.out |= {job.key for job in jobs}

    def answer(self, key: str) -> None:
        self.came.append(Outcome(key, {"value": 0.0}))

    def poll(self, timeout: float | None = 0.0) -> list[Outcome]:
        if not self.came:
            time.sleep(timeout or 0.0)
        came, self.came = self.came, []
        self.out -= {outcome.key for outcome in came}
        return came

    def cancel(self, keys: Collection[str]) -> set[str]:
        stopped = self.out & set(keys)
        self.out -= stopped
        return stopped

    def running(self) -> set[str]:
        return set(self.out)

    def handles(self) -> dict[str, str]:
        return dict.fromkeys(self.out, "silent")

    def close(self) -> None:
        self.is_closed = True


def inline(folder: Path) -> InlineRunner:
    return InlineRunner(Bench(Menu(10), [Price("low", 0.1), Price("target", 1.0)], folder))


def jobs(fidelity: int, *items: int) -> list[Job]:
    return [Job(f"key-{fidelity}-{i}", f"item {i}", fidelity) for i in items]


def test_each_job_goes_to_the_runner_of_its_fidelity(tmp_path: Path) -> None:
    quick, slow = inline(tmp_path), Silent()
    both = Runners([quick, slow])
    both.submit([*jobs(0, 1, 2), *jobs(1, 3)])
    assert quick.running() == {"key-0-1", "key-0-2"}
    assert slow.running() == {"key-1-3"}
    assert both.running() == quick.running() | slow.running()
    assert both.handles() == {"key-1-3": "silent"}
    found = [outcome for _ in range(2) for outcome in both.poll(None)]
    assert [outcome.properties["value"] for outcome in found] == [price(1), price(2)]
    slow.answer("key-1-3")
    assert [outcome.key for outcome in both.poll(None)] == ["key-1-3"]
    assert both.poll(None) == []  # at once: nothing is out


def test_nobody_waits_for_the_silent_one_longer_than_asked(tmp_path: Path) -> None:
    slow, quick = Silent(), inline(tmp_path)
    both = Runners([quick, slow])
    both.submit(jobs(1, 1))
    began = time.monotonic()
    assert both.poll(0.2) == []
    assert 0.15 < time.monotonic() - began < 2
    both.submit(jobs(0, 5))
    assert [outcome.key for outcome in both.poll(60)] == ["key-0-5"]
    assert both.cancel(["key-1-1", "key-0-5"]) == {"key-1-1"}
    assert both.running() == set()


def test_one_that_cannot_be_closed_leaves_none_open() -> None:
    class Stuck(Silent):
        def close(self) -> None:
            raise OSError("stuck")

    other = Silent()
    with pytest.raises(OSError, match="stuck"):
        Runners([Stuck(), other]).close()
    assert other.is_closed


def test_places_make_their_runners_and_share_them(tmp_path: Path) -> None:
    site = Site(tmp_path, (), "", tmp_path)
    here, there = Place(), Place(runner="slurm")
    assert isinstance(make_runner(site, [here, here], 2), LocalRunner)
    assert isinstance(make_runner(site, [there], 2), SlurmRunner)
    mixed = make_runner(site, [here, here, there], 2)
    assert isinstance(mixed, Runners)
    first, second, third = mixed.by_fidelity
    assert first is second
    assert (type(first), type(third)) == (LocalRunner, SlurmRunner)
    mixed.close()
    clusters = [Place(runner="dask", dask=Dask(address=f"tcp://{h}:1")) for h in ("a", "a", "b")]
    two = make_runner(site, clusters, 2)
    assert isinstance(two, Runners)
    assert [len(two.all), two.by_fidelity[0] is two.by_fidelity[1]] == [2, True]

"""Queries on a Dask cluster, for many short ones: by Prefect's `DaskTaskRunner` and dask-jobqueue.

The cluster places and moves the work; attempts, time limits and results are kept as everywhere.
"""

from __future__ import annotations

import importlib
import itertools
import queue
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from flows.runners.backlog import Work
from flows.runners.dask_worker import answer, dismiss, interrupt
from flows.runners.site import Site
from flows.runners.verdict import judge
from pipeline.jobs import Job, Outcome, Runner, chunks, read_result
from pipeline.places import Dask, Place
from pipeline.queries import CampaignStoppedError

LOOK_S = 1.0
NO_WORKERS_S = 900.0
"""How long a cluster may be without any worker, as while a queue is full."""


class DaskRunner(Runner):
    """A Dask task for each chunk. `places`: the rules of each fidelity, cheapest first.

    When a Dask worker is lost the cluster moves its tasks; one that keeps losing them counts as an
    attempt. The processes of a killed driver or worker finish what they had begun, and the next one
    finds their results: the job's lock keeps it from working twice at once.
    """

    def __init__(self, site: Site, places: Sequence[Place], cluster: Dask) -> None:
        self.site = site
        self.places = tuple(places)
        self.cluster = cluster
        self._runner: Any = None
        self._out: set[str] = set()
        self._cancelled: set[str] = set()
        self._at_work: dict[Any, Work] = {}
        self._later: list[tuple[float, Work]] = []
        self._ready: list[Outcome] = []
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._looked = self._workers_seen = time.monotonic()

    def start(self) -> None:
        """Connect to the cluster, or start it."""
        if self._runner is not None:
            return
        self.site.write()
        made = _task_runner(self.cluster)
        made.__enter__()
        self._runner = made

    @property
    def client(self) -> Any:
        """The `distributed.Client`."""
        self.start()
        return self._runner.client

    def submit(self, jobs: Sequence[Job]) -> None:
        """Send jobs, the dearest first; a result that stands is only collected."""
        fresh = [job for job in jobs if job.key not in self._out]
        self._out |= {job.key for job in fresh}
        self._cancelled -= self._out
        found = {job.key: read_result(self.site.jobs, job.key) for job in fresh}
        self._ready += [outcome for outcome in found.values() if outcome is not None]
        missing = [job for job in fresh if found[job.key] is None]
        for piece in chunks(missing, self.site.ladder):
            self._send(Work(tuple(piece)))

    def _send(self, work: Work) -> None:
        if not self._at_work:
            self._workers_seen = time.monotonic()
        future = self.client.submit(
            answer,
            str(self.site.directory.resolve()),
            [asdict(job) for job in work.chunk],
            self.places[work.fidelity].time_limit_s,
            key=f"{work.chunk[0].key}-{work.attempt}-{next(self._numbers)}-{id(self)}",
            pure=False,
            priority=work.fidelity,
        )
        self._at_work[future] = work
        future.add_done_callback(self._ended.put)

    def poll(self, timeout: float | None = 0.0) -> list[Outcome]:
        """What has come; raises what stops a worker for good."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._send_due()
            self._judge_ended(0.0)
            self._look()
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if self._ready or not self._out or left <= 0:
                break
            self._judge_ended(min(left, 0.05 if self._later else 1.0))
        outcomes, self._ready = self._ready, []
        self._out -= {outcome.key for outcome in outcomes}
        return outcomes

    def _send_due(self) -> None:
        now = time.monotonic()
        due = [work for moment, work in self._later if moment <= now]
        self._later = [entry for entry in self._later if entry[0] > now]
        for work in due:
            self._send(work)

    def _judge_ended(self, seconds: float) -> None:
        """Judge all that has ended; waits so long for the first."""
        with suppress(queue.Empty):
            if seconds > 0:
                self._judge(self._ended.get(timeout=seconds))
            while True:
                self._judge(self._ended.get_nowait())

    def _look(self) -> None:
        """Each second: collect what stands though Dask did not say so; see that workers are left.

        A Dask worker that dies right after its work takes with it only the word that it is done.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        for future, work in list(self._at_work.items()):
            if all(read_result(self.site.jobs, job.key) is not None for job in work.chunk):
                self._judge(future, ended=False)
        if not self._at_work or self.client.scheduler_info()["workers"]:
            self._workers_seen = now
        if now - self._workers_seen > NO_WORKERS_S:
            raise CampaignStoppedError(
                f"the Dask cluster has had no workers for {NO_WORKERS_S / 60:g} minutes; see to it "
                "and run the same command again"
            )

    def _judge(self, future: Any, ended: bool = True) -> None:
        """Pass on what came of a task, or send it again."""
        work = self._at_work.pop(future, None)
        if work is None:  # cancelled
            return
        error = _error(future) if ended else None
        verdict = judge(self.site.jobs, self.places, [work], error, self._cancelled)
        self._ready += [outcome for outcome in verdict.outcomes if outcome.key in self._out]
        now = time.monotonic()
        self._later += [(now + wait_s, again) for again, wait_s in verdict.again]

    def cancel(self, keys: Collection[str]) -> set[str]:
        """Stop jobs, also at work: what else their chunk held is begun again."""
        stopped = (self._out & set(keys)) - {outcome.key for outcome in self._ready}
        if not stopped:
            return set()
        self._cancelled |= stopped
        hit = [f for f, work in self._at_work.items() if _rest(work, stopped) != work]
        works = [(0.0, self._at_work.pop(future)) for future in hit] + self._later
        self._later = [(due, left) for due, w in works if (left := _rest(w, stopped)) is not None]
        self.client.cancel(hit, force=True)
        self.client.run(interrupt, sorted(stopped), on_error="ignore")
        came = [read_result(self.site.jobs, key) for key in stopped]
        self._ready += [outcome for outcome in came if outcome is not None]
        stopped -= {outcome.key for outcome in self._ready}
        self._out -= stopped
        return stopped

    def running(self) -> set[str]:
        """The keys of all jobs that are out."""
        return set(self._out)

    def handles(self) -> dict[str, str]:
        """The Dask tasks of the jobs."""
        return {
            job.key: f"dask {future.key} {future.status}"
            for future, work in self._at_work.items()
            for job in work.chunk
        }

    def close(self) -> None:
        """Stop what runs and leave the cluster, which ends if it was started here."""
        if self._runner is None:
            return
        self.client.cancel(list(self._at_work), force=True)
        with suppress(OSError, TimeoutError):  # a cluster that is gone needs no good-bye
            self.client.run(dismiss, str(self.site.directory.resolve()))
        self._runner.__exit__(None, None, None)
        self._runner = None
        self._at_work.clear()
        self._later.clear()
        self._ready.clear()
        self._out.clear()


def _rest(work: Work, without: Collection[str]) -> Work | None:
    """What is left of a work, if anything is."""
    chunk = tuple(job for job in work.chunk if job.key not in without)
    return Work(chunk, work.attempt) if chunk else None


def _error(future: Any) -> str | None:
    """Why a task broke off; None when it did not. CampaignStoppedError when it says so."""
    if future.status == "cancelled":
        return "Dask cancelled the task"
    error = future.exception()
    if isinstance(error, CampaignStoppedError):
        raise error
    if error is not None:
        return f"Dask: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    told: str | None = future.result()
    return told


def _task_runner(cluster: Dask) -> Any:
    """Prefect's task runner for this cluster, not entered yet."""
    try:
        made = importlib.import_module("prefect_dask")
        if cluster.cluster_class is not None:
            importlib.import_module(cluster.cluster_class.rpartition(".")[0])
    except ImportError as error:
        raise CampaignStoppedError(
            f"execution.runner: dask needs what is not installed ({error}): "
            "pip install 'motherlode[dask]', or choose another runner"
        ) from None
    return made.DaskTaskRunner(
        address=cluster.address,
        cluster_class=cluster.cluster_class,
        cluster_kwargs=cluster.cluster_kwargs,
        adapt_kwargs=cluster.adapt_kwargs,
    )

"""Queries as Slurm jobs, each named by its key: they outlive their driver and are found again."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from flows.runners.site import Site, by_fidelity, write_job, write_whole
from flows.runners.slurm_commands import (
    Queued,
    SlurmTroubleError,
    sbatch,
    scancel,
    squeue,
    worker_script,
)
from flows.worker import BEGUN
from pipeline.config import digest
from pipeline.jobs import Job, Outcome, Runner, locked, read_result, write_result
from pipeline.places import Place
from pipeline.queries import CampaignStoppedError

ARRAY_FROM, ARRAY_MOST = 9, 1000
"""From so many jobs at once on they are an array, which is one request to Slurm; Slurm's usual
limit of an array."""
TROUBLE_S = 1800.0
"""How long Slurm may not answer before the campaign stops; the jobs go on meanwhile."""
KEYS = "keys.json"


@dataclass
class _Out:
    """A job that is out: not submitted yet while `id` is empty, gone from the queue `since`."""

    job: Job
    attempt: int = 1
    id: str = ""
    name: str = ""
    state: str = "waiting"
    due: float = 0.0
    since: float | None = None


class SlurmRunner(Runner):
    """One Slurm job a query, or an array of them. `places`: each fidelity's rules and resources.

    A job that has left the queue without a result, `grace_s` long, died with its node or was
    killed: it is submitted again, `attempts` times, and then fails with the end of its log.
    """

    def __init__(self, site: Site, places: Sequence[Place]) -> None:
        # Slurm tells a job's folder without links, and by it we know our own.
        self.site = replace(site, directory=site.directory.resolve())
        self.places = tuple(places)
        self.poll_s = min(place.poll_s for place in self.places if place.runner == "slurm")
        self._out: dict[str, _Out] = {}
        self._came: list[Outcome] = []
        self._looked = 0.0
        self._trouble_since: float | None = None

    def start(self) -> None:
        """Write down what the workers read."""
        self.site.write()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submit jobs; one in Slurm's queue is attached to, a result that stands is collected."""
        fresh = {job.key: _Out(job) for job in jobs if job.key not in self._out}
        if not fresh:
            return
        self.start()
        self._out |= fresh
        self._collect()
        self._advance(must_look=True)

    def poll(self, timeout: float | None = 0.0) -> list[Outcome]:
        """What has come; looks for results often and at the queue every `poll_s`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._collect()
            self._advance()
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if self._came or not self._out or left <= 0:
                outcomes, self._came = self._came, []
                return outcomes
            time.sleep(min(left, max(0.05, min(self.poll_s / 10, 1.0))))

    def cancel(self, keys: Collection[str]) -> set[str]:
        """Take jobs out of the queue, and wait until they have stopped."""
        chosen = [self._out[key] for key in self._out if key in keys]
        with_id = [out.id for out in chosen if out.id]
        if with_id:
            scancel(with_id)
            self._await_end(set(with_id))
        self._collect()
        stopped = {out.job.key for out in chosen} & set(self._out)
        for key in stopped:
            del self._out[key]
        return stopped

    def running(self) -> set[str]:
        """The keys of all jobs that are out."""
        return set(self._out) | {outcome.key for outcome in self._came}

    def handles(self) -> dict[str, str]:
        """Number and state of each job in the queue."""
        return {k: f"slurm {o.id} {o.state.lower()}" for k, o in self._out.items() if o.id}

    def close(self) -> None:
        """Leave the jobs to Slurm: the next driver attaches to them."""
        self._out.clear()
        self._came.clear()

    def _collect(self) -> None:
        for key, out in list(self._out.items()):
            outcome = read_result(self.site.jobs, key)
            if outcome is not None:
                del self._out[key]
                self._came.append(replace(outcome, attempts=out.attempt))

    def _advance(self, must_look: bool = False) -> None:
        """Look at the queue when it is time, and submit what is due."""
        now = time.monotonic()
        due = [out for out in self._out.values() if not out.id and out.due <= now]
        if not (due or must_look or now - self._looked >= self.poll_s) or not self._out:
            return
        try:
            # Before each submission: what an sbatch that broke off left is not submitted again.
            self._look(now)
            self._submit([out for out in due if not out.id])
            self._trouble_since = None
        except SlurmTroubleError as trouble:
            self._wait_out(trouble, now)

    def _look(self, now: float) -> None:
        self._looked = now
        queue = self._by_key(squeue(self.site.jobs))
        for key, out in list(self._out.items()):
            queued = queue.get(key)
            if queued is not None:
                out.id, out.name, out.state, out.since = queued.id, queued.name, queued.state, None
            elif out.id:
                out.state, out.since = "gone", now if out.since is None else out.since
                if now - out.since >= self.places[out.job.fidelity].grace_s:
                    self._vanished(out)

    def _by_key(self, queue: Sequence[Queued]) -> dict[str, Queued]:
        found: dict[str, Queued] = {}
        lists: dict[str, list[str]] = {}
        for queued in queue:
            if queued.index is None:
                found[queued.name] = queued
                continue
            if queued.name not in lists:
                text = (self.site.jobs / queued.name / KEYS).read_text(encoding="utf-8")
                lists[queued.name] = json.loads(text)
            found[lists[queued.name][queued.index]] = queued
        return found

    def _submit(self, due: Sequence[_Out]) -> None:
        """Submit what is due, the dearest first."""
        by_key = {out.job.key: out for out in due}
        for level in reversed(by_fidelity([out.job for out in due], len(self.places))):
            outs = [by_key[job.key] for job in level]
            if len(outs) < ARRAY_FROM:
                for out in outs:
                    self._submit_one(out)
            for start in range(0, len(outs) if len(outs) >= ARRAY_FROM else 0, ARRAY_MOST):
                self._submit_array(outs[start : start + ARRAY_MOST])

    def _submit_one(self, out: _Out) -> None:
        place, key = self.places[out.job.fidelity], out.job.key
        write_job(self.site.jobs, out.job, place.time_limit_s)
        script = worker_script(self.site.directory, place.modules, ["--key", key])
        out.id, out.name = sbatch(key, script, place, self.site.jobs, None), key
        out.state, out.since = "PENDING", None

    def _submit_array(self, outs: Sequence[_Out]) -> None:
        place = self.places[outs[0].job.fidelity]
        for out in outs:
            write_job(self.site.jobs, out.job, place.time_limit_s)
        keys = [out.job.key for out in outs]
        name = f"array-{digest(keys)}"
        (self.site.jobs / name).mkdir(exist_ok=True)
        write_whole(self.site.jobs / name / KEYS, keys)
        which = ["--array", f"{name}/{KEYS}"]
        script = worker_script(self.site.directory, place.modules, which)
        number = sbatch(name, script, place, self.site.jobs, len(keys))
        for index, out in enumerate(outs):
            out.id, out.name, out.state, out.since = f"{number}_{index}", name, "PENDING", None

    def _vanished(self, out: _Out) -> None:
        """Try a job again that left no result, or let it fail with the end of its log."""
        place, jobs = self.places[out.job.fidelity], self.site.jobs
        log = log_tail(jobs / out.name / f"slurm-{out.id}.out")
        told = f"the Slurm job {out.id} ended without a result, attempt {out.attempt} of "
        told += f"{place.attempts}; its log ends: {log}"
        if out.attempt < place.attempts and "DUE TO TIME LIMIT" not in log:
            out.due = time.monotonic() + place.backoff(out.attempt)
            out.attempt, out.id, out.state, out.since = out.attempt + 1, "", "waiting", None
            return
        ran = (jobs / out.job.key / BEGUN).exists()
        # A worker that still holds the lock works, whatever the queue says: it is waited for.
        with suppress(BlockingIOError), locked(jobs, [out.job.key], wait=False):
            if read_result(jobs, out.job.key) is None:
                outcome = Outcome(out.job.key, error=told, ran=ran, attempts=out.attempt)
                write_result(jobs, outcome)

    def _await_end(self, ids: set[str], most_s: float = 60.0) -> None:
        deadline = time.monotonic() + most_s
        while time.monotonic() < deadline:
            if ids.isdisjoint(queued.id for queued in squeue(self.site.jobs)):
                return
            time.sleep(0.2)
        raise CampaignStoppedError(f"Slurm did not stop the jobs {', '.join(sorted(ids))}")

    def _wait_out(self, trouble: SlurmTroubleError, now: float) -> None:
        """Try again later, each time after `poll_s`; too long, and the campaign stops."""
        self._trouble_since = now if self._trouble_since is None else self._trouble_since
        if now - self._trouble_since > TROUBLE_S:
            raise CampaignStoppedError(
                f"Slurm has not answered for {TROUBLE_S / 60:g} minutes: {trouble}; its jobs go on:"
                " run the same command again when it does"
            )
        for out in self._out.values():
            out.due = max(out.due, now + self.poll_s)


def log_tail(path: Path, most: int = 300) -> str:
    """The end of a job's log in one line."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(there is no log: it never began)"
    return " ".join(text.split())[-most:] or "(it is empty)"

"""What a worker must find, wherever it runs: the campaign's parts, and which jobs are meant.

It is in files beside the jobs, never in the ledger: SQLite's WAL does not work over a network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from oracles.oracle import Oracle
from pipeline.assemble import Parts, space_and_oracles
from pipeline.config import parse
from pipeline.jobs import Bench, Job
from pipeline.ledger import sync_file

SETUP, JOB = "setup.json", "job.json"


@dataclass(frozen=True)
class Site:
    """A campaign as its runners know it: its folder, its oracles, and how a worker makes them."""

    directory: Path
    ladder: tuple[Oracle, ...]
    config: str
    folder: Path

    @property
    def jobs(self) -> Path:
        """The folder of all jobs."""
        return self.directory / "jobs"

    def write(self) -> None:
        """Write what workers read; again it does no harm."""
        self.jobs.mkdir(parents=True, exist_ok=True)
        data = {"config": self.config, "folder": str(self.folder.resolve())}
        write_whole(self.jobs / SETUP, data)


def site_of(parts: Parts, directory: Path, folder: Path) -> Site:
    """The site of a campaign; `folder` is where its configuration lies."""
    ladder = tuple(rung.oracle for rung in parts.ladder)
    return Site(directory, ladder, parts.config.as_yaml(), folder)


def bench_of(directory: Path) -> Bench:
    """The place where the oracles of a directory's campaign run, made in a worker."""
    setup = json.loads((directory / "jobs" / SETUP).read_text(encoding="utf-8"))
    config = parse(yaml.safe_load(setup["config"]))
    folder = Path(setup["folder"])
    environment, ladder = space_and_oracles(config, folder)
    return Bench(environment, ladder, directory / "jobs", config.execution.cache_in(folder))


def write_job(jobs: Path, job: Job, time_limit_s: float | None) -> None:
    """Write down one job for a worker that gets only its key."""
    (jobs / job.key).mkdir(parents=True, exist_ok=True)
    write_whole(jobs / job.key / JOB, asdict(job) | {"time_limit_s": time_limit_s})


def read_job(jobs: Path, key: str) -> tuple[Job, float | None]:
    """A job and its time limit in seconds."""
    data = json.loads((jobs / key / JOB).read_text(encoding="utf-8"))
    limit = data.pop("time_limit_s")
    return Job(**data), limit


def write_whole(path: Path, data: Any) -> None:
    """Write JSON so that it is there whole or not at all."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(data), encoding="utf-8")
    sync_file(fresh)
    fresh.rename(path)


def by_fidelity(jobs: Iterable[Job], n: int) -> list[Sequence[Job]]:
    """Jobs of each of the n fidelities, cheapest first."""
    levels: list[list[Job]] = [[] for _ in range(n)]
    for job in jobs:
        levels[job.fidelity].append(job)
    return list(levels)

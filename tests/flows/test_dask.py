"""A real Dask cluster on this machine: what dies is tried again, what was done is never done twice.

Needs the extra `dask`; without it only the message that says so is tested.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.execution import make_runner
from flows.runners.dask import DaskRunner
from flows.runners.site import Site, site_of
from pipeline import Campaign
from pipeline.assemble import assemble
from pipeline.config import parse
from pipeline.jobs import Job, Outcome
from pipeline.places import Dask, Place
from pipeline.queries import CampaignStoppedError
from tests.fakes import comparable, price
from tests.flows.labs import lab, lines, wait_for

RULES = {"runner": "dask", "backoff_s": 0.05, "time_limit_s": 20.0}


def test_without_the_extra_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prefect_dask", None)  # as if it were not installed
    runner = make_runner(Site(tmp_path, (), "", tmp_path), [Place(runner="dask")], 2)
    assert isinstance(runner, DaskRunner)
    with pytest.raises(CampaignStoppedError, match=r"pip install 'motherlode\[dask\]'"):
        runner.start()
    runner.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("prefect_dask")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as running:
        yield running


def places(cluster: Any) -> list[Place]:
    return [Place(**RULES, dask=Dask(address=cluster.scheduler_address))] * 2


def runner_of(folder: Path, cluster: Any, **oracle: Any) -> DaskRunner:
    parts = assemble(parse(yaml.safe_load(lab(folder, "dask_lab", oracle).read_text())), folder)
    made = make_runner(site_of(parts, folder / "run", folder), places(cluster), 2)
    assert isinstance(made, DaskRunner)
    return made


def jobs(*items: int) -> list[Job]:
    return [Job(f"k{i}", f"item {i}", 1) for i in items]


def test_whatever_becomes_of_a_job_is_an_outcome(tmp_path: Path, cluster: Any) -> None:
    """One dies each time, one raises, one is killed the first time, one is cancelled at work."""
    runner = runner_of(tmp_path, cluster, dies=[1], fails=[2], hangs=[4])
    try:
        runner.submit(jobs(4))
        wait_for(lambda: "target item 4" in lines(tmp_path / "log"))
        assert runner.cancel(["k4", "unknown"]) == {"k4"}
        assert runner.running() == set()
        runner.submit(jobs(0, 1, 2))
        runner.submit(jobs(0, 1, 2))  # again it does nothing
        found: dict[str, Outcome] = {}
        while runner.running():
            found |= {outcome.key: outcome for outcome in runner.poll(30)}
    finally:
        runner.close()
    assert found["k0"].properties == {"value": price(0)}
    assert found["k1"].error == "the oracle's process died (exit 7), attempt 2 of 2"
    assert found["k2"].error == "RuntimeError: item 2 went wrong"
    assert sorted(lines(tmp_path / "log")) == [f"target item {i}" for i in (0, 1, 1, 2, 4)]


def test_a_campaign_whose_dask_worker_is_killed_equals_the_undisturbed_one(
    tmp_path: Path, cluster: Any
) -> None:
    path = lab(tmp_path, "dask_lab", {"seconds": 0.3})
    with Campaign.from_config(path, tmp_path / "undisturbed") as campaign:
        campaign.run()
        rows = comparable(campaign.ledger.to_frame())
    (tmp_path / "log").unlink()

    def made(parts: Any, directory: Path, folder: Path) -> DaskRunner:
        runner = make_runner(site_of(parts, directory, folder), places(cluster), 2)
        assert isinstance(runner, DaskRunner)
        return runner

    with Campaign.from_config(path, tmp_path / "run", runner=made) as campaign:
        campaign.runner.start()
        pids = campaign.runner.client.run(os.getpid)
        real, kills = campaign.runner.poll, [next(iter(pids.values()))]

        def poll(timeout: float | None = 0.0) -> list[Outcome]:
            if kills and len(lines(tmp_path / "log")) >= 2:
                os.kill(kills.pop(), signal.SIGKILL)
            return real(timeout)

        campaign.runner.poll = poll
        campaign.run()
        assert kills == []
        assert comparable(campaign.ledger.to_frame()) == rows
    assert sorted(lines(tmp_path / "log")) == sorted(set(lines(tmp_path / "log")))
    assert len(lines(tmp_path / "log")) == len(rows)

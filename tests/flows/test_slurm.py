"""A real Slurm, started by the test: jobs outlive their driver, and none is paid for twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.runners.site import Site, site_of
from flows.runners.slurm import SlurmRunner
from flows.runners.slurm_commands import squeue
from flows.worker import TIMED_OUT
from pipeline import Campaign
from pipeline.assemble import assemble
from pipeline.config import parse
from pipeline.jobs import Job, Outcome
from pipeline.ledger import Ledger
from pipeline.places import Place
from pipeline.queries import CampaignStoppedError
from tests.fakes import comparable
from tests.flows.labs import lab, lines, wait_for
from tests.flows.slurm_cluster import SlurmCluster

PLACE = Place(runner="slurm", poll_s=0.3, grace_s=0.5, backoff_s=0.1, cpus=1)
DRIVER = """
import sys
from flows.runners.site import site_of
from flows.runners.slurm import SlurmRunner
from pipeline import Campaign
from pipeline.places import Place
places = [Place(runner="slurm", poll_s=0.3, grace_s=0.5, backoff_s=0.1)] * 2
made = lambda parts, directory, folder: SlurmRunner(site_of(parts, directory, folder), places)
with Campaign.from_config(sys.argv[1], sys.argv[2], runner=made) as campaign:
    campaign.run()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    running = SlurmCluster(cpus=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(running.conf))
        yield running
    running.stop()


SHORT = {
    "initial": {"n": {"low": 1, "target": 1}},
    "selection": {"batch_size": 2, "n_proposals": 20},
    "budget": {"cost": 4, "rounds": 1},
}


def site(folder: Path, **oracle: object) -> Site:
    path = lab(folder, "slurm_lab", oracle)
    parts = assemble(parse(yaml.safe_load(path.read_text())), folder)
    return site_of(parts, folder / "run", folder)


def test_a_campaign_whose_driver_is_killed_equals_the_undisturbed_one_and_pays_nothing_twice(
    tmp_path: Path, cluster: SlurmCluster
) -> None:
    path, log = lab(tmp_path, "slurm_lab", {"seconds": 0.5}, **SHORT), tmp_path / "log"
    with Campaign.from_config(path, tmp_path / "undisturbed") as campaign:
        campaign.run()
        rows = comparable(campaign.ledger.to_frame())
    log.unlink()
    command = [sys.executable, "-c", DRIVER, str(path), str(tmp_path / "run")]
    with subprocess.Popen(command, env=cluster.environment) as killed:
        jobs = tmp_path / "run" / "jobs"
        wait_for(lambda: lines(log) and squeue(jobs))  # at work, while others wait
        killed.kill()
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ledger = Ledger.read(tmp_path / "run" / "ledger.sqlite")
    assert comparable(ledger.to_frame()) == rows
    ledger.close()
    assert len(lines(log)) == len(set(lines(log))) == len(rows)


def test_whatever_becomes_of_a_job_is_an_outcome(tmp_path: Path, cluster: SlurmCluster) -> None:
    """One is killed each time, one raises, one hangs beyond its limit."""
    limited = PLACE.model_copy(update={"time_limit_s": 0.5})
    runner = SlurmRunner(
        site(tmp_path, kills=[1], fails=[2], hangs=[3], is_loud=True), [limited, PLACE]
    )
    runner.submit([Job("k3", "item 3", 0), *(Job(f"k{i}", f"item {i}", 1) for i in (1, 2))])
    assert set(runner.handles()) == runner.running() == {"k1", "k2", "k3"}
    found: dict[str, Outcome] = {}
    while runner.running():
        found |= {outcome.key: outcome for outcome in runner.poll(10)}
    assert found["k2"].error == "RuntimeError: item 2 went wrong"
    assert found["k3"].error == TIMED_OUT
    assert found["k1"].error is not None
    assert "ended without a result, attempt 2 of 2; its log ends: " in found["k1"].error
    assert "garbage" in found["k1"].error
    assert (found["k1"].attempts, found["k1"].ran) == (2, True)
    assert lines(tmp_path / "log").count("target item 1") == 2


def test_an_array_is_attached_to_by_the_next_driver_and_cancelled_one_by_one(
    tmp_path: Path, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.runners.slurm.ARRAY_FROM", 2)
    here, two = site(tmp_path, hangs=[0, 1]), [Job(f"k{i}", f"item {i}", 1) for i in (0, 1)]
    gone = SlurmRunner(here, [PLACE, PLACE])
    gone.submit(two)
    ids = {key: name.split()[1] for key, name in gone.handles().items()}
    assert ids["k0"].removesuffix("_0") == ids["k1"].removesuffix("_1")
    gone.close()
    wait_for(lambda: len(lines(tmp_path / "log")) == 2)
    runner = SlurmRunner(here, [PLACE, PLACE])
    runner.submit(two)
    assert runner.handles() == {key: f"slurm {number} running" for key, number in ids.items()}
    assert len(squeue(here.jobs)) == 2
    assert runner.cancel(["k0", "unknown"]) == {"k0"}
    assert [queued.id for queued in squeue(here.jobs)] == [ids["k1"]]
    assert runner.cancel(["k1"]) == {"k1"}
    assert squeue(here.jobs) == []
    assert runner.poll(None) == []
    assert len(lines(tmp_path / "log")) == 2


def test_a_job_that_never_began_is_refunded_with_the_reason(
    tmp_path: Path, cluster: SlurmCluster
) -> None:
    here = site(tmp_path)
    runner = SlurmRunner(here, [PLACE.model_copy(update={"attempts": 1})] * 2)
    runner.start()
    (tmp_path / "slurm_lab.py").write_text("raise OSError('no license')")
    (outcome,) = runner.run([Job("k0", "item 0", 1)])
    assert outcome.ran is False
    assert outcome.error is not None
    assert "no license" in outcome.error


def test_what_slurm_refuses_stops_the_campaign_in_one_line(
    tmp_path: Path, cluster: SlurmCluster
) -> None:
    nowhere = PLACE.model_copy(update={"partition": "nowhere"})
    runner = SlurmRunner(site(tmp_path), [nowhere, nowhere])
    with pytest.raises(CampaignStoppedError, match=r"refuses: .*[Ii]nvalid partition") as told:
        runner.submit([Job("k0", "item 0", 1)])
    assert "\n" not in str(told.value)


def test_what_slurm_would_begin_again_by_itself_is_our_attempt_instead(
    tmp_path: Path, cluster: SlurmCluster
) -> None:
    """To requeue a job is refused, also where `options` ask for it; a lost node is an attempt."""
    asking = PLACE.model_copy(update={"options": ("--requeue",)})
    runner = SlurmRunner(site(tmp_path, hangs=[0], first_only=True), [asking, asking])
    runner.submit([Job("k0", "item 0", 1)])
    wait_for(lambda: lines(tmp_path / "log"))
    _, number, _ = runner.handles()["k0"].split()
    assert "Requeue=0" in cluster.ask("scontrol", "show", "job", number)
    assert not cluster.does("scontrol", "requeue", number)
    try:
        cluster.set_node("down")
        wait_for(lambda: not squeue(tmp_path / "run" / "jobs"))
    finally:
        cluster.set_node("resume")
    (outcome,) = runner.run([Job("k0", "item 0", 1)])
    assert (outcome.attempts, outcome.error) == (2, None)
    assert len(lines(tmp_path / "log")) == 2

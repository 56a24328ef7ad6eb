"""What is said to Slurm, and what is made of its answers, without one."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flows.runners import slurm, slurm_commands
from flows.runners.site import Site
from flows.runners.slurm import SlurmRunner, log_tail
from flows.runners.slurm_commands import (
    Queued,
    SlurmTroubleError,
    sbatch,
    sbatch_command,
    squeue,
    worker_script,
)
from pipeline.jobs import Job, Outcome, locked, write_result
from pipeline.places import Place
from pipeline.queries import CampaignStoppedError

PLACE = Place(runner="slurm", poll_s=0.01, grace_s=0, backoff_s=0)
NASTY = 'a b\'; touch pwned; $(touch pwned) `touch pwned` "q" %j'


def test_resources_are_options_one_argument_each() -> None:
    place = Place(
        runner="slurm",
        partition="gpu",
        time="1-02:00:00",
        cpus=8,
        mem="32G",
        gres="gpu:a100:2",
        account="me",
        qos="long",
        options=("--constraint=avx2 & fast", "--requeue"),
    )
    command = sbatch_command("3fa85f64", place, Path("/runs/x y/jobs"), None)
    assert command[:2] == ["sbatch", "--parsable"]
    assert command[-2:] == ["--requeue", "--no-requeue"]  # of two, the last holds
    assert set(command[2:-2]) == {
        *("--job-name=3fa85f64", "--chdir=/runs/x y/jobs", "--input=/dev/null"),
        *("--output=3fa85f64/slurm-%j.out", "--partition=gpu", "--time=1-02:00:00"),
        *("--cpus-per-task=8", "--mem=32G", "--gres=gpu:a100:2", "--account=me", "--qos=long"),
        "--constraint=avx2 & fast",
    }


def test_an_array_and_a_time_limit() -> None:
    place = PLACE.model_copy(update={"time_limit_s": 61.0})
    command = sbatch_command("array-1", place, Path("/jobs"), 12)
    assert "--array=0-11" in command
    assert "--output=array-1/slurm-%A_%a.out" in command
    assert "--time=4" in command  # minutes: ours, and time to start
    assert not [option for option in command if option.startswith(("--mem", "--gres"))]


def test_nothing_in_a_script_is_read_by_its_shell(tmp_path: Path) -> None:
    folder = tmp_path / NASTY
    folder.mkdir()
    script = worker_script(folder, [], ["--key", "k"])
    *_, last = script.splitlines()
    assert shlex.split(last)[-3:] == [str(folder), "--key", "k"]
    as_echo = script.replace("exec ", "printf '%s\\n' ", 1)
    done = subprocess.run(["bash"], input=as_echo, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-3:] == [str(folder), "--key", "k"]
    assert [p.name for p in tmp_path.iterdir()] == [NASTY]


def test_modules_are_loaded_in_a_login_shell_before_the_work() -> None:
    first, second, *_ = worker_script(Path("/x"), ["vasp/6;ls"], []).splitlines()
    assert (first, second) == ("#!/bin/bash -l", "module load 'vasp/6;ls' || exit 1")


def scripted(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], tuple[int, str, str]]
) -> list[str]:
    """Slurm's commands answer this: exit, output, complaint; the list of those that were called."""
    called: list[str] = []

    def run(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        called.append(command[0])
        return subprocess.CompletedProcess(command, *answer(command[0]))

    monkeypatch.setattr(slurm_commands.subprocess, "run", run)
    return called


def test_only_our_own_jobs_that_work_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [
        "17|N/A|k0|RUNNING|/a|b/jobs",
        "18_3|3|array-x|PENDING|/a|b/jobs",
        "19|N/A|k0|RUNNING|/elsewhere/jobs",
        "20|N/A|k1|COMPLETING|/a|b/jobs",
    ]
    scripted(monkeypatch, lambda _: (0, "\n".join(told) + "\n", ""))
    assert squeue(Path("/a|b/jobs")) == [
        Queued("17", None, "k0", "RUNNING"),
        Queued("18_3", 3, "array-x", "PENDING"),
    ]


@pytest.mark.parametrize(
    ("complaint", "error", "told"),
    [
        ("Unable to contact slurm controller", SlurmTroubleError, "Unable"),
        ("sbatch: error: Socket timed out on send", SlurmTroubleError, "timed out"),
        ("Job violates policy (job submit limit, ...)", SlurmTroubleError, "submit limit"),
        ("error: invalid partition: nowhere", CampaignStoppedError, "refuses: error: invalid"),
        ("", CampaignStoppedError, "refuses: exit 1"),
    ],
    ids=["controller", "socket", "limit", "partition", "silent"],
)
def test_what_may_pass_is_told_from_what_will_not(
    monkeypatch: pytest.MonkeyPatch, complaint: str, error: type[Exception], told: str
) -> None:
    scripted(monkeypatch, lambda _: (1, "", complaint))
    with pytest.raises(error, match=told):
        sbatch("k", "#!/bin/bash\n", PLACE, Path("/jobs"), None)


def test_without_slurm_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CampaignStoppedError, match=r"needs the program `squeue`.*on the PATH"):
        squeue(Path("/jobs"))


def runner(folder: Path, **place: object) -> SlurmRunner:
    return SlurmRunner(Site(folder, (), "", folder), [PLACE.model_copy(update=place)])


def test_a_submission_that_broke_off_but_arrived_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue: list[str] = []

    def answer(command: str) -> tuple[int, str, str]:
        if command == "squeue":
            return 0, "\n".join(queue), ""
        queue.append(f"7|N/A|k|PENDING|{tmp_path.resolve()}/jobs")
        return 1, "", "Socket timed out on send/recv operation"

    called = scripted(monkeypatch, answer)
    here = runner(tmp_path)
    here.submit([Job("k", "c", 0)])
    assert here.handles() == {}
    here.poll(0.2)
    assert here.handles() == {"k": "slurm 7 pending"}
    assert called.count("sbatch") == 1


def test_while_slurm_is_silent_nothing_fails_and_after_long_the_campaign_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, lambda _: (1, "", "Unable to contact slurm controller"))
    here = runner(tmp_path)
    here.submit([Job("k", "c", 0)])
    assert here.poll(0.1) == []
    assert here.running() == {"k"}
    monkeypatch.setattr(slurm, "TROUBLE_S", 0.0)
    with pytest.raises(CampaignStoppedError, match="has not answered for 0 minutes: Unable"):
        here.poll(0.2)


def vanishing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Slurm that takes every job and shows none of them."""
    return scripted(monkeypatch, lambda command: (0, "5\n" if command == "sbatch" else "", ""))


def test_a_job_that_vanishes_is_tried_again_and_then_fails_unless_its_result_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = vanishing(monkeypatch)
    here = runner(tmp_path, attempts=3)
    (outcome,) = here.run([Job("k", "c", 0)])
    assert called.count("sbatch") == 3
    assert (outcome.attempts, outcome.ran) == (3, False)
    assert outcome.error is not None
    assert outcome.error.endswith("its log ends: (there is no log: it never began)")
    again = runner(tmp_path)
    assert list(again.run([Job("k", "c", 0)])) == [
        outcome.__class__(**vars(outcome) | {"attempts": 1})
    ]
    late = runner(tmp_path, grace_s=30.0)
    late.submit([Job("k2", "c", 0)])
    assert late.poll(0.1) == []
    write_result(tmp_path / "jobs", Outcome("k2", {"value": 1.0}))
    assert [found.properties for found in late.poll(1)] == [{"value": 1.0}]


def test_a_job_whose_lock_is_held_works_whatever_the_queue_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vanishing(monkeypatch)
    here = runner(tmp_path, attempts=1)
    with locked(tmp_path / "jobs", ["k"]):
        here.submit([Job("k", "c", 0)])
        assert here.poll(0.2) == []
        assert here.running() == {"k"}
    (outcome,) = here.poll(1)
    assert outcome.error is not None


def test_a_time_limit_of_slurms_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = vanishing(monkeypatch)
    log = tmp_path / "jobs" / "k" / "slurm-5.out"
    log.parent.mkdir(parents=True)
    log.write_text("working\nslurmstepd: error: *** JOB 5 CANCELLED DUE TO TIME LIMIT ***\n")
    (outcome,) = runner(tmp_path).run([Job("k", "c", 0)])
    assert called.count("sbatch") == 1
    assert outcome.error is not None
    assert "TIME LIMIT" in outcome.error


def test_the_end_of_a_log_is_one_short_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x\n" * 999 + b"\xff broken\n")
    assert log_tail(tmp_path / "log").endswith("x x \ufffd broken")
    assert len(log_tail(tmp_path / "log")) <= 300
    (tmp_path / "log").write_text("\n")
    assert log_tail(tmp_path / "log") == "(it is empty)"

"""Prefect as a team runs it: one shared server, a work pool, several campaigns at once."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from prefect.utilities.importtools import import_object

from flows.interrupts import INTERRUPTED
from pipeline import Campaign
from tests.flows.prefect_server import Lab, Server, gone, wait_until

REPOSITORY = Path(__file__).parents[2]
PREFECT_KILLS_AFTER_S = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("shared"))
    try:
        started.ready()
        yield started
    finally:
        started.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "lab", tmp_path / "lab" / "runs" / "gated")
    yield made
    made.gate.touch()  # whatever still waits there goes


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Lab]:
    """A folder with our prefect.yaml, in which `configs/branin.yaml` is a campaign at a gate."""
    shutil.copy(REPOSITORY / "prefect.yaml", tmp_path)
    lab = Lab(tmp_path / "configs", tmp_path / "runs" / "gated", "branin.yaml")
    yield lab
    lab.gate.touch()


def cancel(server: Server, flow_run: str, *processes: psutil.Process) -> None:
    """Cancel a run on Prefect's page: its processes end, and long before Prefect would kill them.

    So the run itself stopped them in order. Prefect then says that it is cancelled.
    """
    server.cancel(flow_run)
    began = time.monotonic()
    wait_until(lambda: all(gone(process) for process in processes))
    assert time.monotonic() - began < PREFECT_KILLS_AFTER_S
    assert server.ended(flow_run)[0] == "Cancelled"


def test_prefect_yaml_names_the_flow_its_parameters_and_a_config_and_pulls_nothing() -> None:
    from flows.deploy import advance

    asked = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    assert [list(step) for step in asked["pull"]] == [
        ["prefect.deployments.steps.set_working_directory"]
    ]
    for deployment in asked["deployments"]:
        assert import_object(deployment["entrypoint"]) is advance
        inspect.signature(advance.fn).bind(**deployment["parameters"])
        assert (REPOSITORY / deployment["parameters"]["config"]).exists()


@pytest.mark.slow
def test_a_worker_advances_a_campaign_which_survives_cancelling_and_kill_9(
    server: Server, project: Lab, tmp_path: Path
) -> None:
    server.do(
        "prefect", "--no-prompt", "work-pool", "create", "motherlode", "-t", "process", cwd=tmp_path
    )
    server.do("prefect", "--no-prompt", "deploy", "--all", cwd=tmp_path)
    deployment = server.deployment("branin")
    (tmp_path / "elsewhere").mkdir()
    server.start("prefect", "worker", "start", "--pool", "motherlode", cwd=tmp_path / "elsewhere")

    cancelled = server.run(deployment)
    oracle, driver = project.at_work(), project.driver()
    cancel(server, cancelled, oracle, driver)
    assert project.states() == {"running": 3}

    killed = server.run(deployment)
    oracle, driver = project.at_work(2), project.driver()
    driver.kill()
    assert server.ended(killed)[0] == "Crashed"
    project.gate.touch()
    wait_until(lambda: gone(oracle))  # by itself: it leaves its answer for the next driver
    with Campaign.resume(project.directory, overrides=["budget.cost=4"]):
        pass

    state, message = server.ended(server.run(deployment))
    assert (state, message) == (
        "Completed",
        "gated: 1 rounds played; budget.cost is 4.0 (the file says 3.0)",
    )
    assert project.states() == {"done": 3}
    first, again, *others = project.asked()
    assert first == again, "what was cancelled at work is asked again"
    assert len({first, *others}) == 3, "what the killed run had asked is not"
    assert len(others) == 2


def test_two_campaigns_run_at_once_and_one_is_cancelled_on_its_page(
    server: Server, tmp_path: Path
) -> None:
    labs = {name: Lab(tmp_path / name, tmp_path / name / "run") for name in ("a", "b")}

    def start(name: str) -> subprocess.Popen[bytes]:
        command = ["motherlode", "run", "gated.yaml", f"name={name}", "--dir", "run"]
        return server.start(*command, cwd=tmp_path / name)

    runs = {name: start(name) for name in labs}
    try:
        oracle, _ = [lab.at_work() for lab in labs.values()]  # both, before either may go on
        (page,) = [row["id"] for row in server.found("flow_runs") if row["name"] == "a"]
        cancel(server, page, oracle, psutil.Process(runs["a"].pid))
        assert runs["a"].wait() == INTERRUPTED
        assert labs["a"].states() == {"running": 3}
    finally:
        for lab in labs.values():
            lab.gate.touch()
    runs["a"] = start("a")
    for name, run in runs.items():
        assert run.wait(timeout=120) == 0, server.out.read_text()
        assert labs[name].states() == {"done": 3}
    assert len(labs["b"].asked()) == 3
    shown = {row["key"] for row in server.found("artifacts")}
    assert shown >= {"a-batch", "a-progress", "b-batch", "b-progress"}
    assert "Traceback" not in server.out.read_text()


@pytest.mark.slow
def test_serve_that_was_killed_is_started_again_beside_its_last_run(
    server: Server, lab: Lab
) -> None:
    command = ["motherlode", "serve", "gated.yaml", "--cron", "0 2 1 1 *"]
    serve = server.start(*command, cwd=lab.config.parent)
    deployment = server.deployment("gated")
    first = server.run(deployment)
    lab.at_work()
    driver = lab.driver()
    serve.kill()
    serve.wait()
    server.start(*command, cwd=lab.config.parent)
    in_use = f"inusebyprocess{driver.pid}on"  # the terminal may break the line anywhere
    wait_until(lambda: in_use in "".join(server.out.read_text().split()))
    assert server.ended(server.run(deployment))[0] == "Busy"
    lab.gate.touch()
    assert server.ended(first) == ("Completed", "gated: 1 rounds played")
    assert lab.states() == {"done": 3}
    assert len(lab.asked()) == len(set(lab.asked())) == 3

    lab.gate.unlink()
    with Campaign.resume(lab.directory, overrides=["budget.cost=5"]):
        pass
    cancelled = server.run(deployment)
    cancel(server, cancelled, lab.at_work(4), lab.driver())
    assert lab.states() == {"done": 3, "running": 2}

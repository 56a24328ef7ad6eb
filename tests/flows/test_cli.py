"""The command line end to end: real processes, a real Prefect server, a real MLflow store."""

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from pipeline import Campaign
from pipeline.ledger import Ledger
from tests import fakes
from tests.fakes import comparable, menu_config
from tests.flows.labs import wait_for

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs" / "branin.yaml"
QUICK = ["sampler.n_steps=10", "space.length=12", "budget.rounds=3", "selection.n_proposals=60"]
RUN = ["run", str(CONFIG), *QUICK]
GATED = """

class Gated(Price):
    '''Answers once there is a file `open` beside its log: what waits for it is there till then.'''

    def _break(self, item: int) -> None:
        while not Path(self.log).with_name("open").exists():
            time.sleep(0.05)
"""


def motherlode(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("motherlode"), *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("motherlode"), *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ledger_rows(directory: Path) -> list[dict[str, Any]]:
    ledger = Ledger.read(directory / "ledger.sqlite")
    frame = ledger.to_frame()
    ledger.close()
    return comparable(frame)


def n_done(directory: Path) -> int:
    if not (directory / "ledger.sqlite").exists():
        return 0
    ledger = Ledger.read(directory / "ledger.sqlite")
    counts = ledger.counts()
    ledger.close()
    return sum(states.get("done", 0) for states in counts.values())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A campaign run to its end once: its working folder, standard output and error."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = motherlode(*RUN, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout, ended.stderr


def test_a_run_shows_what_it_found_and_where_to_look(
    undisturbed: tuple[Path, str, str],
) -> None:
    folder, out, err = undisturbed
    directory = folder / "runs" / "branin"
    assert "round 3/3" in out
    assert "best different candidates" in out
    assert "report.html" in out
    assert "mlflow ui" in out
    for name in ("config.resolved.yaml", "ledger.sqlite", "report.html", "mlflow.db"):
        assert (directory / name).is_file(), name
    assert err == "", "Prefect's and MLflow's chatter stays out of the terminal"
    assert "prefect" not in out.lower()


def test_prefect_recorded_one_task_for_each_verb_of_each_round(
    undisturbed: tuple[Path, str, str],
) -> None:
    database = undisturbed[0] / "runs" / "branin" / "prefect" / "prefect.db"
    with sqlite3.connect(database) as db:
        flows = db.execute("SELECT name, state_type FROM flow_run").fetchall()
        tasks = db.execute("SELECT name, state_type FROM task_run").fetchall()
    assert flows == [("branin", "COMPLETED")]
    verbs = ["fit", "train", "propose", "select", "query", "record"]
    later = [f"{verb} {number:03d}" for number in (1, 2, 3) for verb in verbs]
    expected = ["start 000", "query 000", "record 000", *later]
    assert sorted(tasks) == sorted((name, "COMPLETED") for name in expected)


def test_mlflow_has_a_parent_run_with_curves_and_a_nested_run_a_round(
    undisturbed: tuple[Path, str, str],
) -> None:
    from mlflow import MlflowClient

    directory = undisturbed[0] / "runs" / "branin"
    client = MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert len(runs) == 1 + 4
    best = client.get_metric_history(parents[0].info.run_id, "best")
    assert sorted(point.step for point in best) == [0, 1, 2, 3]


def test_the_same_command_again_finds_nothing_left_to_do(
    undisturbed: tuple[Path, str, str],
) -> None:
    folder, out, _ = undisturbed
    before = ledger_rows(folder / "runs" / "branin")
    again = motherlode(*RUN, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert out.splitlines()[-6:] == again.stdout.splitlines()[-6:]
    assert ledger_rows(folder / "runs" / "branin") == before


def test_status_report_export_and_track_answer_from_the_directory(
    undisturbed: tuple[Path, str, str],
) -> None:
    folder = undisturbed[0]
    status = json.loads(motherlode("status", "runs/branin", "--json", cwd=folder).stdout)
    assert status["state"] == "done"
    assert status["spend"] <= status["budget"]
    assert motherlode("report", "runs/branin", cwd=folder).returncode == 0
    exported = motherlode("export", "runs/branin", "--out", "all.csv", cwd=folder)
    assert exported.returncode == 0
    table = pd.read_csv(folder / "all.csv")
    assert table["actual_cost"].sum() == pytest.approx(status["spend"])
    tracked = motherlode("track", "runs/branin", "--rebuild", cwd=folder)
    assert tracked.returncode == 0, tracked.stderr


def test_killed_the_campaign_ends_as_if_it_never_was(
    undisturbed: tuple[Path, str, str], tmp_path: Path
) -> None:
    """Law: `kill -9` of the driver, then the same command, gives the undisturbed ledger."""
    expected = ledger_rows(undisturbed[0] / "runs" / "branin")
    directory = tmp_path / "runs" / "branin"
    choice = random.Random(0)
    driver = start(*RUN, cwd=tmp_path)
    wait_for(lambda: n_done(directory) >= len(expected) - 12)
    time.sleep(choice.uniform(0.0, 1.0))
    driver.kill()
    driver.communicate()
    if n_done(directory) < len(expected):
        told = motherlode("status", "runs/branin", "--json", cwd=tmp_path)
        assert json.loads(told.stdout)["state"] == "stopped"
    ended = motherlode(*RUN, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ledger_rows(directory) == expected
    left = [p for p in psutil.process_iter(["cmdline"]) if _belongs(p, directory)]
    assert not left, f"processes of a killed driver are still there: {left}"


def _belongs(process: psutil.Process, directory: Path) -> bool:
    return any(str(directory) in word for word in process.info["cmdline"] or [])


def test_a_second_process_is_told_who_runs_it_and_ctrl_c_stops_cleanly(tmp_path: Path) -> None:
    gate = tmp_path / "open"
    (tmp_path / "real_lab.py").write_text(Path(fakes.__file__).read_text() + GATED)
    config = menu_config("real_lab", budget={"cost": 3, "rounds": 1})
    config["oracles"][0] |= {"kind": "real_lab:Gated", "log": str(tmp_path / "log")}
    (tmp_path / "menu.yaml").write_text(yaml.safe_dump(config))
    driver = start("run", "menu.yaml", cwd=tmp_path)
    wait_for(lambda: (tmp_path / "log").exists())
    second = motherlode("run", "menu.yaml", cwd=tmp_path)
    assert second.returncode == 3
    assert str(driver.pid) in second.stderr
    told = json.loads(motherlode("status", "runs/menu", "--json", cwd=tmp_path).stdout)
    assert told["state"] == "running"
    driver.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = driver.communicate(timeout=30)
    assert time.monotonic() - began < 15
    assert driver.returncode == 130
    assert "Traceback" not in err
    assert "run the same command again" in err
    gate.touch()
    with Campaign.resume(tmp_path / "runs" / "menu") as campaign:
        campaign.run()
    assert n_done(tmp_path / "runs" / "menu") >= 8


def test_ctrl_c_is_an_exit_code_also_while_python_loads_and_goes(tmp_path: Path) -> None:
    began = time.monotonic()
    assert motherlode("validate", RUN[1], cwd=tmp_path).returncode == 0
    whole = time.monotonic() - began
    for share in (0.3, 0.9):
        process = start("validate", RUN[1], cwd=tmp_path)
        time.sleep(share * whole)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode in (130, 0), (share, err)
        assert "Traceback" not in err


def test_every_verb_teaches_with_an_example(tmp_path: Path) -> None:
    for verb in (
        "run",
        "resume",
        "validate",
        "status",
        "report",
        "export",
        "sample",
        "list",
        "track",
    ):
        told = motherlode(verb, "--help", cwd=tmp_path)
        assert told.returncode == 0
        assert f"motherlode {verb}" in told.stdout
        assert "Example" in told.stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_the_report(undisturbed: tuple[Path, str, str], tmp_path: Path) -> None:
    page = undisturbed[0] / "runs" / "branin" / "report.html"
    shown = browse(page.as_uri(), tmp_path)
    assert "branin" in shown
    assert shown.count("<svg") >= 4


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_the_curves_on_mlflows_page(
    undisturbed: tuple[Path, str, str], tmp_path: Path
) -> None:
    store = undisturbed[0] / "runs" / "branin" / "mlflow.db"
    with sqlite3.connect(store) as db:
        experiment, run = db.execute(
            "SELECT experiment_id, run_uuid FROM runs WHERE name = 'branin'"
        ).fetchone()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--workers", "1"]
    options = ["--backend-store-uri", f"sqlite:///{store}", "--port", str(port)]
    server = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{address}/health"))
        page = f"{address}/#/experiments/{experiment}/runs/{run}"
        shown = browse(page, tmp_path, "--virtual-time-budget=30000")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    for metric in ("best", "top_10_mean", "spend", "sampler_loss", "calibration.target.nll"):
        assert metric in shown, f"{metric} is not on MLflow's page"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def browse(url: str, profile: Path, *options: str) -> str:
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    quiet += ["--disable-background-networking", "--disable-component-update"]
    ended = subprocess.run(
        ["chromium", *quiet, *options, f"--user-data-dir={profile}", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended.stdout

"""Real worker processes: they die, hang and are killed, and no outcome is lost or doubled."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from flows.execution import LocalRunner, local_runner
from flows.runners.site import site_of
from pipeline import Campaign
from pipeline.assemble import assemble
from pipeline.config import parse
from pipeline.jobs import Job, Outcome
from pipeline.ledger import Ledger
from pipeline.places import Execution
from pipeline.queries import CampaignStoppedError
from tests import fakes
from tests.fakes import comparable, menu_config
from tests.flows.labs import wait_for

FORKING = '''

class Forking(Price):
    """Leaves a child behind when it dies, which holds whatever it had open."""

    def _break(self, item: int) -> None:
        if item in self.dies and os.fork() == 0:
            time.sleep(600)
        super()._break(item)
'''
KILL_ONCE = """

def kill_once(mark):
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""
DRIVER = """
import sys
from flows.execution import local_runner
from pipeline import Campaign
with Campaign.from_config(sys.argv[1], sys.argv[2], runner=local_runner) as campaign:
    campaign.run()
"""


def children() -> set[psutil.Process]:
    """The processes that this one started, and theirs."""
    return set(psutil.Process().children(recursive=True))


@pytest.fixture(autouse=True)
def none_left() -> Iterator[set[psutil.Process]]:
    """Those that were there before: other tests' libraries keep helpers, Dask's for one."""
    before = children()
    yield before
    assert children() <= before


def lab(folder: Path, n_items: int = 4, **oracle: Any) -> Path:
    """A config whose one oracle is asked about all of a menu, with its plug-in beside it."""
    text = Path(fakes.__file__).read_text() + FORKING
    (folder / "real_lab.py").write_text(text)
    only = {"kind": "real_lab:Forking", "fidelity": "only", "cost": 1, "log": str(folder / "log")}
    config = menu_config(
        "real_lab",
        space={"kind": "real_lab:Menu", "n_items": n_items},
        oracles=[only | oracle],
        initial={"n": {"only": n_items}},
        budget={"cost": 99, "rounds": 1},
        execution={"workers": 2, "max_failed_share": 1},
    )
    return write(folder, config)


def write(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return folder / "c.yaml"


def first_round(path: Path, *overrides: str) -> pd.DataFrame:
    made = Campaign.from_config(path, path.parent / "run", overrides=overrides, runner=local_runner)
    with made as campaign:
        campaign.step()
        return campaign.ledger.to_frame().set_index("candidate")


def log(folder: Path) -> list[str]:
    path = folder / "log"
    return path.read_text().splitlines() if path.exists() else []


def test_whatever_an_oracle_does_to_its_process_the_others_finish(tmp_path: Path) -> None:
    """It prints, reads its input, dies with a child left behind, kills itself, raises, refuses."""
    path = lab(
        tmp_path, 6, dies=[1], kills=[2], fails=[3], refuses=[4], is_loud=True, reads_input=True
    )
    frame = first_round(path)
    assert list(frame["state"]) == ["failed" if 1 <= i <= 4 else "done" for i in items(frame)]
    assert frame.loc["item 0", "value"] == fakes.price(0)
    assert frame.loc["item 5", "value"] == fakes.price(5)
    assert frame.loc["item 1", "error"] == "the oracle's process died (exit 7), attempt 2 of 2"
    assert frame.loc["item 2", "error"] == "the oracle's process died (signal 9), attempt 2 of 2"
    assert frame.loc["item 3", "error"] == "RuntimeError: item 3 went wrong"
    assert frame.loc["item 4", "error"] == "item 4 cannot be asked"
    assert frame.loc["item 4", "actual_cost"] == 0
    assert frame["actual_cost"].sum() == 5
    times = pd.Series(log(tmp_path)).value_counts()
    assert {name: times[f"only {name}"] for name in frame.index} == {
        "item 0": 1,
        "item 1": 2,
        "item 2": 2,
        "item 3": 1,
        "item 4": 1,
        "item 5": 1,
    }
    logs = [p.read_text(errors="replace") for p in (tmp_path / "run" / "jobs").glob("*.log")]
    assert any("garbage" in text for text in logs)


def items(frame: pd.DataFrame) -> list[int]:
    return [int(name.removeprefix("item ")) for name in frame.index]


def test_a_process_that_dies_once_is_tried_again(tmp_path: Path) -> None:
    frame = first_round(lab(tmp_path, 2, kills=[0], first_only=True), "execution.workers=1")
    assert (frame["state"] == "done").all()
    assert sorted(log(tmp_path)) == ["only item 0", "only item 0", "only item 1"]


def test_a_query_that_hangs_is_killed_at_its_time_limit_and_not_tried_again(
    tmp_path: Path,
) -> None:
    # The limit is shorter than a worker's start, which is no query's time.
    path = lab(tmp_path, 3, hangs=[0], batch_size=1)
    frame = first_round(path, "execution.time_limit_s=0.4", "execution.workers=1")
    assert frame.loc["item 0", "state"] == "failed"
    assert "execution.time_limit_s" in frame.loc["item 0", "error"]
    assert (frame.drop("item 0")["state"] == "done").all()
    assert log(tmp_path).count("only item 0") == 1


def test_a_worker_that_cannot_start_stops_the_campaign_and_fails_no_query(tmp_path: Path) -> None:
    path = lab(tmp_path, 2)
    plugin = tmp_path / "real_lab.py"
    whole = plugin.read_text()
    plugin.write_text(whole + "\nif 'worker' in sys.argv[0]: raise OSError('no license')\n")
    with pytest.raises(CampaignStoppedError, match=r"did not start \(exit 1\).*worker-\d\.log"):
        first_round(path, "execution.workers=1")
    ledger = Ledger.read(tmp_path / "run" / "ledger.sqlite")
    assert set(ledger.to_frame()["state"]) == {"running"}
    ledger.close()
    plugin.write_text(whole)
    assert set(first_round(path, "execution.workers=1")["state"]) == {"done"}


def test_a_worker_that_is_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    path = lab(tmp_path, 2)
    plugin = tmp_path / "real_lab.py"
    kill_once = "\nif 'worker' in sys.argv[0]:\n    kill_once(Path(__file__).with_name('killed'))\n"
    plugin.write_text(plugin.read_text() + KILL_ONCE + kill_once)
    assert set(first_round(path, "execution.workers=1")["state"]) == {"done"}
    assert (tmp_path / "killed").exists()
    assert len(log(tmp_path)) == 2


def test_close_stops_what_runs_at_once_and_leaves_no_process(
    tmp_path: Path, none_left: set[psutil.Process]
) -> None:
    path = lab(tmp_path, 4, hangs=[0, 1])
    with Campaign.from_config(path, tmp_path / "run") as campaign:
        runner = local_runner(campaign.parts, campaign.directory, campaign.folder)
        answered = runner.run([Job(f"k{i}", f"item {i}", 0) for i in (3, 0, 1, 2)])
        assert next(answered).properties == {"value": fakes.price(3)}
        wait_for(lambda: len(log(tmp_path)) >= 3)
        began = time.monotonic()
        runner.close()
        assert time.monotonic() - began < 5
        assert children() <= none_left
        runner.close()  # again does no harm


def runner_of(path: Path, **execution: Any) -> LocalRunner:
    """A runner for the lab of this config, by rules of its own."""
    parts = assemble(parse(yaml.safe_load(path.read_text())), path.parent)
    rules = Execution(backoff_s=0.05, **execution)
    site = site_of(parts, path.parent / "run", path.parent)
    return LocalRunner(site, [rules.place("only")], rules.workers)


def jobs(*items: int) -> list[Job]:
    return [Job(f"k{i}", f"item {i}", 0) for i in items]


def test_a_round_can_close_while_a_query_is_out_which_is_then_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick ones come together meanwhile, and one that dies among them takes none with it."""
    monkeypatch.setattr("flows.runners.local.STRETCH_S", 60.0)  # quick, also on a busy machine
    runner = runner_of(lab(tmp_path, 60, hangs=[0], dies=[41]))
    sizes, found = [], dict[str, Outcome]()
    try:
        for _ in range(2):  # again it does nothing: what is out is out
            runner.submit(jobs(*range(60)))
        while len(found) < 59:
            came = runner.poll(60)
            sizes.append(len(came))
            found |= {outcome.key: outcome for outcome in came}
        assert runner.running() == {"k0"}
        assert runner.poll(0.1) == []
        assert runner.handles()["k0"].startswith("process ")
        assert runner.cancel(["k0", "k1", "unknown"]) == {"k0"}
        assert runner.running() == set()
        assert runner.poll(None) == []  # at once: nothing is out
        assert [o.key for o in runner.run(jobs(1))] == ["k1"]  # and it goes on
    finally:
        runner.close()
    assert max(sizes) >= 10
    dead = found.pop("k41")
    assert dead.error == "the oracle's process died (exit 7), attempt 2 of 2"
    assert dead.attempts == 2
    assert {key: o.properties["value"] for key, o in found.items()} == {
        f"k{i}": fakes.price(i) for i in range(1, 60) if i != 41
    }
    assert all(o.attempts == 1 for o in found.values())
    times = pd.Series(log(tmp_path)).value_counts()
    assert times.pop("only item 41") == 2
    assert (set(times), len(times)) == ({1}, 59)


def test_to_cancel_one_query_of_a_chunk_leaves_the_others(tmp_path: Path) -> None:
    runner = runner_of(lab(tmp_path, hangs=[0], batch_size=3), workers=1)
    try:
        runner.submit(jobs(0, 1, 2))
        wait_for(lambda: bool(log(tmp_path)))
        assert runner.cancel(["k0"]) == {"k0"}
        found: list[Outcome] = []
        while runner.running():
            found += runner.poll(30)
    finally:
        runner.close()
    assert {(o.key, o.properties["value"], o.attempts) for o in found} == {
        (f"k{i}", fakes.price(i), 1) for i in (1, 2)
    }


def test_a_result_that_the_disk_does_not_take_stops_the_campaign(tmp_path: Path) -> None:
    runner = runner_of(lab(tmp_path), workers=1)
    try:
        runner.start()
        (tmp_path / "run" / "jobs" / "k1" / "lock").mkdir(parents=True)
        with pytest.raises(CampaignStoppedError, match=r"cannot be written: IsADir.*k1.*run the"):
            list(runner.run(jobs(1)))
    finally:
        runner.close()


def drive(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(path), str(path.parent / "run")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_stops_within_seconds_and_takes_the_workers_along(tmp_path: Path) -> None:
    driver = drive(lab(tmp_path, 3, hangs=[0, 1, 2]))
    wait_for(lambda: len(log(tmp_path)) == 2)
    workers = psutil.Process(driver.pid).children(recursive=True)
    assert len(workers) == 2
    began = time.monotonic()
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert driver.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert not [worker for worker in workers if worker.is_running()]


def test_a_killed_driver_loses_nothing_and_no_result_is_made_twice(tmp_path: Path) -> None:
    path = lab(tmp_path, 1)
    oracle = {"kind": "real_lab:Price", "seconds": 0.15, "log": str(tmp_path / "log")}
    config = menu_config(
        "real_lab",
        oracles=[
            oracle | {"fidelity": "low", "cost": 0.1, "bias": 0.2},
            oracle | {"fidelity": "target", "cost": 1},
        ],
        budget={"cost": 6, "rounds": 2},
        execution={"workers": 2},
    )
    write(tmp_path, config)
    with Campaign.from_config(path, tmp_path / "undisturbed") as campaign:
        campaign.run()
        rows = comparable(campaign.ledger.to_frame())
    assert len(rows) > 10
    (tmp_path / "log").unlink()

    killed_at_work = drive(path)
    wait_for(lambda: len(log(tmp_path)) >= 3)
    orphans = psutil.Process(killed_at_work.pid).children(recursive=True)
    killed_at_work.kill()
    killed_at_work.communicate()

    all_killed = drive(path)  # while the first one's workers finish what they had begun
    wait_for(lambda: len(log(tmp_path)) >= 9)
    for process in psutil.Process(all_killed.pid).children(recursive=True):
        process.kill()
    all_killed.kill()
    all_killed.communicate()
    stored = {p.parent.name for p in (tmp_path / "run" / "jobs").glob("*/result.json")}
    half_done = len(log(tmp_path)) - len(stored)
    assert half_done <= 2  # one a worker

    last = drive(path)
    _, errors = last.communicate(timeout=60)
    assert last.returncode == 0, errors
    ledger = Ledger.read(tmp_path / "run" / "ledger.sqlite")
    assert comparable(ledger.to_frame()) == rows
    ledger.close()
    assert len(log(tmp_path)) == len(rows) + half_done
    wait_for(lambda: not [process for process in orphans if process.is_running()], 10)


def test_the_workers_find_our_packages_whatever_lies_where_we_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lab(tmp_path, 1)
    for name in ("pipeline", "json", "yaml", "sampler"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert set(first_round(path, "execution.workers=1")["state"]) == {"done"}

# ruff: noqa: E402  (the path is set before the packages are looked for)
"""Kill whole campaigns at random moments, and see whether anything is lost or paid twice.

    .venv/bin/python benchmarks/chaos.py local --kills 200
    .venv/bin/python benchmarks/chaos.py slurm --kills 50     (root; Debian's slurm-wlm and munge)
    .venv/bin/python benchmarks/chaos.py dask --kills 20      (the extra `dask`)
    .venv/bin/python benchmarks/chaos.py table

Each campaign runs in processes of its own. At random moments one of them gets SIGKILL: the driver,
which is then started again on the same directory, or a worker (of Dask only workers). At the end
the ledger must equal, row for row, that of a campaign which nothing disturbed, every result that
stood at any kill must be in it, and each query must be paid for once. Goes on where it stopped:
finished campaigns are in benchmarks/results/chaos-*.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# benchmarks/sampler.py has the name of a package, and its folder comes first on the path.
ROOT = Path(__file__).parent.parent
sys.path[0] = str(ROOT)

import pandas as pd
import psutil
import torch
import yaml

import pipeline.round  # noqa: F401  (all that a driver needs, loaded once before the forks)
from flows.execution import make_runner
from flows.runners.site import site_of
from pipeline import Campaign
from pipeline.jobs import Runner
from pipeline.ledger import Ledger
from pipeline.places import Dask, Place
from tests import fakes
from tests.fakes import comparable, merged
from tests.flows.slurm_cluster import SlurmCluster

RESULTS = Path(__file__).parent / "results"
PLUGIN = '''

class Branin:
    """Branin's function, slowed down; it notes beside this file when an evaluation begins and ends.

    No option says where: an option would be part of a query's key.
    """

    def __init__(self, fidelity: str, cost: float, *, bias: float, seconds: float) -> None:
        self.fidelity, self.cost, self.bias, self.seconds = fidelity, cost, bias, seconds

    def query(self, candidates):
        return [self._answer(*candidate) for candidate in candidates]

    def _answer(self, x: float, y: float) -> float:
        self._note("begun", x, y)
        time.sleep(self.seconds)
        bent = y - 5.1 * x**2 / (4 * math.pi**2) + 5 * x / math.pi - 6
        value = bent**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10
        self._note("ended", x, y)
        return value + self.bias * math.cos(3 * x + y)

    def _note(self, what: str, x: float, y: float) -> None:
        with Path(__file__).with_name("log").open("a") as file:
            file.write(f"{what} {self.fidelity} {x!r} {y!r}\\n")
'''
MOST_KILLS = 8
"""After so many a campaign is left in peace to its end."""


@dataclass
class Trial:
    """What one disturbed campaign came to."""

    seed: int
    kills: dict[str, int]
    equal: bool
    lost: int
    paid_twice: float
    begun_again: int
    ended_again: int
    seconds: float


def lab(folder: Path, seed: int) -> Path:
    """A short Branin campaign with its plug-ins beside it; its config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chaos_lab.py").write_text(Path(fakes.__file__).read_text() + PLUGIN)
    oracle = {"kind": "chaos_lab:Branin", "seconds": 0.1}
    config = merged(
        fakes.menu_config("chaos_lab", name="chaos", seed=seed),
        {
            "space": fakes.branin_config()["space"],
            "oracles": [
                oracle | {"fidelity": "low", "cost": 0.1, "bias": 3.0},
                oracle | {"fidelity": "target", "cost": 1, "bias": 0.0},
            ],
            "initial": {"n": {"low": 3, "target": 1}},
            "selection": {"batch_size": 3, "n_proposals": 20},
            "budget": {"cost": 6, "rounds": 3},
            "execution": {"attempts": 50, "workers": 2},
        },
    )
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return folder / "c.yaml"


def runner_of(kind: str) -> Callable[[Any, Path, Path], Runner]:
    """How a driver makes its runner."""
    rules: dict[str, Any] = {"runner": kind, "attempts": 50, "backoff_s": 0.05}
    if kind == "slurm":
        rules |= {"poll_s": 0.3, "grace_s": 1.0}
    if kind == "dask":
        workers = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        rules["dask"] = Dask(
            cluster_class="distributed.LocalCluster",
            cluster_kwargs=workers,
            # A worker that is killed while it starts is not started again by its nanny.
            adapt_kwargs={"minimum": 2, "maximum": 2},
        )

    def made(parts: Any, directory: Path, folder: Path) -> Runner:
        return make_runner(site_of(parts, directory, folder), [Place(**rules)] * 2, 2)

    return made


def drive(path: Path, kind: str) -> int:
    """Fork a driver that plays the campaign to its end; its process."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        runner = None if kind == "calm" else runner_of(kind)
        with Campaign.from_config(path, path.parent / "run", runner=runner) as campaign:
            campaign.run()
        code = 0
    except BaseException as error:
        print(f"driver: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def trial(kind: str, seed: int, folder: Path, usual_s: float) -> Trial:
    """One campaign, killed at random until it comes to its end."""
    path, rng = lab(folder, seed), random.Random(seed)
    kills: Counter[str] = Counter()
    stood: dict[str, str] = {}
    began = time.monotonic()
    pid = drive(path, kind)
    while True:
        if kills.total() < MOST_KILLS:
            code = ended_before_the_moment(pid, folder, rng, usual_s)
        else:
            code = ended_within(pid, 600.0)
        if code == 0:
            break
        stood |= {p.parent.name: p.read_text() for p in results(folder)}
        if code is not None:
            raise RuntimeError(f"seed {seed}: the driver ended with {code}")
        victim = rng.choice({"dask": ["worker"], "slurm": ["driver", "worker"]}.get(kind, BOTH))
        if victim == "driver":
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            kills["driver"] += 1
            pid = drive(path, kind)
        elif kill_a_worker(kind, pid, folder, rng):
            kills["worker"] += 1
    return verdict(folder, seed, kills, stood, time.monotonic() - began)


BOTH = ["driver", "driver", "worker"]


def results(folder: Path) -> list[Path]:
    """The result files that stand."""
    return list((folder / "run" / "jobs").glob("*/result.json"))


def ended_within(pid: int, seconds: float, until: Callable[[], bool] = lambda: False) -> int | None:
    """The exit code of a process that ends in time and before `until`; None when it does not."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline or until():
            return None
        time.sleep(0.005)


def ended_before_the_moment(
    pid: int, folder: Path, rng: random.Random, usual_s: float
) -> int | None:
    """Wait for a random moment: of the whole time, or of the work, where a kill does most harm."""
    if rng.random() < 0.3:
        return ended_within(pid, rng.uniform(0, usual_s))
    wanted = _noted(folder) + rng.randint(1, 6)
    code = ended_within(pid, 600.0, lambda: _noted(folder) >= wanted)
    return ended_within(pid, rng.uniform(0, 0.1)) if code is None else code


def _noted(folder: Path) -> int:
    log = folder / "log"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def kill_a_worker(kind: str, pid: int, folder: Path, rng: random.Random) -> bool:
    """SIGKILL for one process that works for the driver or, on Slurm, for the campaign."""
    if kind == "dask":
        found = [p for p in _children(pid) if "spawn_main" in _words(p)]
    else:
        found = [p for p in psutil.process_iter() if _is_worker(p, folder)]
    if not found:
        return False
    with suppress(psutil.NoSuchProcess):
        rng.choice(sorted(found, key=lambda p: p.pid)).kill()
        return True
    return False


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _is_worker(process: psutil.Process, folder: Path) -> bool:
    words = _words(process)
    return "flows.worker" in words and f"{folder / 'run'}" in words


def verdict(
    folder: Path, seed: int, kills: Counter[str], stood: dict[str, str], seconds: float
) -> Trial:
    """Compare with the campaign that nothing disturbed."""
    lab(folder / "calm", seed)
    code = ended_within(drive(folder / "calm" / "c.yaml", "calm"), 600)
    assert code == 0, f"the undisturbed campaign ended with {code}"
    frame, calm = (_frame(f) for f in (folder, folder / "calm"))
    done = set(frame.loc[frame["state"] == "done", "key"])
    jobs = folder / "run" / "jobs"
    changed = [k for k, text in stood.items() if (jobs / k / "result.json").read_text() != text]
    times = Counter((folder / "log").read_text().splitlines())
    again = Counter({line: n - 1 for line, n in times.items()})
    return Trial(
        seed=seed,
        kills=dict(kills),
        equal=comparable(frame) == comparable(calm),
        lost=len(set(stood) - done) + len(changed),
        paid_twice=float(frame["actual_cost"].sum() - calm["actual_cost"].sum()),
        begun_again=sum(n for line, n in again.items() if line.startswith("begun")),
        ended_again=sum(n for line, n in again.items() if line.startswith("ended")),
        seconds=seconds,
    )


def _frame(folder: Path) -> pd.DataFrame:
    ledger = Ledger.read(folder / "run" / "ledger.sqlite")
    frame = ledger.to_frame()
    ledger.close()
    return frame


def main() -> None:
    """Play campaigns until enough kills are counted, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["local", "slurm", "dask", "table"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=600.0, help="stop after this long")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what != "table":
        play(given.what, given.kills, given.minutes)
    print(table())


def play(kind: str, wanted: int, minutes: float) -> None:
    """Campaign after campaign, each written down when it is done."""
    path = RESULTS / f"chaos-{kind}.json"
    trials: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    deadline = time.monotonic() + 60 * minutes
    slurm = SlurmCluster(cpus=3) if kind == "slurm" else None
    if slurm:
        os.environ["SLURM_CONF"] = str(slurm.conf)
    try:
        usual_s = 0.0
        while _kills(trials) < wanted and time.monotonic() < deadline:
            with tempfile.TemporaryDirectory() as scratch:
                usual_s = usual_s or calm_seconds(kind, Path(scratch) / "first")
                done = trial(kind, len(trials), Path(scratch) / "trial", usual_s)
            trials.append(asdict(done))
            path.write_text(json.dumps(trials, indent=1))
            print(f"{kind}: {_kills(trials)} kills, last {done}", flush=True)
    finally:
        if slurm:
            slurm.stop()


def calm_seconds(kind: str, folder: Path) -> float:
    """How long a campaign takes that is left in peace."""
    began = time.monotonic()
    code = ended_within(drive(lab(folder, 0), kind), 600)
    assert code == 0, f"the undisturbed campaign ended with {code}"
    return time.monotonic() - began


def _kills(trials: list[dict[str, Any]]) -> int:
    return sum(sum(t["kills"].values()) for t in trials)


def table() -> str:
    """What came of all campaigns so far, by runner."""
    names = ("runner", "campaigns", "kills of the driver", "of a worker", "ledgers equal")
    more = ("outcomes lost", "cost paid twice", "cut off and begun again", "finished again")
    lines = [f"| {' | '.join(names + more)} |", "|---" * len(names + more) + "|"]
    for path in sorted(RESULTS.glob("chaos-*.json")):
        trials = json.loads(path.read_text())
        drivers, workers = (sum(t["kills"].get(v, 0) for t in trials) for v in ("driver", "worker"))
        equal = sum(t["equal"] for t in trials)
        lost, twice = sum(t["lost"] for t in trials), sum(abs(t["paid_twice"]) for t in trials)
        begun, ended = (sum(t[f"{what}_again"] for t in trials) for what in ("begun", "ended"))
        cells = (path.stem.removeprefix("chaos-"), len(trials), drivers, workers)
        lines.append(
            f"| {' | '.join(map(str, cells))} | {equal} of {len(trials)} | {lost} | {twice:g} "
            f"| {begun - ended} | {ended} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""A real Prefect server for the tests, as a team would share one, and campaigns that wait."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from flows.server import QUIET, PrefectServer
from pipeline.ledger import Ledger

BIN = Path(sys.executable).parent
ORACLE = '''
import os
import time
from pathlib import Path

HERE = Path(__file__).parent


class Gated:
    """Writes down what it is asked, by which process, and answers once the gate is open."""

    def __init__(self, fidelity, cost):
        self.fidelity, self.cost = fidelity, cost

    def query(self, candidates):
        with (HERE / "log").open("a") as log:
            log.write(f"{list(map(float, candidates[0]))};{os.getpid()}\\n")
        while not (HERE / "gate").exists():
            time.sleep(0.05)
        return [float(sum(candidate)) for candidate in candidates]
'''
CONFIG = """
name: gated
space: {kind: hyper_grid, n_dims: 2, length: 12, bounds: [[-5, 10], [0, 15]]}
objective: {property: value, goal: minimize}
oracles: [{kind: "gated:Gated", fidelity: target, cost: 1}]
initial: {n: {target: 3}}
sampler: {kind: gflownet, n_steps: 5, batch_size: 8, hidden: [16]}
selection: {batch_size: 2, n_proposals: 30}
budget: {cost: 3, rounds: 1}
execution: {workers: 1}
tracking: {kind: none}
"""
UNFINISHED = ("Scheduled", "Late", "Pending", "Submitting", "Running", "Cancelling")


def wait_until(happened: Callable[[], Any], limit_s: float = 120.0) -> Any:
    """What `happened` returns once it is true."""
    deadline = time.monotonic() + limit_s
    while not (found := happened()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


class Server:
    """A running server with schedules, its API, and the environment of those who use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = PrefectServer(folder, schedules=True)
        home = {"PREFECT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
        self.environment = os.environ | QUIET | home | {"PREFECT_API_URL": self.server.url}
        self.api = httpx.Client(base_url=self.server.url, timeout=30)
        self._started: list[subprocess.Popen[bytes]] = []

    def ready(self) -> None:
        self.server.wait()

    def start(self, *command: str, cwd: Path) -> subprocess.Popen[bytes]:
        """A program of this environment that uses the server; what it prints goes to `out`."""
        with self.out.open("ab") as out:
            began = subprocess.Popen(
                [BIN / command[0], *command[1:]],
                cwd=cwd,
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._started.append(began)
        return began

    @property
    def out(self) -> Path:
        return self.folder / "out.txt"

    def do(self, *command: str, cwd: Path) -> None:
        """The same to its end, which must be a good one."""
        assert self.start(*command, cwd=cwd).wait(timeout=120) == 0, self.out.read_text()

    def found(self, what: str) -> list[dict[str, Any]]:
        """All `deployments`, `artifacts`, …"""
        rows: list[dict[str, Any]] = self.api.post(f"/{what}/filter", json={}).json()
        return rows

    def deployment(self, name: str) -> str:
        """The id of the deployment of this name, when it has come."""

        def named() -> list[str]:
            return [row["id"] for row in self.found("deployments") if row["name"] == name]

        return str(wait_until(named)[0])

    def run(self, deployment: str, **parameters: Any) -> str:
        """Have a deployment run now, as its schedule would; the flow run's id."""
        asked = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
        made = self.api.post(f"/deployments/{deployment}/create_flow_run", json=asked)
        return str(made.json()["id"])

    def state(self, flow_run: str) -> tuple[str, str]:
        """A flow run's state by name, and its message."""
        state = self.api.get(f"/flow_runs/{flow_run}").json()["state"]
        return state["name"], state["message"] or ""

    def cancel(self, flow_run: str) -> None:
        """What the button on Prefect's page does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        told = self.api.post(f"/flow_runs/{flow_run}/set_state", json={"state": state})
        assert told.json()["status"] == "ACCEPT"

    def ended(self, flow_run: str) -> tuple[str, str]:
        """The state in which a flow run ends."""
        wait_until(lambda: self.state(flow_run)[0] not in UNFINISHED)
        return self.state(flow_run)

    def close(self) -> None:
        for began in self._started:
            _kill_all(began)
        self.api.close()
        self.server.stop()


def _kill_all(began: subprocess.Popen[bytes]) -> None:
    """Kill a program and what it started, also in sessions of their own."""
    if began.poll() is None:
        for child in psutil.Process(began.pid).children(recursive=True):
            child.kill()
        began.kill()
        began.wait()


class Lab:
    """A folder with a campaign whose oracle waits at a gate and writes down what it was asked.

    The campaign lives in `directory`, `runs/gated` of the folder that it is started in.
    """

    def __init__(self, folder: Path, directory: Path, config: str = "gated.yaml") -> None:
        folder.mkdir(parents=True)
        (folder / "gated.py").write_text(ORACLE)
        self.config, self.directory = folder / config, directory
        self.config.write_text(CONFIG)
        self.gate, self.log = folder / "gate", folder / "log"

    def asked(self) -> list[str]:
        """What the oracle was asked, each time that it was."""
        return [line.partition(";")[0] for line in self._lines()]

    def at_work(self, n: int = 1) -> psutil.Process:
        """The process of the n-th question, once that is asked."""
        wait_until(lambda: len(self._lines()) >= n)
        return psutil.Process(int(self._lines()[n - 1].partition(";")[2]))

    def driver(self) -> psutil.Process:
        """The process that holds the campaign, or held it last."""
        return psutil.Process(int((self.directory / "lock").read_text().split()[1]))

    def states(self) -> dict[str, int]:
        """How many queries of the ledger are in which state."""
        ledger = Ledger.read(self.directory / "ledger.sqlite")
        try:
            return ledger.counts().get("target", {})
        finally:
            ledger.close()

    def _lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one that nobody has buried yet has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

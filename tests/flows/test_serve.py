"""A campaign on a schedule, against a real Prefect server: runs, approval on its page, the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.ledger import Ledger
from tests.flows.prefect_server import wait_until

REPOSITORY = Path(__file__).parents[2]
SMALL = """
name: nightly
space: {kind: hyper_grid, n_dims: 2, length: 12, bounds: [[-5, 10], [0, 15]]}
objective: {property: value, goal: minimize}
oracles:
  - {kind: branin, fidelity: low, bias: 0.5, cost: 0.1}
  - {kind: branin, fidelity: target, cost: 1}
initial: {n: {low: 6, target: 3}}
sampler: {kind: gflownet, n_steps: 5, batch_size: 8, hidden: [16]}
selection: {batch_size: 4, n_proposals: 30}
budget: {cost: 12, rounds: 3}
tracking: {kind: none}
approval: {when: always}
"""


class Served:
    """A `motherlode serve` that runs, and the API of the server that it started."""

    def __init__(self, folder: Path) -> None:
        (folder / "nightly.yaml").write_text(SMALL)
        self.directory = folder / "runs" / "nightly"
        self.out = folder / "out.txt"
        command = ["serve", "nightly.yaml", "--cron", "0 2 1 1 *", "--rounds", "1"]
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("motherlode"), *command],
                cwd=folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={
                    name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"
                },
            )
        page = wait_until(lambda: re.search(r"(http://127\.0\.0\.1:\d+)", self.out.read_text()))
        self.api = httpx.Client(base_url=f"{page.group(1)}/api", timeout=20)

    def deployment(self) -> str | None:
        found = self.api.post("/deployments/filter", json={}).json()
        return str(found[0]["id"]) if found else None

    def run(self) -> str:
        """Have the deployment run now, as its schedule would."""
        made = self.api.post(
            f"/deployments/{wait_until(self.deployment)}/create_flow_run",
            json={"state": {"type": "SCHEDULED"}},
        )
        return str(made.json()["id"])

    def state(self, flow_run: str) -> str:
        return str(self.api.get(f"/flow_runs/{flow_run}").json()["state"]["name"])

    def decide(self, flow_run: str, **decision: Any) -> None:
        def is_accepted() -> bool:
            # A busy server may answer that its database is locked: a person would click again.
            told = self.api.post(f"/flow_runs/{flow_run}/resume", json={"run_input": decision})
            return bool(told.json().get("status") == "ACCEPT")

        wait_until(is_accepted, 30)

    def n(self, state: str) -> int:
        ledger = Ledger.read(self.directory / "ledger.sqlite")
        counts = ledger.counts()
        ledger.close()
        return sum(states.get(state, 0) for states in counts.values())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    started = Served(tmp_path)
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.wait()


def test_a_scheduled_run_asks_on_its_page_and_goes_on_with_the_answer(served: Served) -> None:
    run = served.run()
    wait_until(lambda: served.state(run) == "Suspended")
    assert served.n("reserved") == 9
    assert served.n("done") == 0
    served.decide(run, decision="approve", drop=[], why="")
    wait_until(lambda: served.state(run) == "Completed")
    assert served.n("done") == 9
    kinds = {row["key"] for row in served.api.post("/artifacts/filter", json={}).json()}
    assert kinds == {"nightly-batch", "nightly-progress"}

    served.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert served.process.wait(timeout=30) in (0, 130)
    assert time.monotonic() - began < 15
    assert "Traceback" not in served.out.read_text()


@pytest.mark.slow
def test_a_batch_that_is_rejected_on_the_page_is_cancelled(served: Served) -> None:
    first = served.run()
    wait_until(lambda: served.state(first) == "Suspended")
    served.decide(first, decision="approve", drop=[], why="")
    wait_until(lambda: served.state(first) == "Completed")
    refused = served.run()
    wait_until(lambda: served.state(refused) == "Suspended")
    n_waiting = served.n("reserved")
    served.decide(refused, decision="reject", drop=[], why="too dear")
    wait_until(lambda: served.state(refused) == "Completed")
    assert served.n("cancelled") == n_waiting > 0
    assert served.n("done") == 9

# ruff: noqa: E402  (the path is set before the packages are looked for)
"""How long a round of 50 queries takes of which ten do not answer in time.

    .venv/bin/python benchmarks/stragglers.py local
    .venv/bin/python benchmarks/stragglers.py slurm    (root; Debian's slurm-wlm and munge)

One query in five, as they begin, is a straggler. `share`: they take ten times as long as the
others, and a round closes when 0.8 of its queries have ended. `time`: they take twice as long as a
round may, which closes after so many seconds. For each round: seconds from the hand-over to the
close, how much later that is than stated, and what was still out then. Round 0 also waits for the
workers to start, and for a first answer: without one there is nothing to go on with.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# benchmarks/sampler.py has the name of a package, and its folder comes first on the path.
ROOT = Path(__file__).parent.parent
sys.path[0] = str(ROOT)

import yaml

from flows.execution import runner_for
from pipeline import Campaign
from tests import fakes
from tests.flows.slurm_cluster import SlurmCluster

BATCH, SHARE = 50, 0.8
PLUGIN = '''

import fcntl


class Straggling(Price):
    """Every fifth evaluation that begins, in whatever process, takes `slow` seconds."""

    def __init__(self, fidelity: str, cost: float, *, usual: float, slow: float) -> None:
        super().__init__(fidelity, cost, seconds=usual)
        self.slow = slow

    def _note(self, item: int) -> bool:
        with Path(__file__).with_name("begun").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            number = file.tell()
            file.write(".")
        if number % 5 == 4:
            time.sleep(self.slow)
        return True
'''
RULES: dict[str, dict[str, Any]] = {
    "local": {"workers": 24},
    "slurm": {"runner": "slurm", "cpus": 1, "poll_s": 0.5, "grace_s": 5.0},
}
HOW = ["share", "time"]


def lab(folder: Path, kind: str, how: str, usual_s: float, close_s: float, n: int) -> Path:
    """A campaign of n rounds that close, with its plug-in beside it; its config."""
    (folder / "slow_lab.py").write_text(Path(fakes.__file__).read_text() + PLUGIN)
    is_timed = how == "time"
    closing = {"close_after_s": close_s} if is_timed else {"close_share": SHARE}
    slow_s = 2 * close_s if is_timed else 10 * usual_s
    oracle = {"kind": "slow_lab:Straggling", "usual": usual_s, "slow": slow_s}
    config = fakes.menu_config(
        "slow_lab",
        space={"kind": "slow_lab:Menu", "n_items": (n + 2) * BATCH},
        oracles=[oracle | {"fidelity": "only", "cost": 1}],
        initial={"n": {"only": BATCH}},
        selection={"batch_size": BATCH, "n_proposals": 4 * BATCH},
        budget={"cost": 10 * n * BATCH, "rounds": n},
        execution=RULES[kind] | closing,
    )
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return folder / "c.yaml"


def measure(kind: str, how: str, usual_s: float, close_s: float, n: int) -> None:
    """Play n rounds that close, and print how long each took."""
    stated = f"after {close_s:g} s" if how == "time" else f"at {SHARE:g}"
    print(f"{kind}: {BATCH} queries of {usual_s:g} s a round, which closes {stated}")
    with tempfile.TemporaryDirectory() as scratch:
        path = lab(Path(scratch), kind, how, usual_s, close_s, n)
        with Campaign.from_config(path, Path(scratch) / "run", runner=runner_for) as campaign:
            campaign.runner.start()
            for number in range(n):
                seconds = _timed(campaign)
                n_open, n_asked = campaign.ledger.n_open(number)
                later = f", {seconds - close_s:+.2f} s" if how == "time" else ""
                print(f"  round {number}: {seconds:.2f} s{later}; out: {n_open} of {n_asked}")
            campaign.runner.cancel(campaign.runner.running())


def _timed(campaign: Campaign) -> float:
    """Play a round; the seconds of its verb `query`."""
    took: dict[str, float] = {}

    def call(verb: Callable[[], None]) -> None:
        began = time.monotonic()
        verb()
        took[verb.__name__] = time.monotonic() - began

    campaign.step(call)
    return took["query"]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(RULES))
    parser.add_argument("--how", choices=HOW, nargs="+", default=HOW)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--usual", type=float, default=0.2, help="seconds of a query")
    parser.add_argument("--close", type=float, default=5.0, help="close_after_s")
    given = parser.parse_args()
    slurm = SlurmCluster(cpus=24) if given.kind == "slurm" else None
    try:
        if slurm:
            os.environ["SLURM_CONF"] = str(slurm.conf)
        for how in given.how:
            measure(given.kind, how, given.usual, given.close, given.rounds)
    finally:
        if slurm:
            slurm.stop()


if __name__ == "__main__":
    main()

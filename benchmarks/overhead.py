# ruff: noqa: E402  (the path is set before the packages are looked for)
"""What Prefect and MLflow cost: a round of the Branin campaign without them against with them.

    .venv/bin/python benchmarks/overhead.py --repeats 3

Both run in one process on the same config and the same local workers, in turns. Start-up is timed
apart from the rounds. One Prefect server serves all repeats, because Prefect reads its address once
a process; a campaign that starts its own pays the seconds that the last line tells.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

# benchmarks/sampler.py has the name of a package, and its folder comes first on the path.
sys.path[0] = str(Path(__file__).parent.parent)

from flows.campaign import prefect_server, run_as_flow
from flows.execution import local_runner
from flows.tracking import tracking
from pipeline import Campaign

CONFIG = Path(__file__).parent.parent / "configs" / "branin.yaml"


def plain(directory: Path) -> tuple[float, float]:
    """Seconds before the first round, and for each round, without Prefect and MLflow."""
    began = time.perf_counter()
    with Campaign.from_config(CONFIG, directory, runner=local_runner) as campaign:
        campaign.runner.start()  # type: ignore[attr-defined]
        started = time.perf_counter()
        campaign.run()
        ended = time.perf_counter()
        rounds = campaign.config.budget.rounds + 1
    return started - began, (ended - started) / rounds


def full(directory: Path) -> tuple[float, float]:
    """The same with a Prefect flow on a running server, and MLflow."""
    began = time.perf_counter()
    with Campaign.from_config(CONFIG, directory, runner=local_runner) as campaign:
        campaign.runner.start()  # type: ignore[attr-defined]
        with tracking(campaign.directory, campaign.config.tracking) as view:
            campaign.progress = view
            started = time.perf_counter()
            run_as_flow(campaign)
            ended = time.perf_counter()
        rounds = campaign.config.budget.rounds + 1
    return started - began, (ended - started) / rounds


def main() -> None:
    """Time both in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    times: dict[str, list[tuple[float, float]]] = {"plain": [], "Prefect + MLflow": []}
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        with prefect_server(Path(scratch) / "server") as wait:
            wait()
            server = time.perf_counter() - began
            for i in range(repeats):
                times["plain"].append(plain(Path(scratch) / f"plain-{i}"))
                times["Prefect + MLflow"].append(full(Path(scratch) / f"full-{i}"))
    print("| | start-up (s) | a round (s) |\n|---|---|---|")
    for name, pairs in times.items():
        starts, rounds = zip(*pairs, strict=True)
        print(f"| {name} | {_spread(starts)} | {_spread(rounds)} |")
    means = {name: statistics.mean(p[1] for p in pairs) for name, pairs in times.items()}
    added = means["Prefect + MLflow"] - means["plain"]
    print(f"\nPrefect and MLflow add {added:.2f} s to a round ({added / means['plain']:.0%}).")
    print(f"The campaign's own Prefect server starts in {server:.1f} s.")


def _spread(values: tuple[float, ...]) -> str:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {sd:.2f}"


if __name__ == "__main__":
    main()

# ruff: noqa: E402  (the path is set before the packages are looked for)
"""What Prefect and MLflow cost a campaign: the same one without them and with them, in turns.

    .venv/bin/python benchmarks/overhead.py --rounds 10 --sleep 6.5

Eight queries a round on two workers, each of which sleeps `--sleep` seconds: with 6.5 a round takes
about 30 s. Both run in one process with the same seed, so that they decide and ask the same; the
ledgers are compared. "With them" is what `motherlode run` does beside a Prefect server: a task a
verb, a round's artifacts, MLflow's runs, tables and figures. `--profile` tells where one such
campaign spends its own time, thread by thread.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# benchmarks/sampler.py has the name of a package, and its folder comes first on the path.
sys.path[0] = str(Path(__file__).parent.parent)

from flows.artifacts import PrefectArtifacts
from flows.campaign import prefect_server, run_as_flow
from flows.execution import local_runner
from flows.tracking import tracking
from pipeline import Campaign
from pipeline.progress import Progress, Several

CONFIG = """
name: overhead
space: {{kind: hyper_grid, n_dims: 2, length: 50, bounds: [[-5, 10], [0, 15]]}}
objective: {{property: value, goal: minimize}}
oracles: [{{kind: "slow:Slow", fidelity: target, cost: 1, seconds: {seconds}}}]
initial: {{n: {{target: 8}}}}
sampler: {{kind: gflownet, n_steps: 100, batch_size: 64, hidden: [128, 128]}}
selection: {{batch_size: 8, n_proposals: 500}}
budget: {{cost: {cost}, rounds: {rounds}}}
execution: {{workers: 2}}
"""
ORACLE = '''
import time

from oracles.branin import Branin


class Slow(Branin):
    """Branin after a sleep."""

    batch_size = 1

    def __init__(self, fidelity, cost, seconds):
        super().__init__(fidelity, cost=cost)
        self.seconds = seconds

    def query(self, candidates):
        time.sleep(self.seconds)
        return super().query(candidates)
'''


class Clock(Progress):
    """When each round was recorded, before any other watcher is told."""

    def __init__(self) -> None:
        self.at = [time.perf_counter()]

    def recorded(self, number: int) -> None:
        """Round `number` is complete."""
        self.at.append(time.perf_counter())


@dataclass
class Times:
    """Seconds of one campaign: before its first round, each round, and after its last."""

    start: float = 0.0
    rounds: list[float] = field(default_factory=list)
    end: float = 0.0

    @property
    def total(self) -> float:
        """From the first round's beginning to the end of everything."""
        return sum(self.rounds) + self.end


@contextmanager
def bare(campaign: Campaign) -> Iterator[tuple[Progress, Callable[[], object]]]:
    """A campaign alone: what watches it, and how it runs."""
    yield Progress(), campaign.run


@contextmanager
def full(campaign: Campaign) -> Iterator[tuple[Progress, Callable[[], object]]]:
    """The same as a Prefect flow with its artifacts, and with MLflow."""
    with tracking(campaign.directory, campaign.config.tracking) as view:
        yield Several(view, PrefectArtifacts(campaign)), lambda: run_as_flow(campaign)


Way = Callable[[Campaign], AbstractContextManager[tuple[Progress, Callable[[], object]]]]


def timed(way: Way, config: Path, directory: Path) -> tuple[Times, list[str]]:
    """Play a campaign; its times and the candidates of its ledger, in order."""
    times, began = Times(), time.perf_counter()
    with Campaign.from_config(config, directory, runner=local_runner) as campaign:
        campaign.runner.start()
        with way(campaign) as (watcher, run):
            clock = Clock()
            campaign.progress = Several(clock, watcher)
            run()
        ended = time.perf_counter()
        asked = campaign.ledger.to_frame()["candidate"].tolist()
    times.start = clock.at[0] - began
    times.rounds = [after - before for before, after in zip(clock.at, clock.at[1:], strict=False)]
    times.end = ended - clock.at[-1]
    return times, asked


def main() -> None:
    """Time both in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="after the initial design")
    parser.add_argument("--sleep", type=float, default=6.5, help="seconds a query takes")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="only one full campaign, profiled")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        config = write_config(Path(scratch), given.rounds, given.sleep)
        began = time.perf_counter()
        with prefect_server(Path(scratch) / "server") as wait:
            wait()
            server = time.perf_counter() - began
            if given.profile:
                profiled(config, Path(scratch) / "profiled")
                return
            report(*in_turns(config, Path(scratch), given.repeats), server)


def write_config(folder: Path, rounds: int, seconds: float) -> Path:
    """The campaign and its oracle as files."""
    (folder / "slow.py").write_text(ORACLE)
    config = folder / "overhead.yaml"
    config.write_text(CONFIG.format(seconds=seconds, rounds=rounds, cost=8 * (rounds + 1)))
    return config


def in_turns(config: Path, scratch: Path, repeats: int) -> tuple[list[Times], list[Times]]:
    """Times of campaigns without and with Prefect and MLflow, which must have asked the same."""
    plain, tracked = [], []
    for i in range(repeats):
        times, asked = timed(bare, config, scratch / f"plain-{i}")
        plain.append(times)
        times, also = timed(full, config, scratch / f"full-{i}")
        tracked.append(times)
        if asked != also:
            raise SystemExit("the two campaigns asked different queries: nothing can be compared")
    return plain, tracked


def report(plain: list[Times], tracked: list[Times], server: float) -> None:
    """Print the table and what is added."""
    print("| | before (s) | a round (s) | after (s) |\n|---|---|---|---|")
    for name, times in {"plain": plain, "Prefect + MLflow": tracked}.items():
        rounds = [seconds for one in times for seconds in one.rounds]
        start, end = (
            statistics.mean(x) for x in ([t.start for t in times], [t.end for t in times])
        )
        print(f"| {name} | {start:.1f} | {_spread(rounds)} | {end:.1f} |")
    base = statistics.mean(t.total for t in plain)
    added = statistics.mean(t.total for t in tracked) - base
    n = len(plain[0].rounds)
    print(f"\nPrefect and MLflow add {added:.1f} s to {n} rounds ({added / base:.1%}).")
    begun = statistics.mean(t.start for t in tracked) - statistics.mean(t.start for t in plain)
    print(
        f"Once a campaign: {begun:.1f} s to begin, and a Prefect server starts in {server:.1f} s."
    )


def _spread(values: list[float]) -> str:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {sd:.2f}"


def profiled(config: Path, directory: Path) -> None:
    """Print where a full campaign's own thread spends its time, the dearest first."""
    profile = cProfile.Profile()
    times, _ = profile.runcall(timed, full, config, directory)
    print(times)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()

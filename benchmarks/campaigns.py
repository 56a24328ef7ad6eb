# ruff: noqa: E402  (threads and path are set before the libraries read them)
"""Races of whole campaigns at equal cost; the table and the figures are docs/races.md's.

    .venv/bin/python benchmarks/campaigns.py --races branin hartmann      # 5 seeds, every method
    .venv/bin/python benchmarks/campaigns.py --races branin --methods ours single_fidelity --seeds 1
    .venv/bin/python benchmarks/campaigns.py --races branin --set selection.target_share=0.2 \
        --results /tmp/tried                                              # something to try out
    .venv/bin/python benchmarks/campaigns.py --table                      # what was measured before
    .venv/bin/python benchmarks/campaigns.py --figures                    # draw it into docs/images

Resumable: an entry is a file benchmarks/results/campaigns/RACE/METHOD-SEED.json beside the folder
of its campaign; a second run finishes what is begun and does what is missing. One thread each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# A neighbour of this file has the name of a package, and would come first.
ROOT = Path(__file__).parent.parent
sys.path[0] = str(ROOT)

from benchmarks.campaigns_measure import Entry, read_entries
from benchmarks.campaigns_methods import ALL_METHODS, run
from benchmarks.campaigns_races import RACES, named
from benchmarks.campaigns_table import tables
from pipeline.config import override

RESULTS = Path(__file__).parent / "results" / "campaigns"
IMAGES = ROOT / "docs" / "images"

Task = tuple[str, str, int, Path, dict[str, Any], bool]


def play(task: Task) -> str:
    """Run or finish one entry and write its result; one line about it."""
    race, method, seed, results, changes, stops = task
    folder = results / race
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    name = f"{race}-{method}-{seed}"
    result = run(RACES[race], method, name, seed, folder / f"{method}-{seed}", changes, stops)
    path = folder / f"{method}-{seed}.json"
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(result | {"race": race, "method": method, "seed": seed}))
    fresh.rename(path)
    told = Entry.read(path).told()
    return f"{name}: {told}; {time.monotonic() - began:.0f} s"


def play_all(tasks: list[Task], workers: int) -> int:
    """Play the tasks; how many failed. A failed one is told and stops no other."""
    failed = 0
    if workers == 1:
        for task in tasks:
            failed += _told(lambda task=task: play(task), task)
        return failed
    # A forked child would share torch's threads and locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(play, task): task for task in tasks}
        for future in as_completed(futures):
            failed += _told(future.result, futures[future])
    return failed


def _told(result: Any, task: Task) -> int:
    try:
        print(result(), flush=True)
    except Exception:
        told = "".join(traceback.format_exc().splitlines(keepends=True)[-6:])
        print(f"{task[0]}-{task[1]}-{task[2]} failed:\n{told}", flush=True)
        return 1
    return 0


def missing(options: argparse.Namespace) -> list[Task]:
    """The entries that have no result yet, seed by seed so that every method has some early."""
    changes = override({}, options.set)
    tasks = [
        (race, method, seed, options.results, changes, options.stop)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for race in options.races
        for method in options.methods or RACES[race].methods
    ]
    return [t for t in tasks if not (t[3] / t[0] / f"{t[1]}-{t[2]}.json").exists()]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--races", nargs="+", default=list(RACES), metavar="RACE")
    parser.add_argument("--methods", nargs="+", choices=ALL_METHODS, metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--stop", action="store_true", help="end a campaign once its best k are the race's ceiling"
    )
    parser.add_argument("--table", action="store_true", help="run nothing, print the tables")
    parser.add_argument("--figures", action="store_true", help="run nothing, draw docs/images")
    options = parser.parse_args()
    options.races = named(options.races)
    return options


def main() -> int:
    """Run what is missing, then print the tables."""
    options = parsed()
    failed = 0
    if not (options.table or options.figures):
        failed = play_all(missing(options), options.workers)
    entries = read_entries(options.results, options.races)
    if options.figures:
        from benchmarks.campaigns_figures import draw_all

        draw_all(entries, IMAGES)
    print(tables(entries))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

# ruff: noqa: E402  (threads and path are set before the libraries read them)
"""What the crystal space reaches on Crystal-GFN's reference set; the table is docs/crystals.md's.

    .venv/bin/python benchmarks/crystal.py                  # everything, about an hour on one core
    .venv/bin/python benchmarks/crystal.py --only density   # one part; the others stay as they are
    .venv/bin/python benchmarks/crystal.py --quick          # a look at whether everything runs
    .venv/bin/python benchmarks/crystal.py --table          # only print what was measured before
    .venv/bin/python benchmarks/crystal.py --figures        # only draw it, into docs/images

One thread. Results are kept in benchmarks/results/crystal.json as each part ends, CHGNet's labels
in crystal_labels.json, trained samplers in crystal_samplers/.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
# A neighbour of this file has the name of the package it measures, and would come first.
ROOT = Path(__file__).parent.parent
sys.path[0] = str(ROOT)

import torch

from benchmarks.crystal_checks import comparison, diversity, validity, where
from benchmarks.crystal_figures import draw_all
from benchmarks.crystal_parts import (
    Result,
    Sizes,
    proxy,
    speed,
    train,
)
from benchmarks.crystal_table import table

RESULTS = Path(__file__).parent / "results" / "crystal.json"
PARTS: dict[str, Callable[[Sizes], Result]] = {
    "speed": speed,
    "density": partial(train, "density"),
    "proxy": proxy,
    "formation_energy": partial(train, "formation_energy"),
    "band_gap": partial(train, "band_gap"),
    "validity": validity,
    "diversity": diversity,
    "comparison": comparison,
    "where": where,
}


def read_results() -> Result:
    """What was measured before, by part."""
    results: Result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return results


def main() -> None:
    """Measure the parts that were asked for, keep them, draw them, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=list(PARTS), nargs="*", help="parts to measure")
    parser.add_argument("--seeds", type=int, default=3, help="repeats, each with its own seed")
    parser.add_argument("--steps", type=int, default=4000, help="training steps of a sampler")
    parser.add_argument("--samples", type=int, default=10_000, help="samples to check")
    parser.add_argument("--guessed", type=int, default=2000, help="samples for oxi_state_guesses")
    parser.add_argument("--quick", action="store_true", help="one seed, few of everything")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--figures", action="store_true", help="only draw the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.parent.mkdir(exist_ok=True)
    sizes = Sizes(
        range(arguments.seeds),
        arguments.samples,
        n_steps=arguments.steps,
        n_guessed=arguments.guessed,
    )
    if arguments.quick:
        sizes = Sizes(range(1), 500, 300, 200, 100, 40)
    shows_only = arguments.table or arguments.figures
    for name in [] if shows_only else arguments.only or PARTS:
        began = time.perf_counter()
        measured = PARTS[name](sizes)
        # Read again: another process may have measured another part meanwhile.
        RESULTS.write_text(json.dumps({**read_results(), name: measured}, indent=1))
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    results = read_results()
    if not arguments.table:
        draw_all(results, ROOT / "docs" / "images")
    print(table(results))


if __name__ == "__main__":
    main()

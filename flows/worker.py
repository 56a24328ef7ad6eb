"""The worker process: `python -m flows.worker DIR` answers chunks of jobs, one line each.

A line in is a JSON list of jobs, a line out the JSON list of keys that now have a result file; the
first line out, an empty list, says that the campaign is loaded. It ends when its input does: a
worker whose driver was killed finishes its chunk, leaves the result for the next driver, and goes.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import yaml

from pipeline.assemble import space_and_oracles
from pipeline.config import parse
from pipeline.jobs import Bench, Job
from pipeline.ledger import Ledger


def main(directory: str) -> None:
    """Answer chunks from standard input until it ends."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What libraries print goes to the log, never between the replies, and a program that an oracle
    # starts may read its input without eating our requests.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    bench = _bench(Path(directory))
    print("[]", file=replies, flush=True)
    for line in requests:
        chunk = [Job(**job) for job in json.loads(line)]
        bench.answer(chunk)
        print(json.dumps([job.key for job in chunk]), file=replies, flush=True)


def _bench(directory: Path) -> Bench:
    ledger = Ledger.read(directory / "ledger.sqlite")
    about = ledger.about()
    ledger.close()
    config = parse(yaml.safe_load(about["config"]))
    environment, ladder = space_and_oracles(config, Path(about["folder"]))
    return Bench(environment, ladder, directory / "jobs")


if __name__ == "__main__":
    main(sys.argv[1])

"""The worker process: it loads the campaign once and answers jobs.

`python -m flows.worker DIR` answers stretches, one line each: a JSON list of chunks in; out a line
for each chunk that is done, and one when the results of all would survive a power cut. The first
line out says that the campaign is loaded. It ends when its input does: a worker whose driver was
killed finishes its stretch, leaves the results for the next driver, and goes.

`python -m flows.worker DIR --key KEY` answers the one job that is written in its folder, as a
cluster's job; with `--array NAME` the one of the list NAME that SLURM_ARRAY_TASK_ID counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import warnings
from pathlib import Path

from flows.runners.site import bench_of, read_job
from pipeline.jobs import (
    Bench,
    Job,
    Outcome,
    keep_room,
    locked,
    read_result,
    sync_results,
    write_result,
)

READY, DONE, KEPT = "ready", "done", "kept"
TIMED_OUT = "killed at execution.time_limit_s"
BEGUN = "begun"
"""The file in a job's folder that says that its oracle may have been asked."""


def main(arguments: list[str]) -> None:
    """Answer stretches from standard input until it ends, or one job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--key")
    parser.add_argument("--array")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if given.array:
        given.key = _array_key(given.directory / "jobs", given.array)
    if given.key:
        _answer_one(given.directory, given.key)
    else:
        _answer_stretches(given.directory)


def _answer_stretches(directory: Path) -> None:
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")

    def reply(what: str) -> None:
        print(json.dumps(what), file=replies, flush=True)

    # What libraries print goes to the log, never between the replies, and a program that an oracle
    # starts may read its input without eating our requests.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    bench = bench_of(directory)
    reply(READY)
    for line in requests:
        stretch = [[Job(**job) for job in chunk] for chunk in json.loads(line)]
        try:
            for chunk in stretch:
                bench.answer(chunk, durable=False)
                reply(DONE)
            sync_results(bench.jobs, [job.key for chunk in stretch for job in chunk])
            reply(KEPT)
        except OSError as error:  # an oracle's own never gets here: the disk takes no result
            reply(f"{type(error).__name__}: {error}")
            return


def _array_key(jobs: Path, name: str) -> str:
    keys: list[str] = json.loads((jobs / name).read_text(encoding="utf-8"))
    return keys[int(os.environ["SLURM_ARRAY_TASK_ID"])]


def _answer_one(directory: Path, key: str) -> None:
    bench = bench_of(directory)
    job, limit = read_job(bench.jobs, key)
    with locked(bench.jobs, [key]):  # an earlier run of this job may write its result still
        if read_result(bench.jobs, key) is None:
            keep_room(bench.jobs, key)  # a full disk must not look like an oracle that was asked
    (bench.jobs / key / BEGUN).touch()
    if limit is not None:
        timer = threading.Timer(limit, _time_out, (bench, key))
        timer.daemon = True
        timer.start()
    bench.answer([job])
    # Threads that an oracle left behind must not keep the cluster's job alive.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _time_out(bench: Bench, key: str) -> None:
    """End a job that has outlasted its limit, as a failure that was paid for.

    The main thread holds the job's lock.
    """
    if read_result(bench.jobs, key) is None:
        write_result(bench.jobs, Outcome(key, error=TIMED_OUT))
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])

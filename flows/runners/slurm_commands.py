"""Slurm by its own commands: sbatch, squeue and scancel, never through a shell.

No accounting database is needed: what came of a job is told by its result file, and whether it is
still to come by squeue.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.places import Place
from pipeline.queries import CampaignStoppedError

PASSING = re.compile(
    "timed out|unable to contact|connection refused|connection reset|temporarily|zero bytes"
    "|not responding|transport|communication|backup controller|maxsubmit|max submit|submit limit"
    "|job limit|slurm_persist",
    re.IGNORECASE,
)
"""What sbatch and squeue complain of that may pass: a busy controller, a full queue."""
PATIENCE_S = 120
ENDING = ("COMPLETING", "CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
"""States in which squeue may still show a job that works no more."""
FORMAT = "%i|%K|%j|%T|%Z"  # the folder last: a path may hold the sign that separates


class SlurmTroubleError(Exception):
    """Slurm did not answer, which may pass."""


@dataclass(frozen=True)
class Queued:
    """One job in Slurm's queue: `index` is its place in an array, None outside of one."""

    id: str
    index: int | None
    name: str
    state: str


def sbatch(name: str, script: str, place: Place, jobs: Path, n: int | None) -> str:
    """Submit a script, or `n` of it as an array; the number that Slurm gave it.

    SlurmTroubleError when it may pass, CampaignStoppedError when Slurm refuses.
    """
    answer = _command([*sbatch_command(name, place, jobs, n)], script)
    return answer.strip().split(";")[0]  # a cluster's name may follow


def sbatch_command(name: str, place: Place, jobs: Path, n: int | None) -> list[str]:
    """The arguments of sbatch; the script comes by standard input."""
    number = "%j" if n is None else "%A_%a"
    given = {
        "partition": place.partition,
        "time": place.time or _minutes(place.time_limit_s),
        "cpus-per-task": place.cpus,
        "mem": place.mem,
        "gres": place.gres,
        "account": place.account,
        "qos": place.qos,
        "array": None if n is None else f"0-{n - 1}",
    }
    return [
        *("sbatch", "--parsable", f"--job-name={name}", f"--chdir={jobs}", "--input=/dev/null"),
        f"--output={name}/slurm-{number}.out",
        *(f"--{option}={value}" for option, value in given.items() if value is not None),
        *place.options,
        # Last, so that it holds: what Slurm began again by itself would be no attempt of ours.
        "--no-requeue",
    ]


def _minutes(time_limit_s: float | None) -> str | None:
    """Slurm's limit for ours: a whole minute more to start, as ours is kept by the worker."""
    return None if time_limit_s is None else str(int(-(-time_limit_s // 60)) + 2)


def worker_script(directory: Path, modules: Sequence[str], which: Sequence[str]) -> str:
    """The batch script that answers one job: `which` are the worker's arguments that name it."""
    worker = [sys.executable, "-P", "-m", "flows.worker", str(directory), *which]
    lines = [
        # A login shell where modules are loaded: it knows the command `module`.
        "#!/bin/bash -l" if modules else "#!/bin/bash",
        *(f"module load {shlex.quote(module)} || exit 1" for module in modules),
        "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} MKL_NUM_THREADS=$OMP_NUM_THREADS",
        f"exec {shlex.join(worker)}",
    ]
    return "\n".join(lines) + "\n"


def squeue(jobs: Path) -> list[Queued]:
    """Jobs that wait or run, of the campaign whose folder of jobs this is."""
    lines = _command(["squeue", "--me", "--noheader", "--array", f"--format={FORMAT}"]).splitlines()
    found = [queued for line in lines if (queued := _queued(line, jobs)) is not None]
    return [queued for queued in found if queued.state not in ENDING]


def _queued(line: str, jobs: Path) -> Queued | None:
    number, index, name, state, folder = line.split("|", 4)
    if folder != str(jobs):
        return None
    return Queued(number, int(index) if index.isdigit() else None, name, state)


def scancel(ids: Sequence[str]) -> None:
    """Stop jobs; one that is gone is no error."""
    for start in range(0, len(ids), 200):
        _command(["scancel", "--quiet", *ids[start : start + 200]])


def _command(arguments: Sequence[str], text: str = "") -> str:
    """What a command of Slurm prints."""
    try:
        done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
            list(arguments), input=text, capture_output=True, text=True, timeout=PATIENCE_S
        )
    except FileNotFoundError:
        raise CampaignStoppedError(
            f"execution.runner: slurm needs the program `{arguments[0]}`, which is not on the PATH;"
            " run the campaign where Slurm's commands are, or choose another runner"
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmTroubleError(f"{arguments[0]} did not answer in {PATIENCE_S} s") from None
    if done.returncode == 0:
        return done.stdout
    told = " ".join(done.stderr.split()) or f"exit {done.returncode}"
    if PASSING.search(told):
        raise SlurmTroubleError(told)
    raise CampaignStoppedError(f"Slurm refuses: {told}; change execution (sbatch's options there)")

"""A campaign: its directory, its lock, its ledger, and the loop over rounds."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline.answers import dispatch, wait
from pipeline.assemble import Parts, assemble
from pipeline.config import CampaignConfig, ConfigError, override, parse, read_yaml
from pipeline.goal import Goal
from pipeline.initial import check_initial
from pipeline.jobs import Bench, InlineRunner, Runner
from pipeline.ledger import Ledger, affordable
from pipeline.limits import round_limits
from pipeline.progress import Progress
from pipeline.queries import CampaignStoppedError, failures
from pipeline.round import Call, Round
from pipeline.selection import Limits

LEDGER = "ledger.sqlite"
RESOLVED = "config.resolved.yaml"
LOCK = "lock"
CHANGEABLE = ("budget", "execution", "tracking", "approval")
"""Sections that `resume` may change: they decide how far and where, not what was asked and why."""
PARTS = ("surrogate", "acquisition", "sampler")
PACKAGES = ("motherlode", "torch", "botorch", "gpytorch", "pymatgen", "pandas", "numpy")


class LockedError(Exception):
    """Another process writes this campaign; the message says which."""


class Campaign:
    """One campaign on disk. The only stateful object; close it, or use it in a `with`."""

    def __init__(
        self, parts: Parts, directory: Path, folder: Path, runner: Runner | None = None
    ) -> None:
        self.parts = parts
        self.directory = directory
        self.folder = folder
        self.progress = Progress()
        self._lock = hold(directory)
        try:
            self.ledger = Ledger.open(directory / LEDGER, _about(parts, folder))
            try:
                _same_config(self.ledger, parts.config, directory)
                write_resolved(directory, parts.config)
            except BaseException:
                self.ledger.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise
        self.runner = runner or InlineRunner(bench(parts, directory, folder))

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, Any],
        dir: str | Path | None = None,
        *,
        overrides: Sequence[str] = (),
        runner: Callable[[Parts, Path, Path], Runner] | None = None,
    ) -> Campaign:
        """Open or create the campaign of a configuration (a path, or the mapping itself).

        `dir` defaults to `runs/<name>`. ConfigError holds every problem at once, before anything
        is written; LockedError when another process holds the campaign.
        """
        data, folder = _read(config)
        parts = checked(override(data, overrides), folder)
        directory = directory_of(parts.config, dir)
        check_directory(directory, parts.config)
        directory.mkdir(parents=True, exist_ok=True)
        return cls(parts, directory, folder, runner and runner(parts, directory, folder))

    @classmethod
    def resume(
        cls,
        dir: str | Path,
        *,
        overrides: Sequence[str] = (),
        runner: Callable[[Parts, Path, Path], Runner] | None = None,
    ) -> Campaign:
        """Open an existing campaign; `overrides` may change its budget, execution and tracking."""
        directory = Path(dir)
        ledger = Ledger.read(directory / LEDGER)
        about = ledger.about()
        ledger.close()
        wrong = [o for o in overrides if o.split(".")[0] not in CHANGEABLE]
        if wrong:
            allowed = ", ".join(CHANGEABLE)
            raise ConfigError([f"{o}: a started campaign can change only {allowed}" for o in wrong])
        data, folder = yaml.safe_load(about["config"]), Path(about["folder"])
        parts = assemble(parse(override(data, overrides)), folder)
        if overrides:
            _change_config(directory, parts.config)
        return cls(parts, directory, folder, runner and runner(parts, directory, folder))

    @property
    def config(self) -> CampaignConfig:
        """The resolved configuration."""
        return self.parts.config

    @property
    def goal(self) -> Goal:
        """`minimize`, `maximize`, or the `Target` to approach."""
        return self.config.objective.goal

    @property
    def target(self) -> str:
        """The name of the target fidelity."""
        return self.parts.fidelities[-1]

    def run(self, call: Call = lambda verb: verb(), rounds: int | None = None) -> int:
        """Play rounds until the budget or the rounds are used up, at most `rounds`; how many."""
        n_played = 0
        while (rounds is None or n_played < rounds) and self.step(call):
            n_played += 1
        return n_played

    def step(self, call: Call = lambda verb: verb()) -> bool:
        """Finish the open round or play the next one; False when there is nothing left to do.

        Before that is said, the answers that are still out are waited for: a refund may pay for
        another round.
        """
        number = self.next_round()
        if number is None and self.ledger.is_open():
            out = dispatch(self)
            self.progress.queries(len(out))
            wait(self, out, lambda seconds: False)
            number = self.next_round()
        if number is None:
            return False
        self.progress.round(number, self.config.budget.rounds)
        played = Round(self, number)

        def watched(verb: Callable[[], None]) -> None:
            self.progress.verb(verb.__name__)
            call(verb)

        played.play(watched)
        if not played.is_decided():
            self.ledger.set_about({"finished": f"nothing left to ask in round {number}"})
            return False
        self.progress.recorded(number)
        self._check_failures(number)
        return True

    def is_complete(self) -> bool:
        """Whether no round is left to play and no answer is out."""
        return self.next_round() is None and not self.ledger.is_open()

    def next_round(self) -> int | None:
        """The round to play or to finish; None when no more can be played."""
        last = self.ledger.last_round()
        if last is None:
            return 0
        if not Round(self, last).is_recorded():
            return last
        self._check_failures(last)
        left = self.config.budget.cost - self.ledger.committed()
        out_of_money = not affordable(self.parts.ladder[0].cost, left)
        if last >= self.config.budget.rounds or out_of_money or "finished" in self.ledger.about():
            return None
        if self._is_out_of_time():
            return None
        return last + 1

    def _check_failures(self, number: int) -> None:
        rows = self.ledger.round_queries(number)
        failed = sum(row["state"] == "failed" for row in rows)
        allowed = self.config.execution.max_failed_share
        if len(rows) >= 4 and failed > allowed * len(rows):
            raise CampaignStoppedError(
                f"{failed} of {len(rows)} queries of round {number} failed, more than "
                f"execution.max_failed_share {allowed:g} allows; "
                f"{failures(self.ledger.to_frame(['error'], number))}"
            )

    def limits(self, number: int, costs: Sequence[float]) -> Limits:
        """What the batch of a round may cost, of fidelities at `costs`: see `pipeline.limits`."""
        budget, selection = self.config.budget, self.config.selection
        limits = round_limits(
            budget.cost - self.ledger.committed(),
            budget.rounds - number + 1,
            selection.batch_size,
            costs,
            selection.target_share,
            selection.fidelity,
            budget.rounds,
        )
        return replace(limits, most=self._queries_left()) if budget.queries else limits

    def _queries_left(self) -> tuple[int | None, ...]:
        """How many queries each fidelity has left, by `budget.queries`."""
        counts, most = self.ledger.counts(), self.config.budget.queries
        asked = {name: sum(counts.get(name, {}).values()) for name in most}
        return tuple(
            max(0, most[name] - asked[name]) if name in most else None
            for name in self.parts.fidelities
        )

    def _is_out_of_time(self) -> bool:
        """Whether `budget.hours` have gone by since the first query was reserved."""
        hours, began = self.config.budget.hours, self.ledger.began_at()
        if hours is None or began is None:
            return False
        return (datetime.now(UTC) - began).total_seconds() >= hours * 3600

    def best(self, k: int = 10) -> pd.DataFrame:
        """The k best different candidates that were paid for at the target fidelity.

        Where the goal is a target value, the column `distance` holds |value - target|.
        """
        return self.ledger.top(self.target, self.goal, k)

    def close(self) -> None:
        """Stop the runner, close the ledger and free the lock."""
        self.runner.close()
        self.ledger.close()
        os.close(self._lock)

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def checked(data: Mapping[str, Any], folder: Path) -> Parts:
    """All parts of a configuration after every check that can be made without writing anything."""
    parts = assemble(parse(data), folder)
    check_initial(parts, folder)
    return parts


def directory_of(config: CampaignConfig, dir: str | Path | None) -> Path:
    """Where a campaign lives: `dir`, or `runs/<name>`."""
    return Path(dir) if dir is not None else Path("runs") / config.name


def bench(parts: Parts, directory: Path, folder: Path | None = None) -> Bench:
    """The place where this campaign's oracles run; `folder` is that of its configuration."""
    ladder = [rung.oracle for rung in parts.ladder]
    cache = parts.config.execution.cache_in(folder or Path.cwd())
    return Bench(parts.environment, ladder, directory / "jobs", cache)


def write_resolved(directory: Path, config: CampaignConfig) -> None:
    """Write `config.resolved.yaml`, for people; the ledger holds the text that counts."""
    fresh = directory / f"{RESOLVED}.tmp"
    fresh.write_text(config.as_yaml(), encoding="utf-8")
    fresh.rename(directory / RESOLVED)


def _read(config: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    if isinstance(config, Mapping):
        return dict(config), Path.cwd()
    path = Path(config)
    return read_yaml(path), path.resolve().parent


def _about(parts: Parts, folder: Path) -> dict[str, str]:
    config = parts.config
    return {
        "campaign": config.name,
        "config": config.as_yaml(),
        "folder": str(folder.resolve()),
        # An oracle's class may fix its fidelity and cost, so that no option tells them.
        "ladder": json.dumps([[rung.fidelity, rung.cost] for rung in parts.ladder]),
        "versions": json.dumps({name: version(name) for name in PACKAGES}),
    }


def check_directory(directory: Path, config: CampaignConfig) -> None:
    """Refuse a directory that is someone else's or that holds a campaign with another config."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ConfigError([f"{directory}: expected a directory, found a file; give another --dir"])
    if (directory / LEDGER).exists():
        ledger = Ledger.read(directory / LEDGER)
        try:
            _same_config(ledger, config, directory)
        finally:
            ledger.close()
        return
    strange = [p.name for p in directory.iterdir() if p.name != LOCK and LEDGER[:6] not in p.name]
    if strange:
        where = f"{directory}: not empty and not a campaign (it holds {strange[0]})"
        raise ConfigError([f"{where}; give another --dir"])


def _same_config(ledger: Ledger, config: CampaignConfig, directory: Path) -> None:
    # Through the schema: what an older version did not know yet has its default.
    before = _flat(parse(yaml.safe_load(ledger.about()["config"])).model_dump(mode="json"))
    now = _flat(config.model_dump(mode="json"))
    changed = [
        key
        for key in before | now
        if before.get(key) != now.get(key) and not _is_newer(key, before)
    ]
    if not changed:
        return
    shown = [f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in changed[:3]]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    raise ConfigError(
        [
            f"{directory}: holds a campaign with another config ({'; '.join(shown)}{more}); "
            "give the new one another name or --dir, or change its budget with "
            f"`motherlode resume {directory} budget.cost=…`"
        ]
    )


def _is_newer(key: str, before: Mapping[str, Any]) -> bool:
    """Whether it belongs to an option that the version which began the campaign did not have.

    Every option of a part was written down then, so one that is missing was unknown.
    """
    option = ".".join(key.split(".")[:2])
    known = any(name == option or name.startswith(f"{option}.") for name in before)
    return key.partition(".")[0] in PARTS and not known


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(data, dict) and data:
        nested = (_flat(value, f"{prefix}{key}.") for key, value in data.items())
        return {key: value for part in nested for key, value in part.items()}
    return {prefix.rstrip("."): data}


def _change_config(directory: Path, config: CampaignConfig) -> None:
    handle = hold(directory)
    try:
        ledger = Ledger.open(directory / LEDGER, {})
        ledger.set_about({"config": config.as_yaml()})
        ledger.forget("finished")
        ledger.close()
    finally:
        os.close(handle)


def release(lock: int) -> None:
    """Give the lock on a campaign back."""
    os.close(lock)


def hold(directory: Path) -> int:
    """Hold the kernel's lock on the campaign; it dies with this process, however that ends."""
    path = directory / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise LockedError(
            f"{directory} is in use by {path.read_text(encoding='utf-8').strip()}; "
            "wait for it, or stop it and run the same command again"
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return handle

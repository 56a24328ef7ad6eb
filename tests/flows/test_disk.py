"""A real disk that fills up or cannot be written, and power that fails: one line, exit 3, go on.

The disk is a small file system in memory, which only root may mount.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli import STOPPED, one_line_errors
from flows.execution import local_runner
from pipeline import Campaign, jobs
from pipeline.jobs import Outcome, write_result
from pipeline.status import read_status
from tests.fakes import KillAt, Killed, comparable
from tests.flows.labs import lab, lines
from tests.pipeline.campaigns import logged, play, undisturbed


class Disk:
    """A file system of 2 MiB that can be filled up, freed, and closed for writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave not one block free."""
        with self._filler.open("wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        self._filler.unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


class At(KillAt):
    """Does something at the k-th thing that a campaign tells; without k at all of them."""

    def __init__(self, k: int | None, act: Callable[[int], None]) -> None:
        super().__init__(k)
        self.act = act

    def _tell(self) -> None:
        self.told += 1
        if self.k in (None, self.told):
            self.act(self.told)


@contextmanager
def stops_in_one_line(capsys: pytest.CaptureFixture[str], *told: str) -> Iterator[None]:
    """The command line stops with exit 3 and one line that holds one of these texts."""
    capsys.readouterr()
    with pytest.raises(typer.Exit) as stopped, one_line_errors():
        yield
    assert stopped.value.exit_code == STOPPED
    line = " ".join(capsys.readouterr().err.split())
    assert any(text in line for text in told), line
    assert line.count("error:") == 1


FULL = ("No space left on device", "the disk is full")


def test_a_disk_that_is_full_at_any_moment_stops_it_and_no_answer_is_asked_for_twice(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = undisturbed(tmp_path)
    config, log = logged(tmp_path)
    for k in (1, 6, 9, 19, 33):  # before the first batch, among answers, in training, in a round
        where = disk.folder / str(k)
        log.unlink(missing_ok=True)
        with stops_in_one_line(capsys, *FULL), Campaign.from_config(config, where) as campaign:
            campaign.progress = At(k, lambda _: disk.fill())
            campaign.run()
        disk.free()
        assert comparable(play(config, where)) == rows, k
        assert len(lines(log)) == len(set(lines(log))) == len(rows), k
        shutil.rmtree(where)


def test_a_disk_that_is_full_while_workers_answer_stops_it_and_it_goes_on(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lab(tmp_path, "disk_lab", execution={"workers": 1})
    rows = finished(path, tmp_path / "undisturbed")
    (tmp_path / "log").unlink()
    opened = Campaign.from_config(path, disk.folder / "run", runner=local_runner)
    with stops_in_one_line(capsys, *FULL), opened as campaign:
        campaign.progress = At(5, lambda _: disk.fill())  # among the answers
        campaign.run()
    disk.free()
    assert finished(path, disk.folder / "run") == rows
    assert len(lines(tmp_path / "log")) <= len(rows) + 1  # what the worker was at


def finished(path: Path, directory: Path) -> list[dict[str, Any]]:
    with Campaign.from_config(path, directory) as campaign:
        campaign.run()
        return comparable(campaign.ledger.to_frame())


def test_a_result_finds_the_room_that_was_kept_for_it(tmp_path: Path, disk: Disk) -> None:
    for key in ("kept", "not"):
        (disk.folder / key).mkdir()
    jobs.keep_room(disk.folder, "kept")
    disk.fill()
    told = "x" * 3000
    write_result(disk.folder, Outcome("kept", error=told))
    assert jobs.read_result(disk.folder, "kept") == Outcome("kept", error=told)
    assert [p.name for p in (disk.folder / "kept").iterdir()] == ["result.json"]
    with pytest.raises(OSError, match=r"No space left on device: '.*/not/result.*tmp'"):
        write_result(disk.folder, Outcome("not", error=told))
    assert jobs.read_result(disk.folder, "not") is None
    with pytest.raises(OSError, match=r"No space left on device: '.*/not/room'"):
        jobs.keep_room(disk.folder, "not")


def test_on_a_disk_that_cannot_be_written_its_status_is_told_and_it_goes_on_later(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = undisturbed(tmp_path)
    config, _ = logged(tmp_path)
    with pytest.raises(Killed):
        play(config, disk.folder / "run", 20)
    before = read_status(disk.folder / "run")
    disk.remount("ro")
    assert read_status(disk.folder / "run") == before
    for where in ("run", "new"):
        with stops_in_one_line(capsys, "Read-only file system"):
            Campaign.from_config(config, disk.folder / where)
    disk.remount("rw")
    assert comparable(play(config, disk.folder / "run")) == rows


def test_law_a_power_cut_between_any_two_moments_changes_nothing(tmp_path: Path) -> None:
    """What was not flushed yet is torn: the end of the ledger's log, the newest results."""
    rows = undisturbed(tmp_path)
    config, _ = logged(tmp_path)

    def copy(k: int) -> None:
        ignored = shutil.ignore_patterns("*-shm", "lock")
        shutil.copytree(tmp_path / "run", tmp_path / str(k), ignore=ignored)

    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.progress = last = At(None, copy)
        campaign.run()
    n_torn = 0
    for k in range(2, last.told - 1, 6):
        n_torn += cut(tmp_path / str(k), tmp_path / str(k + 1), share=k / last.told)
        assert comparable(play(config, tmp_path / str(k))) == rows, k
    assert n_torn >= 3


def cut(directory: Path, later: Path, share: float) -> int:
    """Add parts of what was written by the next moment; how many of them are torn."""
    wal = "ledger.sqlite-wal"
    kept, new = (directory / wal).stat().st_size, (later / wal).read_bytes()
    torn = new[: kept + int(share * (len(new) - kept))]
    (directory / wal).write_bytes(torn)
    n_torn = int(kept < len(torn) < len(new))
    for path in later.glob("jobs/*/result.json"):
        old = directory / path.relative_to(later)
        if not old.exists():
            old.parent.mkdir(parents=True, exist_ok=True)
            whole = path.read_bytes()
            half = len(whole) // 2
            old.write_bytes(whole[:half] + bytes(len(whole) - half))
            n_torn += 1
    return n_torn


def test_a_kill_before_the_cache_has_an_answer_leaves_it_paid_by_who_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = undisturbed(tmp_path)
    config, log = logged(tmp_path, execution={"cache": str(tmp_path / "cache")})
    real = jobs.write_result

    def dies(folder: Path, result: Outcome, durable: bool = True) -> None:
        if folder == tmp_path / "cache":
            raise Killed
        real(folder, result, durable)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_result", dies)
        with pytest.raises(Killed):
            play(config, tmp_path / "run")
    assert comparable(play(config, tmp_path / "run")) == rows
    assert len(lines(log)) == len(set(lines(log))) == len(rows)

"""A clock that jumps, by a day and back: no limit, wait or closing of a round looks at it."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.execution import local_runner
from pipeline import Campaign
from tests.fakes import comparable
from tests.flows.labs import lab, lines
from tests.pipeline.campaigns import logged, play, undisturbed
from tests.pipeline.test_stragglers import opened, states

ROOT = Path(__file__).parents[2]
CLOCK = re.compile(r"\btime\.time(?:_ns)?\(|\bdate(?:time)?\.(?:now|utcnow|today)\(")
DAYS: dict[str, Callable[[int], int]] = {
    "forwards": lambda n: n,
    "backwards": lambda n: -n,
    "to and fro": lambda n: n % 3 - 1,
}
"""How many days the clock is off when it is looked at for the n-th time."""


def jump(patch: pytest.MonkeyPatch, how: str) -> None:
    """From now on the wall clock jumps between any two looks at it."""
    real, numbers = time.time, itertools.count()

    def off() -> float:
        return real() + 86400.0 * DAYS[how](next(numbers))

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.fromtimestamp(off(), UTC)

    patch.setattr("time.time", off)
    patch.setattr("pipeline.ledger.datetime", Jumping)


@pytest.mark.parametrize("how", ["forwards", "backwards"])
def test_a_campaign_equals_the_one_whose_clock_was_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    rows = undisturbed(tmp_path)
    config, _ = logged(tmp_path)
    jump(monkeypatch, how)
    frame = play(config, tmp_path / "run")
    stamps = frame["created_at"].map(datetime.fromisoformat)
    assert stamps.max() - stamps.min() > timedelta(hours=23)  # it jumped
    assert comparable(frame) == rows


def test_a_round_is_not_closed_by_a_clock_that_is_set_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jump(monkeypatch, "forwards")
    campaign, runner = opened(tmp_path, execution={"close_after_s": 3600.0})
    with campaign:
        at_each_poll(monkeypatch, runner, lambda n: runner.release() if n == 20 else None)
        campaign.step()
        assert set(states(campaign, 0)) == {"done"}


def test_a_round_closes_though_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jump(monkeypatch, "backwards")
    campaign, runner = opened(tmp_path, execution={"close_after_s": 0.1})

    def give_up(n: int) -> None:
        assert n < 1000, "the round waits on"

    with campaign:
        at_each_poll(monkeypatch, runner, give_up)
        campaign.step()
        assert set(states(campaign, 0)) == {"running", "done"}


def at_each_poll(patch: pytest.MonkeyPatch, runner: Any, act: Callable[[int], None]) -> None:
    real, numbers = runner.poll, itertools.count()

    def poll(timeout: float | None = 0.0) -> Any:
        act(next(numbers))
        return real(timeout)

    patch.setattr(runner, "poll", poll)


def test_workers_are_given_their_time_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is killed at its limit of an hour; the one that dies is begun again, a moment later."""
    path = lab(
        tmp_path,
        "clock_lab",
        {"kills": [0], "first_only": True},
        space={"kind": "clock_lab:Menu", "n_items": 3},
        initial={"n": {"target": 3}},
        execution={"workers": 1, "time_limit_s": 3600.0, "backoff_s": 0.1},
    )
    jump(monkeypatch, "to and fro")
    with Campaign.from_config(path, tmp_path / "run", runner=local_runner) as campaign:
        campaign.step()
        assert set(states(campaign, 0)) == {"done"}
    times = pd.Series(lines(tmp_path / "log")).value_counts()
    assert times.to_dict() == {"target item 0": 2, "target item 1": 1, "target item 2": 1}


def test_only_three_places_look_at_the_wall_clock() -> None:
    """The ledger's stamps, who decided when, and `budget.hours`, which counts over restarts."""
    packages = ("pipeline", "flows", "oracles", "sampler", "surrogate")
    paths = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    found = {str(p.relative_to(ROOT)): CLOCK.findall(p.read_text()) for p in paths}
    assert {name for name, calls in found.items() if calls} == {
        f"pipeline/{name}.py" for name in ("approval", "campaign", "ledger")
    }

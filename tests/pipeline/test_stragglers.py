"""Rounds that close while some answers are out, and what becomes of those that come late."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Campaign
from pipeline.answers import has_come
from pipeline.assemble import Parts
from pipeline.campaign import bench
from pipeline.jobs import Bench, InlineRunner, Job, Outcome
from pipeline.knowledge import learn
from surrogate.pending import WithPending
from tests.fakes import menu_config

ROUNDS = {"budget": {"cost": 9, "rounds": 3}}


class Held(InlineRunner):
    """Answers at once, but holds back the first `n_held` jobs of each hand-over until released."""

    def __init__(self, place: Bench, n_held: int = 1) -> None:
        super().__init__(place)
        self.n_held = n_held
        self.held: list[Job] = []
        self.submitted: list[str] = []

    def submit(self, jobs: Any) -> None:
        fresh = [job for job in jobs if job.key not in self.running()]
        self.submitted += [job.key for job in fresh]
        self.held += fresh[: self.n_held]
        super().submit(fresh[self.n_held :])

    def poll(self, timeout: float | None = 0.0) -> list[Outcome]:
        answered = super().poll(timeout)
        if not answered and timeout:
            time.sleep(0.01)
        return answered

    def running(self) -> set[str]:
        return super().running() | {job.key for job in self.held}

    def release(self) -> None:
        held, self.held = self.held, []
        super().submit(held)


def opened(directory: Path, n_held: int = 1, **changes: Any) -> tuple[Campaign, Held]:
    made: list[Held] = []

    def runner(parts: Parts, where: Path, folder: Path) -> Held:
        made.append(Held(bench(parts, where), n_held))
        return made[0]

    config = menu_config(**(ROUNDS | changes))
    return Campaign.from_config(config, directory, runner=runner), made[0]


def states(campaign: Campaign, number: int) -> list[str]:
    return [row["state"] for row in campaign.ledger.round_queries(number)]


CLOSING = {"execution": {"close_share": 0.6}}


def test_a_round_closes_at_its_share_and_the_rest_stays_out(tmp_path: Path) -> None:
    campaign, runner = opened(tmp_path, execution={"close_share": 0.85})
    with campaign:
        assert campaign.step()
        assert states(campaign, 0).count("running") == 1
        assert campaign.next_round() == 1
        assert campaign.ledger.promised() > 0
        assert runner.held


def test_ten_stragglers_of_fifty_do_not_hold_up_a_round_that_closes_at_four_fifths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    menu = {"kind": "tests.fakes:Menu", "n_items": 60}
    of_50 = {"initial": {"n": {"target": 50}}, "budget": {"cost": 99, "rounds": 3}}
    changes = {"space": menu, "execution": {"close_share": 0.8}} | of_50
    campaign, runner = opened(tmp_path, n_held=10, **changes)
    real, polls = runner.poll, itertools.count()

    def poll(timeout: float | None = 0.0) -> list[Outcome]:
        assert next(polls) < 200, "the round waits on"
        return real(timeout)

    monkeypatch.setattr(runner, "poll", poll)
    with campaign:
        campaign.step()
        assert states(campaign, 0).count("running") == 10


def test_what_is_out_counts_as_pending_and_against_the_budget(tmp_path: Path) -> None:
    campaign, _ = opened(tmp_path, **CLOSING)
    with campaign:
        campaign.step()
        model = learn(campaign, 1, 0).model
        assert isinstance(model, WithPending)
        assert model.summary()["n_pending"] == states(campaign, 0).count("running") > 0
        costs = [rung.cost for rung in campaign.parts.ladder]
        before = campaign.limits(1, costs).cost
        assert before <= campaign.config.budget.cost - campaign.ledger.committed() + 1e-9


def test_a_late_answer_is_taken_in_by_a_later_round(tmp_path: Path) -> None:
    campaign, runner = opened(tmp_path, **CLOSING)
    with campaign:
        campaign.step()
        (late,) = [job.key for job in runner.held]
        runner.release()
        campaign.step()
        frame = campaign.ledger.to_frame().set_index("key")
        assert frame.loc[late, "state"] == "done"
        assert frame.loc[late, "round"] == 0


def test_the_end_waits_for_all_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    campaign, runner = opened(tmp_path, **CLOSING)
    with campaign:
        while (number := campaign.next_round()) is not None and number < 3:
            campaign.step()
        assert campaign.ledger.is_open()
        assert not campaign.is_complete()
        runner.n_held = 0
        runner.release()
        campaign.run()
        frame = campaign.ledger.to_frame()
        assert campaign.is_complete()
        assert (frame["state"] == "done").all()
        assert len(runner.submitted) == len(set(runner.submitted)) == len(frame)
        assert campaign.ledger.spend() <= campaign.config.budget.cost + 1e-9


def test_a_late_answer_is_taken_in_after_a_restart(tmp_path: Path) -> None:
    campaign, runner = opened(tmp_path, **CLOSING)
    with campaign:
        campaign.step()
        (late,) = [job.key for job in runner.held]
    again, _ = opened(tmp_path, n_held=0, **CLOSING)
    with again:
        again.step()
        frame = again.ledger.to_frame().set_index("key")
    assert frame.loc[late, "state"] == "done"


def test_a_round_closes_by_time(tmp_path: Path) -> None:
    campaign, _ = opened(tmp_path, execution={"close_after_s": 0.3})
    with campaign:
        began = time.monotonic()
        campaign.step()
        assert time.monotonic() - began >= 0.3
        assert set(states(campaign, 0)) == {"running", "done"}


def test_no_wait_for_an_answer_outlasts_the_time_that_is_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign, runner = opened(tmp_path, execution={"close_after_s": 0.2})
    real, waits = runner.poll, list[float]()

    def poll(timeout: float | None = 0.0) -> list[Outcome]:
        waits.append(timeout or 0.0)
        return real(timeout)

    monkeypatch.setattr(runner, "poll", poll)
    with campaign:
        campaign.step()
    assert 0 < max(waits) <= 0.2


@given(percent=st.integers(0, 100), n=st.integers(1, 1000), data=st.data())
def test_law_a_share_has_come_at_its_number_however_it_is_rounded(
    percent: int, n: int, data: st.DataObject
) -> None:
    least = -(-percent * n // 100)
    n_ended = data.draw(st.sampled_from([max(0, least - 1), least, n]))
    assert has_come(n_ended, n, percent / 100) == (n_ended >= least)


def test_without_a_share_a_round_waits_for_all(tmp_path: Path) -> None:
    campaign, _ = opened(tmp_path, n_held=0)
    with campaign:
        campaign.step()
        assert set(states(campaign, 0)) == {"done"}


@pytest.mark.parametrize("setting", [{"close_share": 1.5}, {"close_after_s": 0}])
def test_a_bad_setting_is_told(tmp_path: Path, setting: dict[str, Any]) -> None:
    from pipeline.config import ConfigError

    with pytest.raises(ConfigError, match=f"execution.{next(iter(setting))}"):
        opened(tmp_path, execution=setting)


def test_an_oracle_may_say_what_an_answer_cost(tmp_path: Path) -> None:
    ladder = [{"kind": "tests.pipeline.test_stragglers:Metered", "fidelity": "target", "cost": 1}]
    config = menu_config(
        oracles=ladder, initial={"n": {"target": 3}}, budget={"cost": 6, "rounds": 1}
    )
    with Campaign.from_config(config, tmp_path) as campaign:
        campaign.step()
        frame: pd.DataFrame = campaign.ledger.to_frame()
    assert frame["actual_cost"].tolist() == [0.25] * 3
    assert frame["declared_cost"].tolist() == [1.0] * 3


class Metered:
    """Answers what it cost beside the value."""

    def __init__(self, fidelity: str, cost: float) -> None:
        self.fidelity, self.cost = fidelity, cost

    def query(self, candidates: list[int]) -> list[dict[str, float]]:
        return [{"value": float(c), "actual_cost": 0.25} for c in candidates]

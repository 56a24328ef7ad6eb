"""The loop's laws: the budget holds, the seed decides all, failures are paid and not repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import pipeline
from pipeline import Campaign
from pipeline.progress import Progress, Several
from pipeline.queries import CampaignStoppedError, make_queries, open_items, promotable
from pipeline.round import Round
from tests.fakes import Optimist, branin_config, comparable, menu_config, price
from tests.pipeline.campaigns import PRICE, logged, play


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with Campaign.from_config(branin_config(), tmp_path_factory.mktemp("small") / "run") as made:
        made.run()
        yield made


def test_the_budget_holds_and_the_rounds_are_played(small: Campaign) -> None:
    frame = small.ledger.to_frame()
    assert 5 < small.ledger.spend() <= 8 + 1e-9
    assert sorted(frame["round"].unique()) == [0, 1, 2]
    assert (frame["state"] == "done").all()
    assert small.ledger.promised() == 0
    assert (frame.groupby("round").size().iloc[1:] <= 4).all()


def test_best_is_the_best_that_was_paid_for_at_the_target(small: Campaign) -> None:
    frame = small.ledger.to_frame()
    at_target = frame[frame["fidelity"] == "target"]
    assert len(at_target) > 2
    assert small.best(1)["value"].iloc[0] == at_target["value"].min()
    assert list(small.best(3)["value"]) == sorted(at_target["value"])[:3]


def test_a_choice_says_why_and_what_was_expected(small: Campaign) -> None:
    chosen = small.ledger.to_frame().query("round > 0")
    for reason in chosen["reason"]:
        assert {"why", "mean", "sd", "target_mean", "target_sd", "log_gain", "cost"} <= set(reason)
        assert reason["sd"] > 0


def test_a_campaign_leaves_what_its_directory_promises(small: Campaign) -> None:
    made = {p.relative_to(small.directory).as_posix() for p in small.directory.rglob("*")}
    for number in ("000", "001", "002"):
        assert f"rounds/{number}/figures.json" in made
    for wanted in ("config.resolved.yaml", "ledger.sqlite", "rounds/001/sampler.pt"):
        assert wanted in made
    assert {p for p in made if p.startswith("jobs/") and p.endswith("result.json")} == {
        f"jobs/{key}/result.json" for key in small.ledger.to_frame()["key"]
    }
    written = yaml.safe_load((small.directory / "config.resolved.yaml").read_text())
    assert written["sampler"]["learning_rate"] == 1e-3  # every default is written out
    assert written["surrogate"]["kind"] == "auto"
    assert written["surrogate"]["max_exact"] == 1000
    decision = json.loads((small.directory / "rounds/001/decision.json").read_text())
    assert decision["surrogate"]["chosen"] == "multi_fidelity_gp"


def test_the_same_seed_is_the_same_ledger_and_another_is_another(
    small: Campaign, tmp_path: Path
) -> None:
    rows = comparable(small.ledger.to_frame())
    assert comparable(play(branin_config(), tmp_path / "same")) == rows
    other = comparable(play(branin_config(seed=1), tmp_path / "other"))
    assert {row["candidate"] for row in other} != {row["candidate"] for row in rows}


def test_the_random_state_of_others_neither_matters_nor_moves(tmp_path: Path) -> None:
    torch.manual_seed(5)
    first = comparable(play(menu_config(), tmp_path / "a"))
    before = torch.get_rng_state()
    torch.manual_seed(6)
    assert comparable(play(menu_config(), tmp_path / "b")) == first
    torch.manual_seed(5)
    play(menu_config(), tmp_path / "c")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_finished_campaign_does_nothing_more(small: Campaign) -> None:
    before = comparable(small.ledger.to_frame())
    assert small.step() is False
    small.run()
    assert comparable(small.ledger.to_frame()) == before


def broken(low: dict[str, Any], target: dict[str, Any], **changes: Any) -> dict[str, Any]:
    ladder = [
        {"kind": PRICE, "fidelity": "low", "cost": 0.1} | low,
        {"kind": PRICE, "fidelity": "target", "cost": 1} | target,
    ]
    return menu_config(oracles=ladder, **changes)


EVERYTHING = list(range(40))


def test_when_all_fails_the_campaign_stops_with_the_reasons(tmp_path: Path) -> None:
    config = broken({"fails": EVERYTHING}, {"refuses": EVERYTHING})
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        with pytest.raises(CampaignStoppedError, match=r"8 of 8 .*RuntimeError: item \d+ went"):
            campaign.run()
        assert campaign.ledger.spend() == pytest.approx(0.6)  # the refused ones are refunded
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        with pytest.raises(CampaignStoppedError):
            campaign.run()
        assert campaign.ledger.last_round() == 0  # it asks for no more


def test_when_the_little_there_is_fails_it_stops_too(tmp_path: Path) -> None:
    config = broken({}, {"fails": EVERYTHING}, initial={"n": {"target": 2}})
    with (
        Campaign.from_config(config, tmp_path / "run") as campaign,
        pytest.raises(CampaignStoppedError, match="nothing to learn from: no query succeeded"),
    ):
        campaign.run()


def test_more_failures_than_allowed_stop_it_until_they_are_allowed(tmp_path: Path) -> None:
    config = broken({}, {"fails": EVERYTHING}, execution={"max_failed_share": 0.2})
    stops = pytest.raises(CampaignStoppedError, match=r"2 of 8 queries of round 0 failed.*0\.2")
    with Campaign.from_config(config, tmp_path / "run") as campaign, stops:
        campaign.run()
    allowed = ["execution.max_failed_share=1"]
    with Campaign.resume(tmp_path / "run", overrides=allowed) as campaign:
        campaign.run()
        assert campaign.ledger.last_round() > 0


def test_what_failed_is_paid_but_never_asked_again(tmp_path: Path) -> None:
    config = broken({"fails": list(range(0, 40, 3))}, {"fails": list(range(1, 40, 3))})
    frame = play(config, tmp_path / "run")
    failed = frame[frame["state"] == "failed"]
    assert len(failed) >= 2
    assert (failed["actual_cost"] == failed["declared_cost"]).all()
    for _, row in failed.iterrows():
        later = frame[(frame["candidate"] == row["candidate"]) & (frame["round"] > row["round"])]
        assert later.empty


def test_what_may_be_asked_is_what_is_above_any_answer_and_never_failed(tmp_path: Path) -> None:
    config = broken({"fails": [0]}, {"fails": [1]}, space={"kind": "tests.fakes:Menu"})
    low, target = 0, 1
    asked = [(0, low), (1, target), (2, low), (3, target), (4, low), (4, target)]
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        parts = campaign.parts
        states = parts.environment.from_keys([f"item {i}" for i, _ in asked])
        queries = make_queries(parts, 0, states, [m for _, m in asked], [{}] * len(asked))
        campaign.ledger.reserve(queries, "menu", 99.0)
        Round(campaign, 0).query()
        is_open = open_items(campaign, [f"item {i}" for i in range(6)])
        again = promotable(campaign.ledger.to_frame(), "target")
    nothing, higher, anything = [False, False], [False, True], [True, True]
    assert is_open.tolist() == [nothing, nothing, higher, nothing, nothing, anything]
    assert again == ["item 2"]


def test_a_property_that_is_not_answered_is_a_failure_that_names_what_is(tmp_path: Path) -> None:
    config = menu_config(objective={"property": "colour", "goal": "minimize"})
    with (
        Campaign.from_config(config, tmp_path / "run") as campaign,
        pytest.raises(CampaignStoppedError, match="did not answer `colour`, only: value"),
    ):
        campaign.run()


def test_maximize_finds_the_most(tmp_path: Path) -> None:
    config = menu_config(objective={"goal": "maximize"}, budget={"cost": 14, "rounds": 5})
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.run()
        frame, best = campaign.ledger.to_frame(), campaign.best(1)["value"].iloc[0]
    assert best == frame[frame["fidelity"] == "target"]["value"].max()
    assert best > sorted(price(i) for i in range(40))[-6]  # among the best five of forty


@pytest.mark.parametrize(("goal", "sign"), [("minimize", -1.0), ("maximize", 1.0)])
def test_the_acquisition_is_told_which_way_is_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goal: str, sign: float
) -> None:
    told: list[Any] = []
    real = Optimist.prepare

    def watched(self: Optimist, surrogate: Any, **more: Any) -> None:
        told.append((more["sign"], more["best"]))
        real(self, surrogate, **more)

    monkeypatch.setattr(Optimist, "prepare", watched)
    with Campaign.from_config(menu_config(objective={"goal": goal}), tmp_path / "run") as campaign:
        campaign.step()
        best = campaign.best(1)["value"].iloc[0]
        campaign.step()
    assert told == [(sign, best)]


def test_a_rounds_sampler_goes_on_from_the_last(tmp_path: Path) -> None:
    play(menu_config(), tmp_path / "run")
    for number in (1, 2, 3):
        path = tmp_path / "run" / "rounds" / f"{number:03d}" / "sampler.pt"
        assert torch.load(path, weights_only=True)["n_steps_trained"] == 3 * number


def test_a_sampler_that_cannot_be_read_stops_before_anything_is_spent(tmp_path: Path) -> None:
    with Campaign.from_config(menu_config(), tmp_path / "run") as campaign:
        campaign.step()
        campaign.step()
        spend = campaign.ledger.spend()
        path = tmp_path / "run" / "rounds" / "001" / "sampler.pt"
        torch.save({"format": 1}, path)
        with pytest.raises(CampaignStoppedError, match=r"sampler\.pt.*format 1.*delete this file"):
            campaign.step()
        assert campaign.ledger.spend() == spend
        path.unlink()
        campaign.step()
    anew = torch.load(tmp_path / "run" / "rounds" / "002" / "sampler.pt", weights_only=True)
    assert anew["n_steps_trained"] == 3


def test_a_ladder_of_one_oracle(tmp_path: Path) -> None:
    config = branin_config(
        oracles=[{"kind": "branin", "fidelity": "only", "cost": 1}],
        initial={"n": {"only": 4}},
        budget={"cost": 7, "rounds": 2},
        acquisition={"kind": "log_ei"},
    )
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.run()
        decision = json.loads((tmp_path / "run/rounds/001/decision.json").read_text())
        assert decision["surrogate"]["chosen"] == "gp"
        assert campaign.ledger.spend() == 7


def test_more_rounds_than_money_still_spend_the_money(tmp_path: Path) -> None:
    config = menu_config(
        oracles=[{"kind": PRICE, "fidelity": "only", "cost": 1}],
        initial={"n": {"only": 3}},
        budget={"cost": 6, "rounds": 20},
    )
    frame = play(config, tmp_path / "run")
    assert frame["actual_cost"].sum() == 6
    assert list(frame["round"]) == [0, 0, 0, 1, 2, 3]
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        assert campaign.next_round() is None
        assert "finished" not in campaign.ledger.about()  # the money ended it, not a lack of ideas


def test_a_sampler_that_learns_nothing_plays_too(tmp_path: Path) -> None:
    config = menu_config(sampler={"kind": "random"}, budget={"cost": 6, "rounds": 2})
    frame = play(config, tmp_path / "run")
    assert frame["round"].max() == 2


def test_a_space_smaller_than_the_initial_design_is_asked_whole(tmp_path: Path) -> None:
    config = menu_config(
        space={"kind": "tests.fakes:Menu", "n_items": 3},
        initial={"n": {"low": 10, "target": 5}},
        budget={"cost": 50, "rounds": 9},
    )
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.run()
        frame = campaign.ledger.to_frame()
        assert campaign.next_round() is None
    assert len(frame) == 6
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        assert campaign.next_round() is None  # nothing is left to ask, and it remembers


def test_variants_are_chosen_once_a_batch_and_listed_once(tmp_path: Path) -> None:
    config = menu_config(space={"kind": "tests.fakes:Menu", "n_items": 40, "n_variants": 4})
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.run()
        chosen = campaign.ledger.to_frame().query("round > 0")
        best = campaign.best(10)
    assert not chosen.duplicated(["round", "family"]).any()
    assert best["family"].is_unique


class Diary(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def round(self, number: int, rounds: int) -> None:
        self.lines.append(f"round {number}/{rounds}")

    def verb(self, name: str) -> None:
        self.lines.append(name)

    def step(self, step: int, loss: float) -> None:
        self.lines.append(f"step {step}")

    def queries(self, n: int) -> None:
        self.lines.append(f"{n} queries")

    def answered(self) -> None:
        self.lines.append("answered")

    def recorded(self, number: int) -> None:
        self.lines.append(f"recorded {number}")


def test_every_watcher_is_told_the_same_story(tmp_path: Path) -> None:
    config, _ = logged(tmp_path)
    one, two = Diary(), Diary()
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.progress = Several(one, Progress(), two)
        campaign.step()
        campaign.step()
    assert one.lines == two.lines
    assert one.lines[:9] == [
        "round 0/2",
        "start",
        "query",
        "4 queries",
        *["answered"] * 4,
        "record",
    ]
    second = one.lines[10:]
    assert second[:7] == ["round 1/2", "fit", "train", "step 0", "step 1", "propose", "select"]
    assert second[-2:] == ["record", "recorded 1"]


def test_the_package_says_what_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute `Campain`"):
        _ = pipeline.Campain

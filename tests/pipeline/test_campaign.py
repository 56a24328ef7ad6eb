"""The loop's laws: the budget holds, the seed decides all, and a kill anywhere changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

import pipeline
from pipeline import Campaign, jobs
from pipeline.campaign import LockedError
from pipeline.config import ConfigError
from pipeline.ledger import Ledger, LedgerError
from pipeline.progress import Progress, Several
from pipeline.queries import CampaignStoppedError
from tests.fakes import Killed, KillAt, branin_config, comparable, menu_config, price

ROOT = Path(__file__).parents[2]
PRICE = "tests.fakes:Price"


def play(config: dict[str, Any], directory: Path, k: int | None = None) -> pd.DataFrame:
    """Run a campaign, killed at the k-th thing that it tells; its ledger."""
    with Campaign.from_config(config, directory) as campaign:
        campaign.progress = KillAt(k)
        campaign.run()
        return campaign.ledger.to_frame()


def logged(directory: Path, **changes: Any) -> tuple[dict[str, Any], Path]:
    """A short campaign whose oracles write down each evaluation."""
    log = directory / "evaluations"
    ladder = [
        {"kind": PRICE, "fidelity": "low", "cost": 0.1, "bias": 0.2, "log": str(log)},
        {"kind": PRICE, "fidelity": "target", "cost": 1, "log": str(log)},
    ]
    shorter = {
        "oracles": ladder,
        "initial": {"n": {"low": 3, "target": 1}},
        "budget": {"cost": 5, "rounds": 2},
        "selection": {"batch_size": 3, "n_proposals": 20},
        "sampler": {"kind": "gflownet", "n_steps": 2, "batch_size": 4, "hidden": [8]},
    }
    return menu_config(**(shorter | changes)), log


def undisturbed(directory: Path) -> list[dict[str, Any]]:
    config, log = logged(directory)
    frame = play(config, directory / "undisturbed")
    log.unlink()
    return comparable(frame)


# --- a campaign of real parts -------------------------------------------------------------------


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
    assert written["surrogate"]["kind"] == "multi_fidelity_gp"


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


def test_a_kill_of_a_real_campaign_changes_nothing(small: Campaign, tmp_path: Path) -> None:
    rows = comparable(small.ledger.to_frame())
    for k in (17, 24):  # in training after the initial design, and among the answers
        with pytest.raises(Killed):
            play(branin_config(), tmp_path / f"killed {k}", k)
        assert comparable(play(branin_config(), tmp_path / f"killed {k}")) == rows


# --- kill anywhere ------------------------------------------------------------------------------


@contextmanager
def doomed(k: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Die at the k-th of all moments around a transaction or a result file; counts them."""
    told = [0]

    def moment() -> None:
        told[0] += 1
        if told[0] == k:
            raise Killed(f"at {k}")

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            moment()
            result = real(*args, **kwargs)
            moment()
            return result

        return watched

    with monkeypatch.context() as patch:
        for name in ("reserve", "start", "commit", "fail", "set_about"):
            patch.setattr(Ledger, name, around(getattr(Ledger, name)))
        patch.setattr(jobs, "write_result", around(jobs.write_result))
        patch.setattr(pipeline.round, "write_json", around(pipeline.round.write_json))
        yield told


def test_a_kill_at_anything_told_changes_nothing_and_pays_nothing_twice(tmp_path: Path) -> None:
    rows = undisturbed(tmp_path)
    config, log = logged(tmp_path)
    counter = KillAt()
    with Campaign.from_config(config, tmp_path / "counted") as campaign:
        campaign.progress = counter
        campaign.run()
    assert counter.told > 30
    for k in range(1, counter.told + 1, 3):
        log.unlink()
        with pytest.raises(Killed):
            play(config, tmp_path / f"at {k}", k)
        assert comparable(play(config, tmp_path / f"at {k}")) == rows, k
        evaluations = log.read_text().splitlines()
        assert len(evaluations) == len(set(evaluations)) == len(rows), k


def test_a_kill_around_any_write_changes_nothing_and_pays_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = undisturbed(tmp_path)
    config, log = logged(tmp_path)
    with doomed(0, monkeypatch) as told:
        play(config, tmp_path / "counted")
    assert told[0] > 40
    for k in range(1, told[0] + 1, 6):
        log.unlink()
        with pytest.raises(Killed), doomed(k, monkeypatch):
            play(config, tmp_path / f"at {k}")
        stored = len(list((tmp_path / f"at {k}" / "jobs").glob("*/result.json")))
        begun = log.read_text().splitlines() if log.exists() else []
        assert comparable(play(config, tmp_path / f"at {k}")) == rows, k
        # What had begun without a result when the kill came, one query at most, is done again.
        again = len(log.read_text().splitlines()) - len(rows)
        assert again == len(begun) - stored, k
        assert again in (0, 1), k


def test_kill_after_kill_still_comes_to_the_same_end(tmp_path: Path) -> None:
    rows = undisturbed(tmp_path)
    config, _ = logged(tmp_path)
    for kills in range(30):
        try:
            frame = play(config, tmp_path / "run", 11)
        except Killed:
            continue
        assert comparable(frame) == rows
        assert kills >= 2
        return
    pytest.fail("it never came to its end")


def test_stepping_and_reopening_is_running(tmp_path: Path) -> None:
    rows = undisturbed(tmp_path)
    config, _ = logged(tmp_path)
    goes_on = True
    while goes_on:
        with Campaign.from_config(config, tmp_path / "run") as campaign:
            goes_on = campaign.step()
    assert comparable(Ledger.read(tmp_path / "run" / "ledger.sqlite").to_frame()) == rows


# --- one writer ---------------------------------------------------------------------------------


def test_a_second_process_is_told_who_holds_the_campaign(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(branin_config()))
    script = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from pipeline import Campaign; from pipeline.campaign import LockedError\n"
        "try:\n    Campaign.from_config(sys.argv[1], sys.argv[2])\n"
        "except LockedError as error:\n    print(error)\n"
    )
    with Campaign.from_config(tmp_path / "c.yaml", tmp_path / "run"):
        where = [str(tmp_path / "c.yaml"), str(tmp_path / "run"), str(ROOT)]
        command = [sys.executable, "-c", script, *where]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"in use by process {os.getpid()} " in told
    assert told.count("\n") == 1


def test_a_lock_is_free_when_its_holder_is_gone_or_failed(tmp_path: Path) -> None:
    with Campaign.from_config(menu_config(), tmp_path / "run"):
        with pytest.raises(LockedError):
            Campaign.from_config(menu_config(), tmp_path / "run")
        with pytest.raises(LockedError):
            Campaign.resume(tmp_path / "run", overrides=["budget.cost=99"])
    (tmp_path / "run" / "ledger.sqlite").rename(tmp_path / "aside")
    (tmp_path / "run" / "ledger.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(LedgerError):
        Campaign.from_config(menu_config(), tmp_path / "run")
    (tmp_path / "aside").rename(tmp_path / "run" / "ledger.sqlite")
    Campaign.from_config(menu_config(), tmp_path / "run").close()


# --- the same campaign, or another --------------------------------------------------------------


def test_a_changed_config_is_refused_and_says_what_changed(tmp_path: Path) -> None:
    Campaign.from_config(menu_config(), tmp_path / "run").close()
    with pytest.raises(ConfigError) as caught:
        Campaign.from_config(menu_config(seed=7), tmp_path / "run")
    (line,) = caught.value.problems
    assert "seed was 0, is 7" in line
    assert "--dir" in line


def test_writing_out_a_default_is_no_change(tmp_path: Path) -> None:
    Campaign.from_config(menu_config(), tmp_path / "run").close()
    same = menu_config(execution={"attempts": 2}, seed=0)
    Campaign.from_config(same, tmp_path / "run").close()


def test_resume_with_a_larger_budget_goes_further(tmp_path: Path) -> None:
    config, _ = logged(tmp_path)
    before = play(config, tmp_path / "run")
    with Campaign.resume(tmp_path / "run") as campaign:
        assert campaign.next_round() is None
    more = ["budget.cost=9", "budget.rounds=4"]
    with Campaign.resume(tmp_path / "run", overrides=more) as campaign:
        campaign.run()
        after = campaign.ledger.to_frame()
        assert campaign.ledger.spend() <= 9 + 1e-9
    assert comparable(after)[: len(before)] == comparable(before)
    assert after["round"].max() == 4
    assert after["actual_cost"].sum() > before["actual_cost"].sum()
    written = yaml.safe_load((tmp_path / "run" / "config.resolved.yaml").read_text())
    assert written["budget"] == {"cost": 9.0, "rounds": 4}
    Campaign.resume(tmp_path / "run").close()  # and it is remembered


@pytest.mark.parametrize("assignment", ["seed=3", "oracles.0.cost=0.2", "budgt.cost=3", "name=x"])
def test_resume_may_change_only_how_far_and_where(tmp_path: Path, assignment: str) -> None:
    Campaign.from_config(menu_config(), tmp_path / "run").close()
    with pytest.raises(ConfigError, match="can change only budget, execution, tracking"):
        Campaign.resume(tmp_path / "run", overrides=["budget.cost=20", assignment])
    ledger = Ledger.read(tmp_path / "run" / "ledger.sqlite")
    assert yaml.safe_load(ledger.about()["config"])["budget"]["cost"] == 9
    ledger.close()


def test_resume_of_nothing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no campaign here"):
        Campaign.resume(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_default_directory_is_runs_and_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Campaign.from_config(menu_config(name="here")) as campaign:
        assert campaign.directory == Path("runs/here")
    assert (tmp_path / "runs" / "here" / "ledger.sqlite").exists()


# --- failures -----------------------------------------------------------------------------------


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
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        with pytest.raises(CampaignStoppedError, match=r"2 of 8 queries of round 0 failed.*0\.2"):
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


def test_a_property_that_is_not_answered_is_a_failure_that_names_what_is(tmp_path: Path) -> None:
    config = menu_config(objective={"property": "colour", "goal": "minimize"})
    with (
        Campaign.from_config(config, tmp_path / "run") as campaign,
        pytest.raises(CampaignStoppedError, match="did not answer `colour`, only: value"),
    ):
        campaign.run()


# --- other shapes of a campaign -----------------------------------------------------------------


def test_maximize_finds_the_most(tmp_path: Path) -> None:
    config = menu_config(objective={"goal": "maximize"}, budget={"cost": 14, "rounds": 5})
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.run()
        frame, best = campaign.ledger.to_frame(), campaign.best(1)["value"].iloc[0]
    assert best == frame[frame["fidelity"] == "target"]["value"].max()
    assert best > sorted(price(i) for i in range(40))[-6]  # among the best five of forty


def test_a_ladder_of_one_oracle(tmp_path: Path) -> None:
    config = branin_config(
        oracles=[{"kind": "branin", "fidelity": "only", "cost": 1}],
        initial={"n": {"only": 4}},
        budget={"cost": 7, "rounds": 2},
        acquisition={"kind": "log_ei"},
    )
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        assert campaign.config.surrogate.kind == "gp"
        campaign.run()
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


# --- values that the user brings ----------------------------------------------------------------


def known(folder: Path, text: str) -> dict[str, Any]:
    (folder / "known.csv").write_text(text)
    return menu_config(initial={"file": "known.csv"}, budget={"cost": 3, "rounds": 1})


def from_file(folder: Path, config: dict[str, Any]) -> Campaign:
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return Campaign.from_config(folder / "c.yaml", folder / "run")


def test_known_values_start_a_campaign_and_cost_nothing(tmp_path: Path) -> None:
    table = "candidate,fidelity,value,note\nitem 3,target,0.5,mine\nitem 3,low,0.75,\nitem 8,low,-1"
    with from_file(tmp_path, known(tmp_path, table)) as campaign:
        campaign.run()
        frame = campaign.ledger.to_frame()
    own = frame[frame["round"] == 0]
    assert list(own["candidate"]) == ["item 3", "item 3", "item 8"]
    assert list(own["value"]) == [0.5, 0.75, -1.0]
    assert (own["actual_cost"] == 0).all()
    assert own["reason"].iloc[0] == {"why": "known, from known.csv"}
    later = frame[frame["round"] == 1]
    assert len(later) > 0
    assert ("item 3", "target") not in set(zip(later["candidate"], later["fidelity"], strict=True))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("candidate,fidelity\nitem 1,low", ["missing: value"]),
        ("candidate,fidelity,value\n", ["it has no rows"]),
        ("", ["cannot be read"]),
        ("candidate,fidelity,value\nitem 99,low,1", ["line 2", "'item 99'"]),
        ("candidate,fidelity,value\n,low,1", ["line 2", "''"]),
        ("candidate,fidelity,value\nNA,low,1", ["line 2", "'NA'"]),
        ("candidate,fidelity,value\nitem 1,low,2\nitem 1,tagret,1", ["line 3", "`tagret`", "low"]),
        ("candidate,fidelity,value\nitem 1,low,much", ["line 2", "finite value", "much"]),
        ("candidate,fidelity,value\nitem 1,low,", ["line 2", "finite value"]),
        ("candidate,fidelity,value\nitem 1,low,inf", ["line 2", "finite value"]),
        ("candidate,fidelity,value\nitem 1,low,1\nitem 1,low,1,2,3,4", ["cannot be read"]),
        ("candidate,fidelity,value\nitem 1,low,1\nitem 1,low,2", ["line 3", "again"]),
    ],
)
def test_a_bad_table_is_named_before_anything_is_written(
    tmp_path: Path, table: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, known(tmp_path, table))
    (line,) = caught.value.problems
    assert line.startswith("initial.file: ")
    for word in ["known.csv", *words]:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_every_bad_row_is_named_at_once(tmp_path: Path) -> None:
    table = "candidate,fidelity,value\nitem 99,high,much\nitem 1,low,1\nitem 98,low,2"
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, known(tmp_path, table))
    assert len(caught.value.problems) == 4


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"initial\.file: .*none\.csv cannot be read"):
        from_file(tmp_path, menu_config(initial={"file": "none.csv"}))


# --- who watches --------------------------------------------------------------------------------


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

"""The races: what is measured of them by hand, and that every campaign of theirs is valid."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.campaigns_measure import Entry
from benchmarks.campaigns_methods import METHODS, merged, single_fidelity
from benchmarks.campaigns_races import LADDER_METHODS, RACES, named
from benchmarks.campaigns_table import spread
from pipeline.campaign import checked

COLUMNS = ["round", "candidate", "family", "fidelity", "value", "cost", "state", "truth"]
CONFIG = {
    "objective": {"goal": "maximize"},
    "oracles": [{"fidelity": "low"}, {"fidelity": "target"}],
    "budget": {"cost": 10.0, "rounds": 2},
}


def entry(rows: list[list[Any]], goal: str = "maximize", race: str = "hartmann") -> Entry:
    frame = pd.DataFrame(rows, columns=COLUMNS)
    seconds = pd.DataFrame([[1, "fit", 2.0, 1.0], [1, "train", 3.0, 2.0], [2, "fit", 1.0, 1.0]],
                           columns=["round", "verb", "seconds", "cpu_seconds"])  # fmt: skip
    config = CONFIG | {"objective": {"goal": goal}}
    return Entry(race, "ours", 0, config, frame, seconds, 0.5, float("nan"))


ROWS = [
    [0, "a", "a", "low", 9.0, 0.5, "done", 4.0],
    [0, "b", "b", "target", 1.0, 1.0, "done", 1.0],
    [1, "a", "a", "target", 4.0, 1.0, "done", 4.0],
    [1, "c", "c", "target", float("nan"), 1.0, "failed", 2.0],
    [1, "a2", "a", "target", 5.0, 1.0, "done", 5.0],
    [1, "d", "d", "target", 2.0, 1.0, "done", 2.0],
]


def test_only_what_is_paid_for_at_the_target_counts_and_families_once() -> None:
    curve = entry(ROWS).curve
    assert curve.cost.tolist() == [1.5, 2.5, 5.5]
    assert curve.mean.tolist() == [1.0, 2.5, pytest.approx(7 / 3)]
    assert curve.best.tolist() == [1.0, 4.0, 4.0]
    assert curve.n.tolist() == [1, 2, 3]


def test_scored_counts_every_candidate_asked_by_its_true_value() -> None:
    scored = entry(ROWS).scored
    assert scored.cost.tolist() == [0.5, 1.5, 3.5, 5.5]
    assert scored.best.tolist() == [4.0] * 4


def test_a_curve_is_read_at_costs_and_values() -> None:
    curve = entry(ROWS).curve
    assert np.isnan(curve.at(1.4))
    assert (curve.at(1.5), curve.at(2.6), curve.at(100)) == (1.0, 2.5, pytest.approx(7 / 3))
    assert curve.cost_of(2.0, sign=1) == 2.5
    assert curve.cost_of(2.0, sign=1, least=3) == 5.5
    assert curve.cost_of(3.0, sign=1) == float("inf")
    assert curve.cost_of_best(4.0, sign=1) == 2.5


def test_the_least_is_best_where_it_is_minimised_and_only_k_count() -> None:
    rows = [[0, str(i), str(i), "target", float(60 - i), 1.0, "done", 0.0] for i in range(60)]
    curve = entry(rows, goal="minimize", race="branin").curve
    assert curve.best[-1] == 1.0
    assert curve.mean[-1] == np.mean(np.arange(1, 51))
    assert curve.n[-1] == 50


def test_seconds_are_those_of_whole_rounds() -> None:
    assert entry(ROWS).rounds.tolist() == [3.0, 1.0]


def test_spread() -> None:
    assert spread([1.0, 3.0]) == "2 ± 1.4"
    assert spread([1.0, float("inf")]) == "1 ± 0 (1 of 2)"
    assert spread([float("inf")]) == "never"
    assert spread([float("nan")]) == "–"


def test_changes_are_laid_over_and_another_kind_replaces() -> None:
    before = {"a": {"kind": "x", "n": 1, "m": 2}, "b": 1}
    assert merged(before, {"a": {"n": 5}}) == {"a": {"kind": "x", "n": 5, "m": 2}, "b": 1}
    assert merged(before, {"a": {"kind": "y"}}) == {"a": {"kind": "y"}, "b": 1}
    assert before["a"] == {"kind": "x", "n": 1, "m": 2}


def test_names_of_races() -> None:
    assert named(["hartmann", "branin", "hartmann"]) == ["hartmann", "branin"]
    assert named(["ehrlich"]) == ["ehrlich_15", "ehrlich_32"]
    with pytest.raises(ValueError, match="nobody"):
        named(["nobody"])


# Without TFBind8, whose table must be fetched.
OFFLINE = ["branin", "hartmann", "ehrlich_15", "sweep_park_c0.1_r0.5", "time_500"]


@pytest.mark.parametrize("name", OFFLINE)
def test_every_method_is_a_valid_campaign_of_the_same_cost(name: str, tmp_path: Path) -> None:
    race = RACES[name]
    assert set(race.methods) <= {*METHODS, "genetic"}
    assert set(LADDER_METHODS) == {*METHODS, "genetic"}
    config = race.make(0, tmp_path) | {"name": name}
    for method in set(race.methods) - {"genetic"}:
        parts = checked(METHODS[method](config), tmp_path)
        assert parts.config.budget.cost == config["budget"]["cost"]
        assert parts.ladder[-1].fidelity == "target"
        assert all(rung.identity for rung in parts.ladder)


def test_single_fidelity_starts_for_the_same_money(tmp_path: Path) -> None:
    changed = single_fidelity(RACES["branin"].make(0, tmp_path))
    assert [oracle["fidelity"] for oracle in changed["oracles"]] == ["target"]
    assert changed["initial"] == {"n": {"target": 4}}  # 20 x 0.01 + 20 x 0.1 + 2 = 4.2

"""A goal of a target value: read, compared, modelled, shown, and reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from pipeline import Campaign, metrics
from pipeline.approach import Distance, as_compared, folded
from pipeline.config import ConfigError, parse
from pipeline.figures import progress_curve
from pipeline.goal import Target, score, sign
from pipeline.report import write_report
from pipeline.snapshot import read_snapshot
from pipeline.status import read_status
from pipeline.tables import batch_table, best_table, short_table
from tests.fakes import Optimist, Smooth, branin_config, menu_config, price
from tests.pipeline.test_metrics import LEDGER

GOAL = Target(target=2.4)


def folded_by_sampling(mean: float, sd: float) -> tuple[float, float]:
    drawn = np.abs(np.random.default_rng(0).normal(mean, sd, 400_000))
    return float(drawn.mean()), float(drawn.std())


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (0.7, 1.0), (-3.0, 2.0), (5.0, 0.1)])
def test_a_folded_normal_has_the_moments_of_its_samples(mean: float, sd: float) -> None:
    of = torch.tensor([mean], dtype=torch.float64), torch.tensor([sd], dtype=torch.float64)
    expected = folded_by_sampling(mean, sd)
    assert [float(moment) for moment in folded(*of)] == pytest.approx(expected, rel=5e-3)


def test_far_from_zero_folding_changes_nothing_and_nothing_cancels() -> None:
    mean = torch.tensor([1e8, -1e8, 1e-8], dtype=torch.float64)
    sd = torch.tensor([1e-3, 1e-3, 1e-12], dtype=torch.float64)
    distance, spread = folded(mean, sd)
    assert distance.tolist() == mean.abs().tolist()
    assert spread.tolist() == pytest.approx(sd.tolist(), rel=1e-12)


def test_the_distance_is_least_where_the_prediction_meets_the_target() -> None:
    space_x = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None].expand(-1, 2)
    model = Smooth()
    model.fit(space_x[::7], torch.zeros(8, dtype=torch.long), 3 * space_x[::7, 0], 1, 0)
    mean, sd = as_compared(model, Target(target=1.5)).predict(space_x, 0)
    assert abs(3 * float(space_x[mean.argmin(), 0]) - 1.5) < 0.1
    assert (mean > 0).all()
    assert (sd > 0).all()
    assert as_compared(model, "minimize") is model
    assert isinstance(as_compared(model, GOAL), Distance)


def test_scores_and_signs() -> None:
    values = pd.Series([1.0, 2.0, 4.0])
    assert score(values, GOAL).tolist() == pytest.approx([1.4, 0.4, 1.6])
    assert score(values, "maximize").tolist() == values.tolist()
    assert (sign("minimize"), sign("maximize"), sign(GOAL)) == (-1.0, 1.0, -1.0)


def test_found_is_the_nearest_of_each_family() -> None:
    best = metrics.top_k(LEDGER, "top", GOAL, 5)
    assert list(best["candidate"]) == ["b'", "c"]
    assert best["distance"].tolist() == pytest.approx([0.4, 2.6])
    assert metrics.best_value(LEDGER, "top", GOAL) == 2.0
    assert metrics.best_score(LEDGER, "top", GOAL) == pytest.approx(0.4)
    figures = metrics.round_figures(LEDGER, 1, "top", GOAL)
    assert (figures["best"], figures["top_10_mean"]) == (2.0, 3.5)
    assert figures["best_distance"] == pytest.approx(0.4)
    assert figures["top_10_distance"] == pytest.approx(1.5)
    assert "best_distance" not in metrics.round_figures(LEDGER, 1, "top", "minimize")


def test_nothing_found_has_no_distance() -> None:
    empty = LEDGER[LEDGER["fidelity"] == "low"]
    assert metrics.best_score(empty, "top", GOAL) is None
    assert metrics.round_figures(empty, 1, "top", GOAL)["best_distance"] is None
    assert metrics.top_k(empty, "top", GOAL, 3).empty


def test_the_curve_of_a_target_is_of_distances() -> None:
    curve = progress_curve(LEDGER, "top", GOAL)
    assert curve["value"].tolist() == pytest.approx([0.6, 0.4, 2.6])
    assert curve["best"].tolist() == pytest.approx([0.6, 0.4, 0.4])
    assert curve["top_mean"].tolist() == pytest.approx([0.6, 0.4, 1.5])


def test_a_target_is_the_same_again_from_the_resolved_config() -> None:
    config = parse(branin_config(objective={"goal": {"target": 3}}))
    assert config.objective.goal == Target(target=3.0)
    assert parse(yaml.safe_load(config.as_yaml())) == config


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ({"target": "high"}, ["'high'", "finite"]),
        ({"target": True}, ["True", "finite"]),
        ({"target": float("inf")}, ["inf", "finite"]),
        ({"target": float("nan")}, ["nan", "finite"]),
        ({"target": None}, ["None", "finite"]),
        ({"targte": 1.0}, ["targte"]),
        ({"target": 1.0, "width": 2.0}, ["width"]),
        ({}, ["{}"]),
        (1.34, ["1.34"]),
        ("target", ["'target'"]),
        ("maximise", ["did you mean `maximize`?"]),
    ],
    ids=[
        "text", "boolean", "endless", "nan", "none", "misspelt", "more", "empty", "bare", "word",
        "spelling",
    ],
)  # fmt: skip
def test_a_wrong_goal_is_one_line_that_says_what_is_expected(goal: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(menu_config(objective={"goal": goal}))
    (line,) = caught.value.problems
    assert line.startswith("objective.goal: expected `minimize`, `maximize` or `{target: NUMBER}`")
    assert all(word in line for word in words)


def test_the_acquisition_is_told_of_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    real = Optimist.prepare

    def watched(self: Optimist, surrogate: Any, **more: Any) -> None:
        told.append((surrogate, more["sign"], more["best"]))
        real(self, surrogate, **more)

    monkeypatch.setattr(Optimist, "prepare", watched)
    config = menu_config(objective={"goal": {"target": 0.5}})
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.step()
        best = campaign.best(1)
        campaign.step()
    ((model, way, least),) = told
    assert isinstance(model, Distance)
    assert (way, least) == (-1.0, best["distance"].iloc[0])
    assert best["distance"].iloc[0] == abs(best["value"].iloc[0] - 0.5)


@pytest.mark.parametrize("target", [-0.6, 0.5])
def test_a_campaign_finds_what_is_nearest_and_everything_shows_it(
    tmp_path: Path, target: float
) -> None:
    config = menu_config(objective={"goal": {"target": target}}, budget={"cost": 14, "rounds": 5})
    directory = tmp_path / "run"
    with Campaign.from_config(config, directory) as campaign:
        campaign.run()
        best = campaign.best(3)
    assert best["distance"].is_monotonic_increasing
    least = float(best["distance"].iloc[0])
    assert least <= sorted(abs(price(i) - target) for i in range(40))[3]
    status = read_status(directory)
    assert status["best"] == best["value"].iloc[0]
    assert status["best_distance"] == least
    assert status["goal"] == f"approach {target:g}"
    snapshot = read_snapshot(directory)
    assert best_table(snapshot)["distance"].iloc[0] == least
    assert "distance" in short_table(snapshot)
    assert "distance" not in batch_table(snapshot.frame, 1, snapshot.label)
    figures = json.loads((directory / "rounds/005/figures.json").read_text())
    assert figures["best_distance"] == least
    page = write_report(directory).read_text()
    assert f"approach {target:g} value at fidelity" in page
    assert f"distance to {target:g}" in page


def test_a_grid_campaign_of_real_parts_approaches_the_target(tmp_path: Path) -> None:
    grid = {"kind": "hyper_grid", "n_dims": 2, "length": 40, "bounds": [[-5, 10], [0, 15]]}
    config = branin_config(
        space=grid,
        objective={"goal": {"target": 60.0}},
        initial={"n": {"low": 10, "target": 4}},
        budget={"cost": 22, "rounds": 5},
        sampler={"kind": "gflownet", "n_steps": 40, "batch_size": 32, "hidden": [32]},
        selection={"batch_size": 6, "n_proposals": 200},
    )
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.step()
        begin = campaign.best(1)["distance"].iloc[0]
        campaign.run()
        best = campaign.best(5)["distance"]
        history = metrics.history(campaign.ledger.to_frame(), campaign.target, campaign.goal)
    assert best.iloc[0] < min(begin, 3.0)  # of a property that spans 0.4 to 308
    assert best.mean() < 8.0
    assert history["best_distance"].is_monotonic_decreasing

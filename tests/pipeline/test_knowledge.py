"""What a round knows when it decides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline import Campaign, knowledge
from pipeline.knowledge import learn
from tests.fakes import menu_config, price


def test_of_very_many_answers_the_best_of_each_fidelity_stand_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = menu_config(initial={"n": {"low": 8, "target": 6}}, budget={"cost": 9, "rounds": 1})
    with Campaign.from_config(config, tmp_path) as campaign:
        campaign.step()
        everything = learn(campaign, 1, 0).asked()
        assert len(everything) == 8
        monkeypatch.setattr(knowledge, "MOST_ASKED", 4)
        few = learn(campaign, 1, 0).asked()
        frame = campaign.ledger.to_frame()
    assert set(few) < set(everything)
    for _, rows in frame.groupby("fidelity"):
        assert set(rows.nsmallest(2, "value")["candidate"]) <= set(few)
    assert min(everything, key=lambda key: price(int(key.split()[1]))) in few


def test_what_may_be_better_than_foreseen_counts_before_the_last_round_alone(
    tmp_path: Path,
) -> None:
    config = menu_config(initial={"n": {"low": 8, "target": 6}}, budget={"cost": 9, "rounds": 1})
    with Campaign.from_config(config, tmp_path) as campaign:
        campaign.step()
        known, environment = learn(campaign, 1, 0), campaign.parts.environment
        keys = [f"item {i}" for i in range(40)]
        features = environment.features(environment.from_keys(keys))
        discount = known.log_discount(features, keys)
        early, last = (
            known.log_harvest(features, keys, discount, is_last) for is_last in (False, True)
        )
        mean, sd = known.at_target(features)
    assert bool((early >= last - 1e-9).all())
    # The share of the gain that is not foreseen grows with what is not known.
    assert float(torch.corrcoef(torch.stack([early - last, mean + sd]))[0, 1]) > 0.5

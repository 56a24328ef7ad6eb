"""Values that come in steps: what the k best can still gain, and how a round's money is split."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import t as student

from pipeline import Campaign
from pipeline.harvest import harvest
from pipeline.knowledge import learn

LETTERS = "ACGT"


def ones(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("known", "ceiling"), [((3.0, 3.0), 4.0), ((5.0, 3.0), 5.0)])
def test_the_harvest_counts_whole_steps_up_to_the_next_level_or_the_best(
    known: tuple[float, ...], ceiling: float
) -> None:
    mean, sd = ones(3.2), ones(1.5)
    found = harvest(mean, sd, ones(*known), 2, step=1.0)
    room = ceiling - 3.0

    def counted(t: float) -> float:  # of Student's distribution with 2 degrees of freedom
        rise = 0.2 + 1.5 * t
        return float(student(2).pdf(t) * min(rise, room))

    at_half, at_room = (0.5 - 0.2) / 1.5, (room - 0.2) / 1.5
    up_to, beyond = quad(counted, at_half, at_room)[0], quad(counted, at_room, inf)[0]
    assert found.ceiling == ceiling
    assert float(found.log(mean, sd).exp()) == pytest.approx(up_to + beyond, rel=1e-5)


def test_one_more_that_is_certainly_as_good_adds_nothing() -> None:
    mean, sd = ones(3.0, 2.5), ones(0.01, 1.0)
    tie, gamble = harvest(mean, sd, ones(3.0, 3.0), 2, step=1.0).log(mean, sd)
    assert float(tie) < float(gamble) - 5


@pytest.mark.parametrize(
    ("in_steps", "money", "harvested"), [(True, 8.0, 0.5), (True, 800.0, 2.0), (False, 8.0, 0.0)]
)
def test_half_of_a_round_is_harvested_where_the_one_oracles_values_come_in_steps(
    tmp_path: Path, in_steps: bool, money: float, harvested: float
) -> None:
    """Half of one query's price, or of four where the money would buy many more."""
    words = [a + b + c for a in LETTERS for b in LETTERS for c in LETTERS][:40]
    values = [float(i % 4) if in_steps else float(i) for i in range(40)]
    rows = pd.DataFrame({"candidate": words, "fidelity": "target", "value": values})
    rows.to_csv(tmp_path / "known.csv", index=False)
    config = {
        "name": "steps",
        "seed": 0,
        "space": {"kind": "sequence", "alphabet": "dna", "min_length": 3, "max_length": 3},
        "objective": {"goal": "maximize"},
        "oracles": [{"kind": "tests.fakes:Price", "fidelity": "target", "cost": 1.0}],
        "initial": {"file": str(tmp_path / "known.csv")},
        "selection": {"batch_size": 4, "top_k": 3},
        "budget": {"cost": money, "rounds": 4},
    }
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.step()
        limits = learn(campaign, 1, 0).limits(1)
    assert limits.target_cost == pytest.approx(harvested)

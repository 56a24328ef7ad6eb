"""Every shipped config is valid, and runs in smoke mode on its real parts."""

from pathlib import Path

import pytest

from pipeline import Campaign
from pipeline.campaign import checked
from pipeline.config import read_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SMOKE = {
    "branin": ["sampler.n_steps=5", "space.length=10", "budget.rounds=1", "initial.n.low=5"],
    "crystal_band_gap": [
        "sampler.n_steps=5",
        "sampler.batch_size=16",
        "initial.n.model=8",
        "selection.batch_size=4",
        "selection.n_proposals=40",
        "budget={cost: 12, rounds: 1}",
    ],
    "crystal_density": [
        "sampler.n_steps=5",
        "sampler.batch_size=16",
        "initial.n.exact=8",
        "selection.batch_size=4",
        "selection.n_proposals=40",
        "budget={cost: 12, rounds: 1}",
    ],
    "crystal_formation_energy": [
        "sampler.n_steps=5",
        "sampler.batch_size=16",
        "initial.n={single_point: 4, relaxed_positions: 1}",
        "oracles.1.n_placements=1",
        "oracles.1.fmax=1.0",
        "oracles.2.n_placements=1",
        "oracles.2.fmax=1.0",
        "space.n_atoms=[2, 6]",
        "selection.batch_size=2",
        "selection.n_proposals=20",
        "budget={cost: 128, rounds: 1}",
    ],
    "ehrlich": [
        "sampler={kind: gflownet, n_steps: 5, batch_size: 16}",
        "initial.n.target=16",
        "selection.n_proposals=40",
        "budget={cost: 24, rounds: 1}",
    ],
    "hartmann": [
        "sampler={kind: gflownet, n_steps: 5, batch_size: 16}",
        "selection.n_proposals=40",
        "budget={cost: 8, rounds: 1}",
    ],
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_is_valid(path: Path) -> None:
    assert checked(read_yaml(path), path.parent).config.name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_runs(path: Path, tmp_path: Path) -> None:
    with Campaign.from_config(path, tmp_path / "run", overrides=SMOKE[path.stem]) as campaign:
        campaign.run()
        frame = campaign.ledger.to_frame()
        assert campaign.ledger.spend() <= campaign.config.budget.cost
    assert set(frame["round"]) == {0, 1}
    assert (frame["state"] == "done").any()
    assert set(frame["state"]) <= {"done", "failed"}

"""Candidates from a campaign's trained sampler."""

from pathlib import Path

import pytest

from pipeline import Campaign
from pipeline.config import ConfigError
from pipeline.draw import draw
from pipeline.ledger import LedgerError
from tests.fakes import branin_config


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("campaign")
    with Campaign.from_config(branin_config(), directory) as campaign:
        campaign.step()
        campaign.step()
    return directory


def test_draws_are_candidates_and_repeat(directory: Path) -> None:
    table = draw(directory, 50, {}, seed=1)
    assert len(table) == 50
    assert table.equals(draw(directory, 50, {}, seed=1))
    assert not table.equals(draw(directory, 50, {}, seed=2))
    assert {"candidate", "x0", "x1"} <= set(table.columns)


def test_every_draw_obeys_a_restriction(directory: Path) -> None:
    table = draw(directory, 50, {"x0": [-5.0, 0.0]}, seed=1)
    assert float(table["x0"].max()) <= 0.0
    assert float(table["x0"].min()) >= -5.0


def test_a_wrong_restriction_is_one_line(directory: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        draw(directory, 5, {"x7": [0, 1]}, seed=1)
    assert len(caught.value.problems) == 1
    assert "x7" in caught.value.problems[0]


def test_without_a_trained_sampler_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no campaign here"):
        draw(tmp_path, 5, {}, seed=1)
    with Campaign.from_config(branin_config(), tmp_path):
        pass
    with pytest.raises(ConfigError) as caught:
        draw(tmp_path, 5, {}, seed=1)
    assert "no round has trained a sampler yet" in caught.value.problems[0]

"""A schedule's config file, after `motherlode resume` has changed the campaign."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.campaign import cancelling
from flows.standing import as_it_stands
from pipeline import Campaign
from pipeline.config import ConfigError
from tests.fakes import menu_config


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Path, Path]:
    """A config file, and the directory of the campaign that it began."""
    file, directory = tmp_path / "menu.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(menu_config()))
    assert as_it_stands(file, directory) == ([], [])
    with Campaign.from_config(file, directory):
        pass
    return file, directory


def test_a_file_whose_campaign_was_not_changed_stands(begun: tuple[Path, Path]) -> None:
    assert as_it_stands(*begun) == ([], [])


def test_what_resume_changed_stays_changed_and_is_told(begun: tuple[Path, Path]) -> None:
    file, directory = begun
    with Campaign.from_config(file, directory) as campaign:
        cost, rounds = campaign.config.budget.cost, campaign.config.budget.rounds
    changes = ["budget.cost=90", "execution.close_after_s=1.0e-05", "budget.queries={target: 7}"]
    with Campaign.resume(directory, overrides=changes):
        pass
    with pytest.raises(ConfigError, match="another config"):
        Campaign.from_config(file, directory)
    assignments, told = as_it_stands(file, directory)
    with Campaign.from_config(file, directory, overrides=assignments) as campaign:
        assert campaign.config.budget.cost == 90
        assert campaign.config.budget.rounds == rounds
        assert campaign.config.budget.queries == {"target": 7}
        assert campaign.config.model_dump()["execution"]["close_after_s"] == 1e-5
    assert told == [
        f"budget.cost is 90.0 (the file says {cost})",
        "budget.queries is {target: 7} (the file says {})",
        "execution.close_after_s is 1.0e-05 (the file says null)",
    ]


def test_what_resume_may_not_change_is_still_refused(begun: tuple[Path, Path]) -> None:
    file, directory = begun
    file.write_text(yaml.safe_dump(menu_config(seed=12)))
    assignments, told = as_it_stands(file, directory)
    assert (assignments, told) == ([], [])
    with pytest.raises(ConfigError, match=r"another config \(seed was"):
        Campaign.from_config(file, directory, overrides=assignments)


class Runner:
    """Has two jobs out, and remembers which were cancelled."""

    def __init__(self) -> None:
        self.cancelled: set[str] = set()

    def running(self) -> set[str]:
        return {"one", "two"}

    def cancel(self, keys: set[str]) -> set[str]:
        self.cancelled |= keys
        return keys


@pytest.mark.parametrize("stop", [KeyboardInterrupt, "TerminationSignal", ValueError])
def test_a_person_who_stops_a_campaign_takes_back_what_is_at_work_an_error_does_not(
    stop: type[BaseException] | str,
) -> None:
    """On a cluster: what an error leaves there goes on, and is taken in later."""
    from prefect.exceptions import TerminationSignal

    error = TerminationSignal(15) if isinstance(stop, str) else stop()

    class Stub:
        runner = Runner()

    with pytest.raises(type(error)), cancelling(Stub()):  # type: ignore[arg-type]
        raise error
    assert Stub.runner.cancelled == (set() if stop is ValueError else {"one", "two"})

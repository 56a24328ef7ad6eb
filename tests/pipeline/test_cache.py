"""A cache of answers that campaigns share: paid for once, whoever asks and when."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline import Campaign
from pipeline.assemble import assemble
from pipeline.config import parse
from pipeline.dry_run import dry_run
from tests.fakes import comparable, menu_config


def config(directory: Path, **changes: Any) -> dict[str, Any]:
    log = str(directory / "asked")
    ladder = [
        {"kind": "tests.fakes:Price", "fidelity": "low", "cost": 0.1, "bias": 0.2, "log": log},
        {"kind": "tests.fakes:Price", "fidelity": "target", "cost": 1, "log": log},
    ]
    cache = {"execution": {"cache": str(directory / "cache")}}
    return menu_config(**({"oracles": ladder} | cache | changes))


def play(given: dict[str, Any], directory: Path) -> list[dict[str, Any]]:
    with Campaign.from_config(given, directory) as campaign:
        campaign.run()
        return comparable(campaign.ledger.to_frame())


def asked(directory: Path) -> list[str]:
    return (directory / "asked").read_text().splitlines()


def test_a_second_campaign_pays_nothing_for_the_answers_of_the_first(tmp_path: Path) -> None:
    first = play(config(tmp_path), tmp_path / "a")
    n_asked = len(asked(tmp_path))
    again = play(config(tmp_path, budget={"cost": 9, "rounds": 1}), tmp_path / "b")
    start = [[row["value"] for row in rows if row["round"] == 0] for rows in (first, again)]
    assert start[0] == start[1]
    assert {row["actual_cost"] for row in again if row["round"] == 0} == {0.0}
    assert sum(row["actual_cost"] for row in first) > 0
    assert len(asked(tmp_path)) - n_asked == sum(row["actual_cost"] > 0 for row in again)


def test_failures_are_not_shared(tmp_path: Path) -> None:
    broken = {
        "kind": "tests.fakes:Price",
        "fidelity": "target",
        "cost": 1,
        "fails": list(range(40)),
    }
    given = config(
        tmp_path,
        oracles=[broken],
        initial={"n": {"target": 3}},
        budget={"cost": 3, "rounds": 1},
    )
    for name in ("a", "b"):
        with Campaign.from_config(given, tmp_path / name) as campaign:
            campaign.step()
            assert campaign.ledger.spend() == 3.0


def test_two_processes_that_ask_at_once_pay_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.jobs import Bench, Job\n"
        "from tests.fakes import Menu, Price\n"
        f"log = {str(tmp_path / 'asked')!r}\n"
        "place = Bench(Menu(10), [Price('low', 1.0, log=log, seconds=0.3)],"
        f" Path({str(tmp_path)!r}) / sys.argv[1], Path({str(tmp_path)!r}) / 'cache')\n"
        "print(place.answer([Job('k', 'item 3', 0)])[0].cached)\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, name],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for name in ("a", "b")
    ]
    told = sorted(process.communicate(timeout=120)[0].strip() for process in started)
    assert told == ["False", "True"]
    assert asked(tmp_path) == ["low item 3"]


def test_a_forecast_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    dry_run(assemble(parse(config(tmp_path)), tmp_path), tmp_path)
    assert not (tmp_path / "cache").exists()

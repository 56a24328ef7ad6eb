"""A campaign as its directory tells it: the ledger's rows and what each round wrote beside them.

Everything that shows a campaign (the report, MLflow) is computed from this, so that it can be built
again at any time, also while the campaign runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline.config import CampaignConfig, parse
from pipeline.goal import Goal
from pipeline.ledger import Ledger


@dataclass(frozen=True)
class Snapshot:
    """What a directory held at one moment.

    `frame` is the ledger; `notes` are each round's `decision.json`; `recorded` are the rounds that
    are complete; `fidelities` are named cheapest first, the last is the target.
    """

    directory: Path
    about: Mapping[str, str]
    config: CampaignConfig
    frame: pd.DataFrame
    fidelities: list[str]
    notes: Mapping[int, Mapping[str, Any]]
    recorded: list[int]

    @property
    def target(self) -> str:
        """The name of the target fidelity."""
        return self.fidelities[-1]

    @property
    def goal(self) -> Goal:
        """`minimize`, `maximize`, or the `Target` to approach."""
        return self.config.objective.goal

    @property
    def label(self) -> str:
        """The objective's property with its unit: `formation_energy (eV/atom)`."""
        objective = self.config.objective
        return f"{objective.property} ({objective.unit})" if objective.unit else objective.property

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the packages that began the campaign."""
        return dict(json.loads(self.about.get("versions", "{}")))

    def losses(self) -> dict[int, list[float]]:
        """The sampler's loss at each training step, by round."""
        return {n: list(notes.get("sampler_loss", [])) for n, notes in self.notes.items()}

    def folder(self, number: int) -> Path:
        """`rounds/NNN/` of a round."""
        return self.directory / "rounds" / f"{number:03d}"

    def until(self, number: int) -> Snapshot:
        """The same campaign as it stood at the end of a round."""
        return Snapshot(
            self.directory,
            self.about,
            self.config,
            self.frame[self.frame["round"] <= number],
            self.fidelities,
            {n: notes for n, notes in self.notes.items() if n <= number},
            [n for n in self.recorded if n <= number],
        )


def read_snapshot(directory: Path) -> Snapshot:
    """Read a campaign's directory; LedgerError when there is no campaign in it."""
    # Which rounds are complete is read before the ledger, so that it holds all of their rows.
    recorded = sorted(int(path.parent.name) for path in directory.glob("rounds/*/figures.json"))
    ledger = Ledger.read(directory / "ledger.sqlite")
    try:
        about, frame = ledger.about(), ledger.to_frame()
    finally:
        ledger.close()
    config = parse(yaml.safe_load(about["config"]))
    decisions = sorted(directory.glob("rounds/*/decision.json"))
    notes = {
        int(path.parent.name): json.loads(path.read_text(encoding="utf-8")) for path in decisions
    }
    names = [str(name) for name, _ in json.loads(about["ladder"])]
    return Snapshot(directory, about, config, frame, names, notes, recorded)


def open_ledger(directory: Path) -> tuple[Ledger, CampaignConfig]:
    """The ledger of a directory, read-only, and the configuration in it."""
    ledger = Ledger.read(directory / "ledger.sqlite")
    return ledger, parse(yaml.safe_load(ledger.about()["config"]))

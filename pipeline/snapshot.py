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
    def goal(self) -> str:
        """`minimize` or `maximize`."""
        return self.config.objective.goal

    @property
    def label(self) -> str:
        """The objective's property with its unit."""
        return value_label(self.config)

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
    return Snapshot(directory, about, config, frame, fidelities(config, frame), notes, recorded)


def fidelities(config: CampaignConfig, frame: pd.DataFrame) -> list[str]:
    """The names of the fidelities, cheapest first.

    An oracle whose class fixes its fidelity has no such option; its name is that of its rows in the
    ledger, and its kind until it has one.
    """
    stated = {str(o.options["fidelity"]) for o in config.oracles if "fidelity" in o.options}
    names = []
    for oracle in config.oracles:
        if "fidelity" in oracle.options:
            names.append(str(oracle.options["fidelity"]))
            continue
        own = frame[(frame["oracle"] == oracle.kind) & ~frame["fidelity"].isin(stated)]
        left = own.loc[~own["fidelity"].isin(names)].sort_values("declared_cost", kind="stable")
        names.append(oracle.kind if left.empty else str(left["fidelity"].iloc[0]))
    return names


def value_label(config: CampaignConfig) -> str:
    """The objective's property with its unit: `formation_energy (eV/atom)`."""
    unit = config.objective.unit
    return f"{config.objective.property} ({unit})" if unit else config.objective.property

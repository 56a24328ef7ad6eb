"""A whole campaign played beforehand, every answer by the cheapest oracle: what it would spend.

Nothing is written where the campaign will live, and no dear oracle is asked. The values are the
cheapest oracle's at every fidelity, so what it finds says little; how the money goes, a lot.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from oracles.oracle import Oracle
from pipeline.assemble import Parts, Rung
from pipeline.campaign import Campaign
from pipeline.config import Approval, Tracking
from pipeline.progress import Progress


class StandIn:
    """One rung of the ladder, answered by the cheapest oracle at the rung's declared cost."""

    def __init__(self, rung: Rung, cheapest: Oracle) -> None:
        self.fidelity, self.cost = rung.fidelity, rung.cost
        self.batch_size = int(getattr(cheapest, "batch_size", 1))
        self._cheapest = cheapest

    def query(self, candidates: Sequence[Any]) -> list[Any]:
        """What the cheapest oracle says."""
        return list(self._cheapest.query(candidates))


def dry_run(
    parts: Parts, folder: Path, watch: Callable[[Campaign], Progress] | None = None
) -> pd.DataFrame:
    """Play a campaign of `parts` and tell what each round asked and spent, one row each.

    Columns: round, the number of queries at each fidelity, cost, spend. `watch` makes what is told
    of its progress. Approval, tracking and the shared
    cache are off.
    """
    # Without the shared cache: what stands in for a dear answer must never be taken for one.
    config = parts.config.model_copy(
        update={
            "approval": Approval(),
            "tracking": Tracking(kind="none"),
            "execution": parts.config.execution.model_copy(update={"cache": None}),
        }
    )
    ladder = tuple(
        replace(rung, oracle=StandIn(rung, parts.ladder[0].oracle)) for rung in parts.ladder
    )
    with tempfile.TemporaryDirectory() as directory:
        played = replace(parts, config=config, ladder=ladder)
        with Campaign(played, Path(directory), folder) as campaign:
            if watch is not None:
                campaign.progress = watch(campaign)
            campaign.run()
            return forecast(campaign.ledger.to_frame(), parts.fidelities)


def forecast(frame: pd.DataFrame, fidelities: Sequence[str]) -> pd.DataFrame:
    """One row for each round of a ledger's frame: queries by fidelity, cost, and spend so far."""
    counts = pd.crosstab(frame["round"], frame["fidelity"])
    table = counts.reindex(columns=list(fidelities), fill_value=0)
    table["cost"] = frame.groupby("round")["actual_cost"].sum()
    table["spend"] = table["cost"].cumsum()
    return table.reset_index()

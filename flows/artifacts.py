"""What Prefect's pages show of a campaign beside its tasks: each round's batch, and how far it is.

Artifacts belong to the flow run that makes them, and their key gathers one campaign's history.
Like MLflow they are a view: a failure to write one never stops a round.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.approval import batch_table
from pipeline.progress import Progress

if TYPE_CHECKING:
    from pipeline.campaign import Campaign

logger = logging.getLogger("motherlode")


class PrefectArtifacts(Progress):
    """Leaves a table of each recorded round's batch, its outcomes in it, and the budget's share."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign

    def recorded(self, number: int) -> None:
        """Round `number` is complete: show its batch and how much of the budget is spent."""
        _guarded(self._show_batch, number)
        _guarded(self._show_progress)

    def _show_batch(self, number: int) -> None:
        from prefect.artifacts import create_table_artifact

        rows = self.campaign.ledger.round_queries(number)
        table = batch_table(rows).assign(
            state=[row["state"] for row in rows], value=[row["value"] for row in rows]
        )
        create_table_artifact(
            table=plain_rows(table),
            key=f"{_slug(self.campaign.config.name)}-batch",
            description=f"Round {number} of {self.campaign.config.name}",
        )

    def _show_progress(self) -> None:
        from prefect.artifacts import create_progress_artifact

        campaign = self.campaign
        spent, budget = campaign.ledger.spend(), campaign.config.budget.cost
        found = campaign.ledger.best(campaign.target, campaign.goal)
        best = "nothing yet" if found is None else f"{found[1]:g}"
        create_progress_artifact(
            progress=min(100.0, 100 * spent / budget),
            key=f"{_slug(campaign.config.name)}-progress",
            description=f"{spent:g} of {budget:g} spent, best so far {best}",
        )


def plain_rows(table: Any) -> list[dict[str, Any]]:
    """Rows of a frame as plain data, None where there is nothing."""
    rows: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")
    return rows


def _guarded(show: Callable[..., None], *arguments: Any) -> None:
    try:
        show(*arguments)
    # A view may fail in any way that a server can; the round must not.
    except Exception as error:
        logger.warning("Prefect's page was not updated: %s", " ".join(str(error).split()))


def _slug(name: str) -> str:
    """A campaign's name in the letters that an artifact's key may have."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

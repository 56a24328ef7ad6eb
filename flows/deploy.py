"""Campaigns on a schedule: one flow that advances a campaign by some rounds, and its deployment.

The flow may start again at any point, by itself or beside another run: the ledger knows what was
done, and the campaign's lock lets one run work at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed
from pydantic import Field

from flows.artifacts import PrefectArtifacts
from flows.campaign import as_tasks, cancelling
from flows.execution import runner_for
from flows.standing import as_it_stands
from flows.tracking import tracking
from pipeline.approval import WaitingForApprovalError, approve, reject, waiting_batch
from pipeline.campaign import Campaign, LockedError
from pipeline.progress import Several
from pipeline.report import write_report

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

APPROVAL_WAITS_S = 30 * 24 * 3600


class Decision(RunInput):
    """What Prefect's page asks of the person who decides about a batch."""

    decision: Literal["approve", "reject"] = "approve"
    drop: list[str] = Field(default=[], description="keys to leave out for good, when approving")
    why: str = Field(default="", description="the reason, when rejecting")


@flow(name="advance-campaign", flow_run_name="{config}", persist_result=False)
def advance(config: str, rounds: int = 1, directory: str | None = None) -> State[Any] | None:
    """Play up to `rounds` rounds of the campaign of a config file, from where it stands.

    What `motherlode resume` changed since the file was written stays changed. A run that finds the
    campaign busy with another leaves it alone. A batch that needs approval suspends the run, which
    asks for a `Decision` on its page; `motherlode approve` does as well. A run that is cancelled
    stops what is at work, and the next one asks for it again.
    """
    assignments, told = as_it_stands(Path(config), None if directory is None else Path(directory))
    try:
        campaign = Campaign.from_config(config, directory, overrides=assignments, runner=runner_for)
    except LockedError as error:
        return Completed(name="Busy", message=str(error))
    with campaign:
        where, name = campaign.directory, campaign.config.name
        try:
            n_played = _play(campaign, rounds)
        except WaitingForApprovalError:
            n_played = None
    if n_played is None:
        return _ask(where, config, rounds, directory)
    write_report(where)
    return Completed(message="; ".join([f"{name}: {n_played} rounds played", *told]))


def _play(campaign: Campaign, rounds: int) -> int:
    """Play up to `rounds` rounds as tasks of this flow run, watched; how many."""
    with tracking(campaign.directory, campaign.config.tracking) as view:
        campaign.progress = Several(PrefectArtifacts(campaign), view)
        with cancelling(campaign):
            return campaign.run(as_tasks(campaign), rounds=rounds)


def _ask(where: Path, config: str, rounds: int, directory: str | None) -> State[Any] | None:
    """Suspend until a person has decided; when this flow run starts again, take the word in."""
    found = waiting_batch(where)
    if found is not None:
        number, batch = found
        shown = Decision.with_initial_data(
            description=f"Round {number}: {len(batch)} queries for {batch['cost'].sum():g}\n\n"
            + batch.drop(columns=["why"]).to_markdown(index=False)
        )
        told = suspend_flow_run(
            wait_for_input=shown, key=f"round-{number}", timeout=APPROVAL_WAITS_S
        )
        if told.decision == "approve":
            approve(where, told.drop)
        else:
            reject(where, told.why or "no reason given")
    again: State[Any] | None = advance.fn(config, rounds, directory)
    return again


def serve(config: Path, cron: str, rounds: int, directory: Path | None, name: str) -> None:
    """Advance a campaign on a schedule until this process is stopped."""
    from prefect.types.entrypoint import EntrypointType

    advance.serve(
        name=name,
        cron=cron,
        parameters={
            "config": str(config.resolve()),
            "rounds": rounds,
            "directory": None if directory is None else str(directory.resolve()),
        },
        limit=1,
        entrypoint_type=EntrypointType.MODULE_PATH,
        print_starting_message=False,
    )

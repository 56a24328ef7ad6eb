"""A campaign as a Prefect flow: one task for each verb of the round.

Prefect shows and schedules; it decides nothing. Its caching and result storage are off, because
the ledger alone knows what was done, and a verb that runs again does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from flows.cancelled import PageWatch
from flows.server import QUIET, PrefectServer
from pipeline.campaign import Campaign
from pipeline.round import Call


@contextmanager
def prefect_server(directory: Path, schedules: bool = False) -> Iterator[Callable[[], None]]:
    """Yield a function that waits for Prefect: the user's server, or one of the campaign's own.

    `schedules`: one of its own has pages, and makes scheduled runs.

    Settings go into the environment, because Prefect reads them when it is first imported.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    if os.environ.get("PREFECT_API_URL"):
        yield lambda: None
        return
    server = PrefectServer(directory, schedules)
    os.environ.update(PREFECT_API_URL=server.url, PREFECT_HOME=str(server.home))
    try:
        yield server.wait
    finally:
        del os.environ["PREFECT_API_URL"]
        server.stop()


def as_tasks(campaign: Campaign) -> Call:
    """Play each verb of the round as a Prefect task of its own."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    def as_task(verb: Callable[[], None]) -> None:
        number = campaign.next_round()
        # Without tags: for a task that has some, Prefect asks the server for a slot of their
        # concurrency limit, and waits about 2 s for it after each wait for oracles.
        as_named = task(
            name=verb.__name__,
            task_run_name=f"{verb.__name__} {number:03d}",
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        as_named(verb)()

    return as_task


@contextmanager
def cancelling(campaign: Campaign) -> Iterator[None]:
    """When a person stops the campaign, take back what is at work: resuming asks for it again.

    Ctrl-C is a `KeyboardInterrupt`, a flow run that is cancelled on Prefect's page (or whose
    process is sent SIGTERM) a `TerminationSignal`. An error takes nothing back: the jobs of a
    cluster go on then, and are taken in later.
    """
    try:
        yield
    except BaseException as stop:
        if not isinstance(stop, Exception):
            campaign.runner.cancel(campaign.runner.running())
        raise


def run_as_flow(campaign: Campaign, is_shared: bool = False) -> None:
    """Run the campaign to its end as a Prefect flow; raises what the campaign raises.

    `is_shared`: people see its page, and cancelling it there is a SIGTERM to this process.
    """
    from prefect import flow
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    page = PageWatch()

    @flow(name="discovery-campaign", flow_run_name=campaign.config.name, persist_result=False)
    def discovery_campaign(directory: str) -> None:
        with cancelling(campaign), page.heeding() if is_shared else nullcontext():
            campaign.run(as_tasks(campaign))

    try:
        discovery_campaign(str(campaign.directory.resolve()))
    finally:
        page.conclude()
        # Before the server goes: what is still queued would be lost, and complained about at exit.
        APILogHandler().flush()
        EventsWorker.drain_all(timeout=5)

"""Queries go out and answers come in, in whatever order and however late.

Every open query of the ledger is at work somewhere, those of earlier rounds too: a round may close
while some of its own are still out, and takes in whatever comes meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.jobs import Job
from pipeline.queries import settle

if TYPE_CHECKING:
    from pipeline.campaign import Campaign

Out = Mapping[str, Mapping[str, Any]]
"""The ledger's rows of the queries that are out, by key."""

TICK_S = 1.0
"""How often a round that may close by time looks at the clock."""


def dispatch(campaign: Campaign) -> Out:
    """See to it that every open query is at work; their rows by key.

    One that works already is attached to, one whose result stands is only collected.
    """
    places = {name: i for i, name in enumerate(campaign.parts.fidelities)}
    rows = {row["key"]: row for row in campaign.ledger.open_queries()}
    if rows:
        campaign.ledger.start(list(rows))
        campaign.runner.submit(
            [Job(key, row["candidate"], places[row["fidelity"]]) for key, row in rows.items()]
        )
        campaign.ledger.note_handles(campaign.runner.handles())
    return rows


def take_in_late(campaign: Campaign) -> None:
    """Record the answers that have come to queries of earlier rounds, without waiting."""
    out = dispatch(campaign)
    while out and _take_in(campaign, out, 0.0):
        pass


def wait(campaign: Campaign, out: Out, is_enough: Callable[[float], bool]) -> None:
    """Take in answers until none is out, or `is_enough(seconds waited)`."""
    began, closes_s = time.monotonic(), campaign.config.execution.close_after_s
    while campaign.runner.running():
        seconds = time.monotonic() - began
        if is_enough(seconds):
            return
        _take_in(campaign, out, _tick(seconds, closes_s))


def _tick(seconds: float, closes_s: float | None) -> float:
    """How long to wait for an answer after so many seconds: a round that may close does on time."""
    left = TICK_S if closes_s is None else closes_s - seconds
    return min(left, TICK_S) if left > 0 else TICK_S


def has_come(n_ended: int, n: int, share: float) -> bool:
    """Whether that share of n queries has ended: at 0.8, 40 of 50 for all that 0.8 is no binary."""
    return n_ended >= share * n - 1e-9 * n


def _take_in(campaign: Campaign, out: Out, timeout: float) -> int:
    """Record what has come, after waiting for the first at most `timeout` seconds; how many."""
    outcomes = campaign.runner.poll(timeout)
    if outcomes:
        # One flush to the disk for all of them; the result files stand whatever happens here.
        with campaign.ledger.batch():
            for outcome in outcomes:
                settle(campaign, out[outcome.key], outcome)
        for _ in outcomes:
            campaign.progress.answered()
    return len(outcomes)

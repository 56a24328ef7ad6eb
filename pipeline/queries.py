"""Between the ledger's rows and the engine's tensors: what was seen, may be asked, and came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from pipeline.guard_evidence import Seen
from pipeline.jobs import Outcome
from pipeline.ledger import Query, query_key

if TYPE_CHECKING:
    from pipeline.assemble import Parts
    from pipeline.campaign import Campaign


PAID = "actual_cost"
"""The property by which an oracle says what an answer really cost, in the ladder's units."""


class CampaignStoppedError(Exception):
    """The campaign cannot go on as it is; the message says why and what to change."""


def failures(frame: pd.DataFrame, n: int = 3) -> str:
    """The commonest reasons of failure, for people."""
    errors = Counter(error for error in frame["error"] if isinstance(error, str))
    shown = "; ".join(f"{count} × {text}" for text, count in errors.most_common(n))
    return f"commonest reasons: {shown}" if shown else "no query failed"


def observations(campaign: Campaign, frame: pd.DataFrame) -> Seen:
    """Every finished query of the ledger's `frame` in order of reservation."""
    done = frame[frame["state"] == "done"]
    if done.empty:
        raise CampaignStoppedError(f"nothing to learn from: no query succeeded; {failures(frame)}")
    return _as_tensors(campaign, done)


def waiting(campaign: Campaign, frame: pd.DataFrame) -> Seen:
    """Every query that was asked and is not answered yet; its value is NaN."""
    return _as_tensors(campaign, frame[frame["state"].isin(["reserved", "running"])])


def _as_tensors(campaign: Campaign, rows: pd.DataFrame) -> Seen:
    environment, candidates = campaign.parts.environment, rows["candidate"].tolist()
    place = {name: i for i, name in enumerate(campaign.parts.fidelities)}
    return Seen(
        environment.features(environment.from_keys(candidates)),
        torch.tensor([place[name] for name in rows["fidelity"]], dtype=torch.long),
        torch.tensor(rows["value"].tolist(), dtype=torch.float64),
        candidates,
    )


def settle(campaign: Campaign, row: Mapping[str, Any], outcome: Outcome) -> None:
    """Record one outcome: done and paid, failed and paid, or refunded.

    An oracle may answer what it really cost as the property `PAID`; else it cost what was declared.
    What another campaign has paid for is free.
    """
    ledger, wanted = campaign.ledger, campaign.config.objective.property
    declared = float(row["declared_cost"])
    cost = 0.0 if outcome.cached else max(0.0, outcome.properties.get(PAID, declared))
    if outcome.error is not None:
        cost = declared if outcome.ran else 0.0
        ledger.fail(outcome.key, outcome.error, cost, outcome.seconds, outcome.attempts)
    elif wanted not in outcome.properties:
        answered = ", ".join(sorted(outcome.properties))
        error = f"the oracle did not answer `{wanted}`, only: {answered}"
        ledger.fail(outcome.key, error, cost, outcome.seconds, outcome.attempts)
    else:
        value, told = outcome.properties[wanted], outcome.properties
        ledger.commit(outcome.key, told, value, cost, outcome.seconds, outcome.attempts)


def make_queries(
    parts: Parts,
    number: int,
    states: Tensor,
    fidelities: Sequence[int],
    reasons: Sequence[Mapping[str, Any]],
) -> list[Query]:
    """Queries for terminal states, one fidelity and reason each."""
    environment, ladder = parts.environment, parts.ladder
    if not len(states):
        return []
    columns = zip(
        environment.keys(states),
        environment.families(states),
        environment.describe(states),
        fidelities,
        reasons,
        strict=True,
    )
    return [
        Query(
            key=query_key(ladder[m].identity, ladder[m].fidelity, candidate),
            round=number,
            candidate=candidate,
            fidelity=ladder[m].fidelity,
            oracle=ladder[m].kind,
            cost=ladder[m].cost,
            family=family,
            description=description,
            reason=reason,
        )
        for candidate, family, description, m, reason in columns
    ]


def promotable(frame: pd.DataFrame, target: str) -> list[str]:
    """Candidates with an answer at a lower fidelity, none yet at the target, and no failure."""
    is_closed = (frame["fidelity"] == target) | (frame["state"] != "done")
    closed = is_closed.groupby(frame["candidate"], sort=False).any()
    return [str(candidate) for candidate in closed.index[~closed]]


def open_items(campaign: Campaign, candidates: Sequence[str]) -> Tensor:
    """Which (candidate, fidelity) may be queried, `(q, m)`: none twice, none that failed before or
    that a person refused, and none below a fidelity that was asked already.
    """
    fidelities = campaign.parts.fidelities
    frame = campaign.ledger.to_frame(["candidate", "fidelity", "state"])
    level = frame["fidelity"].map({name: i for i, name in enumerate(fidelities)})
    is_closed = frame["state"].isin(["failed", "cancelled"])
    highest = level.where(~is_closed, len(fidelities) - 1).groupby(frame["candidate"]).max()
    reached = highest.reindex(list(candidates)).fillna(-1).to_numpy(dtype="int64")
    return torch.arange(len(fidelities))[None, :] > torch.tensor(reached)[:, None]

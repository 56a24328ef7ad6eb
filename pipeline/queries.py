"""Between the ledger's rows and the engine's tensors: what was seen, may be asked, and came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from pipeline.jobs import Outcome
from pipeline.ledger import Query, query_key

if TYPE_CHECKING:
    from pipeline.assemble import Parts
    from pipeline.campaign import Campaign


class CampaignStoppedError(Exception):
    """The campaign cannot go on as it is; the message says why and what to change."""


def failures(frame: pd.DataFrame, n: int = 3) -> str:
    """The commonest reasons of failure, for people."""
    errors = Counter(error for error in frame["error"] if isinstance(error, str))
    shown = "; ".join(f"{count} × {text}" for text, count in errors.most_common(n))
    return f"commonest reasons: {shown}" if shown else "no query failed"


@dataclass(frozen=True)
class Observations:
    """What the surrogate learns from: features `(n, d)`, fidelities `(n,)`, values `(n,)`."""

    features: Tensor
    fidelities: Tensor
    values: Tensor


def observations(campaign: Campaign) -> Observations:
    """Every finished query of the ledger in order of reservation."""
    frame = campaign.ledger.to_frame()
    done = frame[frame["state"] == "done"]
    if done.empty:
        raise CampaignStoppedError(f"nothing to learn from: no query succeeded; {failures(frame)}")
    environment = campaign.parts.environment
    features = environment.features(environment.from_keys(done["candidate"].tolist()))
    fidelities = torch.tensor([campaign.parts.fidelities.index(f) for f in done["fidelity"]])
    return Observations(
        features, fidelities, torch.tensor(done["value"].tolist(), dtype=torch.float64)
    )


def settle(campaign: Campaign, row: Mapping[str, Any], outcome: Outcome) -> None:
    """Record one outcome: done at its declared cost, failed and paid, or refunded."""
    declared = float(row["declared_cost"])
    wanted = campaign.config.objective.property
    if outcome.error is None and wanted not in outcome.properties:
        answered = ", ".join(sorted(outcome.properties))
        error = f"the oracle did not answer `{wanted}`, only: {answered}"
        campaign.ledger.fail(outcome.key, error, declared, outcome.seconds)
    elif outcome.error is None:
        value = outcome.properties[wanted]
        campaign.ledger.commit(outcome.key, outcome.properties, value, declared, outcome.seconds)
    else:
        cost = declared if outcome.ran else 0.0
        campaign.ledger.fail(outcome.key, outcome.error, cost, outcome.seconds)


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
    asked = frame.groupby("candidate", sort=False)
    return [
        str(candidate)
        for candidate, rows in asked
        if not (rows["fidelity"] == target).any() and (rows["state"] == "done").all()
    ]


def open_items(campaign: Campaign, candidates: Sequence[str]) -> Tensor:
    """Which (candidate, fidelity) may be queried, `(q, m)`: none twice, none that failed before,
    and none below a fidelity that already answered.
    """
    frame = campaign.ledger.to_frame()
    highest: dict[str, int] = {}
    for candidate, fidelity, state in frame[["candidate", "fidelity", "state"]].itertuples(
        index=False
    ):
        last = len(campaign.parts.fidelities) - 1
        reached = campaign.parts.fidelities.index(fidelity) if state != "failed" else last
        highest[candidate] = max(reached, highest.get(candidate, -1))
    floor = torch.tensor([highest.get(candidate, -1) for candidate in candidates])
    return torch.arange(len(campaign.parts.fidelities))[None, :] > floor[:, None]

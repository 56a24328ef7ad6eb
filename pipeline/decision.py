"""From proposals to a batch: what each would bring, which are chosen, and why.

Named axes: q proposals, m fidelities, k recommended candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.goal import sign
from pipeline.knowledge import Knowledge
from pipeline.queries import open_items
from pipeline.selection import Pick, Pool, Rules, select
from surrogate.acquisition import Acquisition


@dataclass(frozen=True)
class Proposals:
    """Different candidates: states `(q, w)`, features `(q, d)`, keys and families.

    `is_offered` `(q, m)` bool: at which fidelities the sampler drew them; None: it chose none.
    """

    states: Tensor
    features: Tensor
    keys: list[str]
    families: list[str]
    is_offered: Tensor | None = None


def choose(
    known: Knowledge, acquisition: Acquisition, proposals: Proposals, number: int, seed: int
) -> list[Pick]:
    """The batch of round `number`, in the order of choice: see `pipeline.selection`.

    Where nothing is left to ask for but the final check, the round becomes the last.
    """
    if not proposals.keys:
        return []
    campaign, model, features = known.campaign, known.model, proposals.features
    options, environment = campaign.config.selection, campaign.parts.environment

    def covariance(index: Tensor, fidelity: Tensor) -> Tensor:
        rows = features[index]
        return model.covariance(rows, fidelity, rows, fidelity)

    def distances(a: Tensor, b: Tensor) -> Tensor:
        return environment.distances(proposals.states[a], proposals.states[b])

    costs = [rung.cost for rung in campaign.parts.ladder]
    rules = Rules(options.fidelity, options.diversity, options.min_distance, seed)
    limits, noise = known.limits(number), model.noise_variance()
    pool = _pool(known, acquisition, proposals, limits.is_last)
    picks = select(pool, costs, noise, covariance, limits, rules, distances)
    if not picks and not limits.is_last:
        last = campaign.limits(campaign.config.budget.rounds, costs)
        pool = _pool(known, acquisition, proposals, is_last=True)
        picks = select(pool, costs, noise, covariance, last, rules, distances)
    return picks


def _pool(known: Knowledge, acquisition: Acquisition, proposals: Proposals, is_last: bool) -> Pool:
    gain = acquisition.log_gain(proposals.features)
    gain[:, -1] += known.pair_gain(proposals.keys)
    discount = known.log_discount(proposals.features, proposals.families)
    allowed = open_items(known.campaign, proposals.keys) & known.payable()
    if proposals.is_offered is not None:
        allowed &= proposals.is_offered
    is_declared = known.campaign.config.selection.cost == "declared"
    return Pool(
        gain + discount[:, None],
        allowed,
        proposals.families,
        known.log_harvest(proposals.features, proposals.keys, discount, is_last),
        None if is_declared else known.predicted_costs(proposals.features),
    )


def reasons(known: Knowledge, proposals: Proposals, picks: Sequence[Pick]) -> list[dict[str, Any]]:
    """Why each was chosen, plain JSON: predictions with their noise, gain, cost, novelty."""
    rows = proposals.features[torch.tensor([pick.index for pick in picks], dtype=torch.long)]
    fidelities = range(len(known.campaign.parts.ladder))
    outcomes = [torch.stack(known.outcomes(rows, m), 1).tolist() for m in fidelities]
    told = []
    for i, pick in enumerate(picks):
        mean, sd = outcomes[pick.fidelity][i]
        at_target, sd_at_target = outcomes[-1][i]
        told.append(
            {
                "why": pick.why,
                "mean": mean,
                "sd": sd,
                "target_mean": at_target,
                "target_sd": sd_at_target,
                "log_gain": pick.log_gain,
                "log_harvest": pick.log_harvest,
                "novelty": pick.novelty,
                "cost": pick.cost,
            }
        )
    return told


def recommended(known: Knowledge, proposals: Proposals) -> list[dict[str, Any]]:
    """The k best of all proposals by the model's mean at the target, asked or not.

    What the campaign would name if nothing more could be asked; one of each family.
    """
    campaign = known.campaign
    target = len(campaign.parts.ladder) - 1
    compared, _ = known.compared.predict(proposals.features, target)
    order = (compared * -sign(campaign.goal)).argsort(stable=True).tolist()
    first = {proposals.families[i]: i for i in reversed(order)}
    kept = [i for i in order if first[proposals.families[i]] == i]
    rows = torch.tensor(kept[: campaign.config.selection.top_k], dtype=torch.long)
    predicted = known.model.predict(proposals.features[rows], target)
    mean, sd = known.bend.straighten(*predicted)
    columns = zip(rows.tolist(), mean.tolist(), sd.tolist(), strict=True)
    return [{"candidate": proposals.keys[i], "mean": m, "sd": s} for i, m, s in columns]

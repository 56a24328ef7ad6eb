"""What a round knows when it decides: what was seen, the surrogate of it, whom the guard trusts.

Named axes: n observations, q candidates, r reference candidates, d features, m fidelities.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from pipeline import guard, metrics
from pipeline.approach import as_compared
from pipeline.bend import Bend, bend_of
from pipeline.cost import paid, predicted_costs
from pipeline.goal import score, sign
from pipeline.guard_evidence import Seen
from pipeline.harvest import Harvest, harvest
from pipeline.queries import observations, waiting
from surrogate.mixture import log_mixed
from surrogate.pending import WithPending

if TYPE_CHECKING:
    from pipeline.campaign import Campaign
    from pipeline.selection import Limits
    from surrogate.acquisition import Acquisition
    from surrogate.surrogate import Surrogate

NOTES = "decision.json"
LEARNED = (
    *("candidate", "fidelity", "state", "value", "family", "actual_cost", "seconds", "error"),
)
"""The columns that a decision rests on: the objects of a long ledger take most of its reading."""
MOST_ASKED = 2048
"""Candidates that were asked and stand for the space, at most: all are predicted several times."""


@dataclass(frozen=True)
class Knowledge:
    """Everything that a round's decision rests on, beside the candidates it will propose.

    `frame` is the ledger, `model` the fitted surrogate, with the queries that are still out taken
    into account; it has learned from values that went through `bend`. `verdicts` are the guard's,
    empty where it is off or there is nothing to guard.
    """

    campaign: Campaign
    frame: pd.DataFrame
    model: Surrogate
    bend: Bend
    verdicts: list[guard.Verdict]
    state: Mapping[str, Any]
    """What the next round's fit may start from."""

    @property
    def compared(self) -> Surrogate:
        """The model of what is compared: the property, or its distance to the target value."""
        return as_compared(self.model, self.campaign.goal)

    def notes(self) -> dict[str, Any]:
        """For people and for the next round, plain JSON."""
        summary = self.model.summary() | self.bend.notes()
        told: dict[str, Any] = {"surrogate": summary, "surrogate_state": self.state}
        return told | ({"guard": guard.as_notes(self.verdicts)} if self.verdicts else {})

    def asked(self) -> list[str]:
        """Keys of the candidates that have an answer; of very many the best at each fidelity."""
        done = self.frame[self.frame["state"] == "done"]
        if len(done) > MOST_ASKED:
            merit = sign(self.campaign.goal) * score(done["value"], self.campaign.goal)
            place = merit.groupby(done["fidelity"]).rank(ascending=False, method="first")
            done = done[place <= MOST_ASKED // done["fidelity"].nunique()]
        return list(dict.fromkeys(done["candidate"]))

    def acquisition(self, reference: Tensor, seed: int) -> Acquisition:
        """The gain of a query; `reference (r, d)` are features that stand for the space.

        Where values come in steps the gain is measured from the best: more of what is as good are
        easily found, and are the harvest's.
        """
        campaign, k = self.campaign, self.campaign.config.selection.top_k
        made, step = campaign.parts.new_acquisition(), self._step(1)
        made.prepare(
            self.compared,
            sign=sign(campaign.goal),
            best=self._bent(metrics.best_score(self.frame, campaign.target, campaign.goal)),
            kth_best=self._kth_best(1 if step > 0 else k),
            # A plug-in of before there were steps does not know the word.
            **({"step": step} if step > 0 else {}),
            reference_features=reference,
            seed=seed,
        )
        return made

    def _kth_best(self, k: int) -> float | None:
        campaign = self.campaign
        return self._bent(metrics.kth_best_score(self.frame, campaign.target, campaign.goal, k))

    def _step(self, k: int) -> float:
        """How far the k-th best is above what is worse, where values come in steps; else 0."""
        campaign = self.campaign
        bar = self._kth_best(k)
        below = self._bent(metrics.level_below(self.frame, campaign.target, campaign.goal, k))
        return 0.0 if bar is None or below is None else abs(bar - below)

    def _bent(self, score: float | None) -> float | None:
        return (
            None
            if score is None
            else float(self.bend.bend(torch.tensor(score, dtype=torch.float64)))
        )

    def outcomes(self, features: Tensor, fidelity: int) -> tuple[Tensor, Tensor]:
        """Mean and sd of what queries `(q, d)` would answer, noise included, in its units."""
        mean, sd = self.model.predict(features, fidelity)
        noise = self.model.noise_variance()[fidelity]
        return self.bend.straighten(mean, (sd.square() + noise).sqrt())

    def payable(self) -> Tensor:
        """Which fidelities may be asked, `(m,)` bool."""
        if not self.verdicts:
            return torch.ones(len(self.campaign.parts.ladder), dtype=torch.bool)
        return guard.payable(self.verdicts)

    def limits(self, number: int) -> Limits:
        """What the batch of a round may cost, in all and for what the guard does not trust yet."""
        costs = [rung.cost for rung in self.campaign.parts.ladder]
        if len(costs) == 1 and self._step(1) > 0:
            # There the gain is what may be above all that is known: the other half is harvested.
            limits = self.campaign.limits(number, costs)
            money = min(limits.cost, limits.count * costs[-1])
            return replace(limits, target_cost=self.campaign.config.selection.target_share * money)
        if not self.verdicts:
            return self.campaign.limits(number, costs)
        payable = self.payable().tolist()
        asked = [cost for cost, is_open in zip(costs, payable, strict=True) if is_open]
        return guard.guarded(self.campaign.limits(number, asked), self.verdicts, costs)

    def pair_gain(self, keys: list[str]) -> Tensor:
        """Nats more for a target query that shows how far a cheap answer can be trusted, `(q,)`."""
        if not self.verdicts:
            return torch.zeros(len(keys), dtype=torch.float64)
        fidelities = self.campaign.parts.fidelities
        done = self.frame[self.frame["state"] == "done"]
        asked = pd.crosstab(done["candidate"], done["fidelity"]) > 0
        table = asked.reindex(index=keys, columns=fidelities, fill_value=False)
        return guard.pair_gain(self.verdicts, torch.tensor(table.to_numpy(dtype=bool)))

    def predicted_costs(self, features: Tensor) -> Tensor:
        """What each query would cost, by what earlier ones did, `(q, m)`."""
        parts = self.campaign.parts
        answers = paid(
            self.frame,
            parts.fidelities,
            lambda keys: parts.environment.features(parts.environment.from_keys(keys)),
        )
        declared = [rung.cost for rung in parts.ladder]
        return predicted_costs(self.campaign.config.selection.cost, declared, answers)(features)

    def log_harvest(
        self, features: Tensor, keys: list[str], discount: Tensor, is_last: bool
    ) -> Tensor:
        """Log of what a query of the target would add to the k best, `(q,)`: see `harvest`.

        `discount` `(q,)` is `log_discount` of the same candidates.

        Before the last round what may be better than is foreseen counts too: there is time to make
        something of it.

        By the rule `cheapest` the cheapest fidelity alone says what is good: its predicted mean,
        of candidates that it was asked about.
        """
        if self.campaign.config.selection.fidelity == "cheapest":
            return self._checked_by_cheapest(features, keys)
        worth = self.harvest(features)
        if not is_last:
            worth = replace(worth, ceiling=math.inf)
        return HarvestGain(self, worth).target_log_gain(features) + discount

    def harvest(self, features: Tensor) -> Harvest:
        """What the k best can gain by candidates of features `(q, d)`."""
        values = torch.tensor(list(self._found().values()), dtype=torch.float64)
        k = self.campaign.config.selection.top_k
        return harvest(*self.at_target(features), values, k, self._step(k))

    def log_discount(self, features: Tensor, families: Sequence[str]) -> Tensor:
        """What candidates of known `families` are worth less for that, `(q,)`: see `harvest`."""
        found = self._found()
        own = [found.get(family, -torch.inf) for family in families]
        own_best = torch.tensor(own, dtype=torch.float64)
        worth, parts = self.harvest(features), self.parts(features)
        return worth.log_discount(*parts, own_best)

    def _found(self) -> dict[str, float]:
        """The best value at the target of each family that has one, bent, larger better."""
        found = metrics.found(self.frame, self.campaign.target, self.campaign.goal)
        scores = score(found["value"], self.campaign.goal).tolist()
        bent = self.bend.bend(torch.tensor(scores, dtype=torch.float64))
        values = (sign(self.campaign.goal) * bent).tolist()
        return dict(zip(found["family"], values, strict=True))

    def at_target(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and sd at the target of what is compared, `(q,)` each; larger is better."""
        mean, sd = self.compared.predict(features, len(self.campaign.parts.ladder) - 1)
        return sign(self.campaign.goal) * mean, sd

    def parts(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The Gaussians that this is a mixture of, `(p, q)` each: see `Surrogate.mixture`."""
        last = len(self.campaign.parts.ladder) - 1
        mean, sd, log_weight = self.compared.mixture(features, last)
        return sign(self.campaign.goal) * mean, sd, log_weight

    def _checked_by_cheapest(self, features: Tensor, keys: list[str]) -> Tensor:
        frame, cheapest = self.frame, self.campaign.parts.fidelities[0]
        asked = frame[(frame["fidelity"] == cheapest) & (frame["state"] == "done")]
        was_asked = torch.tensor(pd.Index(keys).isin(asked["candidate"]))
        mean, _ = self.compared.predict(features, 0)
        merit = sign(self.campaign.goal) * mean
        return torch.where(was_asked, merit, torch.full_like(merit, -torch.inf))


@dataclass(frozen=True)
class HarvestGain:
    """The harvest of candidates as a gain, to search for the best of it."""

    known: Knowledge
    harvest: Harvest

    def target_log_gain(self, features: Tensor) -> Tensor:
        """Log harvest of candidates of features `(q, d)`, `(q,)`."""
        mean, sd, log_weight = self.known.parts(features)
        return log_mixed(self.harvest.log(mean, sd), log_weight)


def learn(campaign: Campaign, number: int, seed: int) -> Knowledge:
    """Fit the surrogate to what the ledger knows, and let the guard judge the cheap fidelities.

    Bad values are drawn in (see `pipeline.bend`). Data that the guard finds misleading are left out
    of the fit. Queries that are still out count as answered with their predicted means.
    """
    before = previous_notes(campaign.directory, number)
    frame = campaign.ledger.to_frame(LEARNED)
    raw = observations(campaign, frame)
    bend = bend_of(raw.at(len(campaign.parts.ladder) - 1).values, campaign.goal)
    seen = replace(raw, values=bend.bend(raw.values))
    model = _fitted(campaign, seen, seed, before.get("surrogate_state", {}))
    verdicts = _judged(campaign, seen, model, before, seed)
    if verdicts:
        kept = guard.learned(verdicts, seen.fidelities)
        if not bool(kept.all()):
            model = _fitted(campaign, seen.rows(kept.nonzero()[:, 0]), seed, {})
    state = model.state()
    out = waiting(campaign, frame)
    if len(out.features):
        model = WithPending(model, out.features, out.fidelities)
    return Knowledge(campaign, frame, model, bend, verdicts, state)


def previous_notes(directory: Path, number: int) -> dict[str, Any]:
    """What the round before this one wrote down; empty where it decided nothing by a model."""
    path = directory / "rounds" / f"{number - 1:03d}" / NOTES
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _new_surrogate(campaign: Campaign) -> Surrogate:
    model = campaign.parts.new_surrogate()
    model.feature_blocks = campaign.parts.environment.feature_blocks
    model.sign = sign(campaign.goal) if isinstance(campaign.goal, str) else None
    return model


def _fitted(campaign: Campaign, seen: Seen, seed: int, state: Mapping[str, Any]) -> Surrogate:
    model = _new_surrogate(campaign)
    if state:
        model.warm_start(state)
    model.fit(seen.features, seen.fidelities, seen.values, len(campaign.parts.ladder), seed)
    return model


def _judged(
    campaign: Campaign,
    seen: Seen,
    model: Surrogate,
    before: Mapping[str, Any],
    seed: int,
) -> list[guard.Verdict]:
    ladder = campaign.parts.ladder
    options = campaign.config.selection
    is_guarded = options.guard and options.fidelity in ("gain", "trajectory")
    if not is_guarded or len(ladder) == 1:
        return []
    return guard.judge(
        seen,
        [rung.cost for rung in ladder],
        lambda: _new_surrogate(campaign),
        together=model,
        previous=guard.from_notes(before.get("guard", [])),
        seed=seed,
    )

"""One round of the loop as a paragraph of verbs: fit, train, propose, select, query, record.

A round is decided once: when its batch stands in the ledger, resuming goes straight to the queries.
Before that nothing was spent, and the verbs come to the same choice again, because every random
stream derives from (seed, round, role).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline import metrics
from pipeline.approach import as_compared
from pipeline.goal import sign
from pipeline.initial import distinct, distinct_random, initial_design
from pipeline.jobs import Job
from pipeline.ledger import Query, sync_file
from pipeline.queries import (
    CampaignStoppedError,
    Observations,
    make_queries,
    observations,
    open_items,
    promotable,
    settle,
)
from pipeline.reward import scaled_reward
from pipeline.selection import Pick, Pool, select
from pipeline.streams import stream

if TYPE_CHECKING:
    from pipeline.campaign import Campaign
    from surrogate.acquisition import Acquisition
    from surrogate.surrogate import Surrogate

N_REFERENCE = 512
"""How many random candidates stand for the space when the acquisition and reward are scaled."""

DECISION, FIGURES = "decision.json", "figures.json"

Verb = Callable[[], None]
Call = Callable[[Verb], None]


@dataclass
class Round:
    """Round `number` of a campaign: 0 is the initial design, the model decides the later ones."""

    campaign: Campaign
    number: int
    notes: dict[str, Any] = field(default_factory=dict)
    surrogate: Surrogate | None = None
    acquisition: Acquisition | None = None
    sampler: Any = None
    random: Tensor | None = None
    reference: Tensor | None = None
    proposals: Tensor | None = None

    def play(self, call: Call = lambda verb: verb()) -> None:
        """Play the round, each verb through `call`; a round in the ledger is only finished."""
        if not self.is_decided():
            for verb in [self.start] if self.number == 0 else self.decisions():
                call(verb)
        call(self.query)
        call(self.record)

    def decisions(self) -> list[Verb]:
        """The verbs that lead to a batch."""
        return [self.fit, self.train, self.propose, self.select]

    def is_decided(self) -> bool:
        """Whether the ledger holds this round's batch."""
        return bool(self.campaign.ledger.round_queries(self.number))

    def is_recorded(self) -> bool:
        """Whether the round's figures are written, the last thing that a round does."""
        return (self.folder / FIGURES).exists()

    @property
    def folder(self) -> Path:
        """`rounds/NNN/` of the campaign's directory."""
        return self.campaign.directory / "rounds" / f"{self.number:03d}"

    def seed(self, role: str) -> int:
        """The seed of one of this round's random streams."""
        return stream(self.campaign.config.seed, self.number, role)

    def start(self) -> None:
        """Reserve the initial design, or record the values that the user brings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        campaign = self.campaign
        design = initial_design(campaign.parts, campaign.folder, self.seed("initial"))
        if design.notes:
            self.notes["initial"] = list(design.notes)
            self._write_notes()
        for note in design.notes:
            campaign.progress.note(note)
        if design.values is None:
            self._reserve(design.queries)
        else:
            campaign.ledger.record_known(design.queries, design.values, campaign.config.name)

    def fit(self) -> None:
        """Fit the surrogate to everything that the ledger knows."""
        seen = observations(self.campaign)
        self.surrogate = self.campaign.parts.new_surrogate()
        n_fidelities = len(self.campaign.parts.ladder)
        began = time.perf_counter()
        self.surrogate.fit(
            seen.features, seen.fidelities, seen.values, n_fidelities, self.seed("fit")
        )
        self.notes["surrogate"] = self.surrogate.summary()
        self.notes["seconds_fit"] = time.perf_counter() - began
        self._prepare(seen)

    def _prepare(self, seen: Observations) -> None:
        assert self.surrogate is not None  # noqa: S101 - the order of `play`
        campaign, environment = self.campaign, self.campaign.parts.environment
        self.random = distinct_random(campaign.parts, N_REFERENCE, self.seed("reference"))
        self.reference = torch.cat([environment.features(self.random), seen.features])
        self.acquisition = campaign.parts.new_acquisition()
        self.acquisition.prepare(
            as_compared(self.surrogate, campaign.goal),
            sign=sign(campaign.goal),
            best=metrics.best_score(campaign.ledger.to_frame(), campaign.target, campaign.goal),
            reference_features=self.reference,
            seed=self.seed("acquisition"),
        )

    def train(self) -> None:
        """Train the sampler on the acquisition, from where the last round left it."""
        assert self.acquisition is not None and self.reference is not None  # noqa: S101, PT018
        campaign = self.campaign
        self.sampler = campaign.parts.new_sampler(stream(campaign.config.seed, 0, "sampler"))
        before = campaign.directory / "rounds" / f"{self.number - 1:03d}" / "sampler.pt"
        if before.exists():
            self._load_sampler(before)
        reward = scaled_reward(campaign.parts.environment, self.acquisition, self.reference)
        began = time.perf_counter()
        losses = self.sampler.train(reward, seed=self.seed("train"), on_step=campaign.progress.step)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sampler.save(self.folder / "sampler.pt")
        self.notes["seconds_train"] = time.perf_counter() - began
        self.notes["reward"] = {"beta": reward.beta, "top": reward.top}
        self.notes["sampler_loss"] = [float(loss) for loss in losses]

    def _load_sampler(self, path: Path) -> None:
        try:
            self.sampler.load(path)
        except ValueError as error:
            raise CampaignStoppedError(
                f"stopped: {error}; delete this file and run `motherlode resume "
                f"{self.campaign.directory}`: the sampler then starts untrained, and the ledger "
                "is as before"
            ) from error

    def propose(self) -> None:
        """Draw proposals; add what was seen at a lower fidelity only, and the random reference.

        The random ones keep a batch from being empty of families when the sampler has narrowed
        down to a few; they are chosen only where their gain is the best that is left.
        """
        assert self.random is not None  # noqa: S101
        campaign, environment = self.campaign, self.campaign.parts.environment
        n = campaign.config.selection.n_proposals
        drawn = self.sampler.sample(n, seed=self.seed("propose"))
        again = environment.from_keys(promotable(campaign.ledger.to_frame(), campaign.target))
        unique = distinct(torch.cat([drawn, again, self.random]), environment.keys)
        self.notes["proposals"] = {"drawn": n, "distinct": len(distinct(drawn, environment.keys))}
        self.proposals = unique

    def select(self) -> None:
        """Choose the batch and reserve it."""
        assert self.proposals is not None and self.surrogate is not None  # noqa: S101, PT018
        picks, features = self._picks(self.proposals)
        fidelities = [pick.fidelity for pick in picks]
        chosen = self.proposals[torch.tensor([pick.index for pick in picks], dtype=torch.long)]
        reasons = self._reasons(picks, features)
        queries = make_queries(self.campaign.parts, self.number, chosen, fidelities, reasons)
        self._write_notes()
        self._reserve(queries)

    def _picks(self, states: Tensor) -> tuple[list[Pick], Tensor]:
        assert self.surrogate is not None and self.acquisition is not None  # noqa: S101, PT018
        model, environment = self.surrogate, self.campaign.parts.environment
        features = environment.features(states)
        pool = Pool(
            self.acquisition.log_gain(features),
            open_items(self.campaign, environment.keys(states)),
            environment.families(states),
        )

        def covariance(index: Tensor, fidelity: Tensor) -> Tensor:
            rows = features[index]
            return model.covariance(rows, fidelity, rows, fidelity)

        costs = [rung.cost for rung in self.campaign.parts.ladder]
        limits = self.campaign.limits(self.number)
        return select(pool, costs, model.noise_variance(), covariance, limits), features

    def _reasons(self, picks: Sequence[Pick], features: Tensor) -> list[dict[str, Any]]:
        target = len(self.campaign.parts.ladder) - 1
        reasons = []
        for pick in picks:
            row = features[pick.index : pick.index + 1]
            mean, sd = self._predicted(row, pick.fidelity)
            at_target, sd_at_target = self._predicted(row, target)
            reasons.append(
                {
                    "why": "highest gain per cost at this fidelity, given the batch so far",
                    "mean": mean,
                    "sd": sd,
                    "target_mean": at_target,
                    "target_sd": sd_at_target,
                    "log_gain": pick.log_gain,
                    "novelty": pick.novelty,
                    "cost": pick.cost,
                }
            )
        return reasons

    def _predicted(self, row: Tensor, fidelity: int) -> tuple[float, float]:
        """Mean and standard deviation of the outcome, its noise included."""
        assert self.surrogate is not None  # noqa: S101
        mean, sd = (float(v) for v in self.surrogate.predict(row, fidelity))
        return mean, math.hypot(sd, math.sqrt(float(self.surrogate.noise_variance()[fidelity])))

    def _reserve(self, queries: Sequence[Query]) -> None:
        campaign = self.campaign
        campaign.ledger.reserve(queries, campaign.config.name, campaign.config.budget.cost)

    def query(self) -> None:
        """Ask the oracles what this round reserved, and record each answer as it comes."""
        campaign = self.campaign
        rows = {row["key"]: row for row in campaign.ledger.open_queries()}
        jobs = [
            Job(key, row["candidate"], campaign.parts.fidelities.index(row["fidelity"]))
            for key, row in rows.items()
        ]
        campaign.ledger.start(list(rows))
        campaign.progress.queries(len(jobs))
        for outcome in campaign.runner.run(jobs) if jobs else ():
            settle(campaign, rows[outcome.key], outcome)
            campaign.progress.answered()

    def record(self) -> None:
        """Write the round's figures beside its checkpoint."""
        frame = self.campaign.ledger.to_frame()
        figures = metrics.round_figures(
            frame, self.number, self.campaign.target, self.campaign.goal
        )
        write_json(self.folder / FIGURES, figures)

    def _write_notes(self) -> None:
        write_json(self.folder / DECISION, self.notes)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
    sync_file(fresh)
    fresh.rename(path)

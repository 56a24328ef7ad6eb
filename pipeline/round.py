"""One round of the loop as a paragraph of verbs: fit, train, propose, select, query, record.

A round is decided once: when its batch stands in the ledger, resuming goes straight to the queries.
Before that nothing was spent, and the verbs come to the same choice again, because every random
stream derives from (seed, round, role).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline import approval, metrics
from pipeline.answers import dispatch, has_come, take_in_late, wait
from pipeline.decision import Proposals, choose, reasons, recommended
from pipeline.examples import N_EXAMPLES, best_observed, examples
from pipeline.families import best_of_each
from pipeline.initial import distinct, distinct_random, initial_design
from pipeline.knowledge import NOTES, HarvestGain, Knowledge, learn
from pipeline.ledger import Query, sync_file
from pipeline.pool import (
    N_GENERATIONS,
    N_OBSERVED,
    GainPool,
    is_of_words,
    searched_pool,
    variants,
)
from pipeline.queries import (
    CampaignStoppedError,
    make_queries,
    promotable,
)
from pipeline.reward import Gain, scaled_reward
from pipeline.streams import stream

if TYPE_CHECKING:
    from pipeline.campaign import Campaign
    from sampler.environment import Environment
    from surrogate.acquisition import Acquisition

N_REFERENCE = 512
"""How many random candidates stand for the space when the acquisition and reward are scaled."""
EXAMPLE_SHARE = 0.25
"""The share of the sampler's training that follows trajectories of the best known candidates."""

FIGURES = "figures.json"

Verb = Callable[[], None]
Call = Callable[[Verb], None]


@dataclass
class Round:
    """Round `number` of a campaign: 0 is the initial design, the model decides the later ones."""

    campaign: Campaign
    number: int
    notes: dict[str, Any] = field(default_factory=dict)
    known: Knowledge | None = None
    acquisition: Acquisition | None = None
    sampler: Any = None
    random: Tensor | None = None
    pool: GainPool | None = None
    proposals: Proposals | None = None

    def play(self, call: Call = lambda verb: verb()) -> None:
        """Play the round, each verb through `call`; a round in the ledger is only finished."""
        if not self.is_decided():
            for verb in [self.start] if self.number == 0 else self.decisions():
                call(verb)
        self.await_approval()
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
        """Fit the surrogate to everything that the ledger knows, and judge the cheap fidelities."""
        began = time.perf_counter()
        take_in_late(self.campaign)
        self.known = learn(self.campaign, self.number, self.seed("fit"))
        self.notes |= self.known.notes() | {"seconds_fit": time.perf_counter() - began}

    def train(self) -> None:
        """Train the sampler on the acquisition, from where the last round left it."""
        assert self.known is not None  # noqa: S101 - the order of `play`
        campaign, environment = self.campaign, self.campaign.parts.environment
        began = time.perf_counter()
        self.sampler = campaign.parts.new_sampler(stream(campaign.config.seed, 0, "sampler"))
        known = self._known_states()
        self.acquisition = self.known.acquisition(
            environment.features(known), self.seed("acquisition")
        )
        space, gain, known = self._as_sampled(known)
        self.pool = searched_pool(
            space, gain, known, self.seed("search"), self._n_generations(), self._observed()
        )
        reward = scaled_reward(space, gain, space.features(self.pool.states), self.seed("reward"))
        losses = self.sampler.train(
            reward,
            seed=self.seed("train"),
            examples=self._examples(space),
            example_fraction=EXAMPLE_SHARE,
            on_step=campaign.progress.step,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sampler.save(self.folder / "sampler.pt")
        self.notes["seconds_train"] = time.perf_counter() - began
        self.notes["reward"] = reward.notes()
        self.notes["sampler_loss"] = [float(loss) for loss in losses]

    def _observed(self) -> Tensor | None:
        """The best observed words; None in other spaces, and where fidelities are drawn too."""
        assert self.known is not None  # noqa: S101
        campaign = self.campaign
        if campaign.parts.pairs is not None or not is_of_words(campaign.parts.environment):
            return None
        keys = best_observed(self.known.frame, campaign.parts.fidelities, campaign.goal, N_OBSERVED)
        return campaign.parts.environment.from_keys(keys)

    def _n_generations(self) -> int:
        """Generations of the search beside the sampler: none where that is a rival to race."""
        return 0 if getattr(self.sampler, "is_baseline", False) else N_GENERATIONS

    def _known_states(self) -> Tensor:
        """Candidates that stand for the space: random ones, all asked, what the sampler draws."""
        assert self.known is not None  # noqa: S101
        campaign, environment = self.campaign, self.campaign.parts.environment
        self.random = distinct_random(campaign.parts, N_REFERENCE, self.seed("reference"))
        asked = environment.from_keys(self.known.asked())
        known = [self.random, asked]
        before = campaign.directory / "rounds" / f"{self.number - 1:03d}" / "sampler.pt"
        if before.exists():
            self._load_sampler(before)
            drawn = self.sampler.sample(N_REFERENCE, seed=self.seed("drawn before"))
            pairs = campaign.parts.pairs
            known.append(drawn if pairs is None else pairs.split(drawn)[0])
        return distinct(torch.cat(known), environment.keys)

    def _as_sampled(self, known: Tensor) -> tuple[Environment, Gain, Tensor]:
        """The sampler's space, what a draw from it is worth, and `known` as its states."""
        assert self.acquisition is not None and self.known is not None  # noqa: S101, PT018
        pairs = self.campaign.parts.pairs
        if pairs is None:
            return self.campaign.parts.environment, self.acquisition, known
        payable = self.known.payable().tolist()
        stopped = [
            n
            for n, is_open in zip(self.campaign.parts.fidelities, payable, strict=True)
            if not is_open
        ]
        return pairs.space, pairs.gain(self.acquisition, stopped), pairs.paired(known)

    def _examples(self, space: Environment) -> Tensor | None:
        """The best known candidates, whose trajectories are mixed into the training."""
        assert self.pool is not None and self.known is not None  # noqa: S101, PT018
        campaign = self.campaign
        if campaign.parts.pairs is not None:
            return self.pool.best(N_EXAMPLES)
        return examples(
            space, self.known.frame, campaign.parts.fidelities, campaign.goal, self.pool
        )

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
        """Draw proposals; add what a search found, what was seen at a lower fidelity only, and the
        random reference.

        The random ones keep a batch from being empty of families when the sampler has narrowed
        down to a few; they are chosen only where their gain is the best that is left.
        """
        assert self.random is not None and self.pool is not None  # noqa: S101, PT018
        assert self.known is not None  # noqa: S101
        campaign, environment = self.campaign, self.campaign.parts.environment
        n, pairs = campaign.config.selection.n_proposals, campaign.parts.pairs
        drawn = self.sampler.sample(n, seed=self.seed("propose"))
        is_offered = None
        if pairs is not None:
            drawn, is_offered = pairs.offered(drawn)
        unique = distinct(drawn, environment.keys)
        self.notes["proposals"] = {"drawn": n, "distinct": len(unique)}
        if pairs is None:
            again = environment.from_keys(promotable(self.known.frame, campaign.target))
            unique = distinct(
                torch.cat([unique, *self._searched(n), again, self.random]), environment.keys
            )
        self.proposals = Proposals(
            unique,
            environment.features(unique),
            environment.keys(unique),
            environment.families(unique),
            is_offered,
        )

    def _searched(self, n: int) -> list[Tensor]:
        """What a search beside the sampler finds: by gain, in the last round by harvest too.

        Where the gain is in exploring, all its best are unknown places, and none of the good
        candidates are among them that the last round buys. Nothing for a rival.
        """
        assert self.pool is not None and self.known is not None  # noqa: S101, PT018
        if not self._n_generations():
            return []
        pools = [self.pool]
        if self.known.limits(self.number).is_last:
            environment, known = self.campaign.parts.environment, self.pool.states
            worth = HarvestGain(self.known, self.known.harvest(environment.features(known)))
            seed = self.seed("harvest")
            pools.append(searched_pool(environment, worth, known, seed, N_GENERATIONS // 2))
        observed, found = self._observed(), [self._leaders(pool, n) for pool in pools]
        if observed is None:
            return found
        return [*found, variants(self.campaign.parts.environment, observed, n, self.seed("vary"))]

    def _leaders(self, pool: GainPool, n: int) -> Tensor:
        """The n best of a pool, a few of each family: variants of one must not fill it."""
        families = self.campaign.parts.environment.families(pool.states)
        rows = best_of_each(families, pool.gains, torch.ones(len(families), dtype=torch.bool))
        return pool.states[rows[:n]]

    def select(self) -> None:
        """Choose the batch and reserve it."""
        assert self.proposals is not None and self.acquisition is not None  # noqa: S101, PT018
        assert self.known is not None  # noqa: S101
        proposals = self.proposals
        seed = self.seed("fidelities")
        picks = choose(self.known, self.acquisition, proposals, self.number, seed)
        queries = make_queries(
            self.campaign.parts,
            self.number,
            proposals.states[torch.tensor([pick.index for pick in picks], dtype=torch.long)],
            [pick.fidelity for pick in picks],
            reasons(self.known, proposals, picks),
        )
        self.notes["recommended"] = recommended(self.known, proposals)
        self._write_notes()
        self._reserve(queries)

    def _reserve(self, queries: Sequence[Query]) -> None:
        campaign = self.campaign
        campaign.ledger.reserve(queries, campaign.config.name, campaign.config.budget.cost)

    def await_approval(self) -> None:
        """Let a person decide about the batch where the configuration wants that.

        WaitingForApprovalError while there is no decision; what is dropped or rejected ends
        `cancelled`, unpaid.
        """
        campaign = self.campaign
        rows = [r for r in campaign.ledger.round_queries(self.number) if r["state"] == "reserved"]
        decision = approval.decided(self.folder)
        if decision is not None:
            # Also where approval was switched off since: a person's word stands.
            approval.apply(campaign.ledger, decision, rows)
        elif approval.is_needed(campaign.config.approval, rows, campaign.target):
            page = approval.write_batch(self.folder, rows)
            raise approval.WaitingForApprovalError(
                f"round {self.number} waits for approval: {len(rows)} queries for "
                f"{sum(row['declared_cost'] for row in rows):g} (see {page}); "
                f"`motherlode approve {campaign.directory}` or `motherlode reject …`, then "
                f"`motherlode resume {campaign.directory}`"
            )

    def query(self) -> None:
        """Ask the oracles what this round reserved, and record each answer as it comes.

        Answers to stragglers of earlier rounds are recorded too. The round ends when all have come
        or enough for it to close: see `pipeline.places.Execution`.
        """
        out = dispatch(self.campaign)
        self.campaign.progress.queries(len(out))
        wait(self.campaign, out, self._may_close)

    def _may_close(self, seconds: float) -> bool:
        """Whether enough of this round has been answered to go on without the rest."""
        campaign, execution = self.campaign, self.campaign.config.execution
        by_time, by_share = execution.close_after_s is not None, execution.close_share < 1
        # The cheap questions first: this is asked after every answer.
        is_waiting = not (by_time or by_share) or self.number >= campaign.config.budget.rounds
        if is_waiting or not campaign.ledger.has_answers():
            return False
        if execution.close_after_s is not None and seconds >= execution.close_after_s:
            return True
        n_open, n = campaign.ledger.n_open(self.number)
        return by_share and has_come(n - n_open, n, execution.close_share)

    def record(self) -> None:
        """Write the round's figures beside its checkpoint."""
        figures = metrics.ledger_figures(
            self.campaign.ledger, self.number, self.campaign.target, self.campaign.goal
        )
        write_json(self.folder / FIGURES, figures)

    def _write_notes(self) -> None:
        write_json(self.folder / NOTES, self.notes)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
    sync_file(fresh)
    fresh.rename(path)

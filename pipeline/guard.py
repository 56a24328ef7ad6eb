"""The guard: which cheap fidelities are worth paying for, by how much they tell of the target.

The belief about a fidelity's correlation with the target runs from "mostly informative" to what
the evidence says (see `guard_evidence`). A fidelity is paid for while the variance that it
explains is worth several times its price: a query of the target is at once evidence and the goods,
one of a cheap fidelity is evidence alone. (Sabanza-Gil et al. 2024, arXiv 2410.00544, find cheap
queries to pay off where they are both informative and much cheaper.) Until the evidence outweighs
the prior, a fidelity gets a small share of the money only. One that is not paid for is judged anew
each round by what comes for free: the target's new answers, beside what it predicted of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.guard_evidence import (
    LEAST_TO_LEARN,
    MOST_TO_LEARN,
    PRIOR_SD,
    Belief,
    NewSurrogate,
    Seen,
    believe,
    contrast,
    fitted_alone,
    links,
)
from pipeline.selection import Limits
from surrogate.surrogate import Surrogate

WORTH_PAYING = 3.0
"""The least explained variance per cost, in units of the target's own, that is worth paying for."""

TURNS_AT = 1.25
"""The factor by which a threshold must be crossed before a standing verdict turns."""

UNPROVEN, PROVEN = 0.25, 0.5
"""The largest share of a round's money for cheap fidelities before and after the proof is in."""

N_PROOF = 3 + PRIOR_SD**-2
"""Links that outweigh the prior: the evidence is in."""

PAIR_GAIN = 0.4
"""Nats of gain more for a target query that makes a pair with an unproven fidelity's answer."""

LEAST_NATS = 1.0
"""What the cheap data must add, once proven, to what the target's own answers have told."""

LOG_ODDS_OF_USE = 1.5
"""Prior log odds that the data of the cheap fidelities help the surrogate."""


@dataclass(frozen=True)
class Verdict:
    """What is known of a cheap fidelity, and what follows; plain numbers, for JSON.

    `n_links` counts the target's answers by how well the fidelity's are known there, `n_pairs`
    those asked at both. `rank_correlation` is Spearman's over these with a central 80 % interval
    (None before more than three); `variance_explained` that of the target's normal scores by the
    fidelity's, prior included, with its interval; `contrast` the nats by which the cheap data
    improve the prediction of the target's outcomes, each left out (None: not known).
    `informative_per_cost`: explained variance per cost; the target's own is 1. `is_trusted`: go
    on paying, up to `exposure` of a round's money; `use_data`: let the surrogate learn from it.
    """

    fidelity: int
    n_pairs: int
    n_links: float
    rank_correlation: float | None
    rank_low: float | None
    rank_high: float | None
    variance_explained: float
    explained_low: float
    explained_high: float
    contrast: float | None
    informative_per_cost: float
    is_trusted: bool
    use_data: bool
    exposure: float
    reason: str

    @property
    def is_proven(self) -> bool:
        """Whether the evidence outweighs the prior."""
        return self.n_links >= N_PROOF


def judge(
    seen: Seen,
    costs: Sequence[float],
    new_surrogate: NewSurrogate,
    together: Surrogate | None = None,
    previous: Sequence[Verdict] = (),
    seed: int = 0,
) -> list[Verdict]:
    """One verdict for each cheap fidelity, `m - 1` of them, cheapest first.

    `costs (m,)` are the ladder's. `together` is the surrogate fitted to all of `seen`; None (no
    such fit) leaves out its evidence. `previous` are the last round's verdicts, which the evidence
    must clearly contradict before one turns. Deterministic in `seed`. ValueError where a cost is
    not above 0 or `previous` names other fidelities.
    """
    if not costs or not all(cost > 0 for cost in costs):
        raise ValueError(f"expected a cost above 0 for each fidelity, got {list(costs)}")
    before = {verdict.fidelity: verdict for verdict in previous}
    if not set(before) <= set(range(len(costs) - 1)):
        raise ValueError(
            f"expected previous verdicts on fidelities 0..{len(costs) - 2}, got {sorted(before)}"
        )
    target = seen.at(len(costs) - 1)
    nats = _contrast(together, target, new_surrogate, seed) if len(costs) > 1 else None
    verdicts = []
    for j, cost in enumerate(costs[:-1]):
        found = links(seen.at(j), target, new_surrogate, seed)
        price = costs[-1] / cost
        verdicts.append(decide(j, believe(found), found.n_pairs, nats, price, before.get(j)))
    return verdicts


def _contrast(
    together: Surrogate | None, target: Seen, new_surrogate: NewSurrogate, seed: int
) -> float | None:
    """The contrast where it can be had in little time: with many answers the links tell enough."""
    if together is None or not LEAST_TO_LEARN <= len(target.values) <= MOST_TO_LEARN:
        return None
    return contrast(together, fitted_alone(new_surrogate, target, seed), target)


def decide(
    fidelity: int,
    belief: Belief,
    n_pairs: int,
    nats: float | None,
    price: float,
    before: Verdict | None = None,
) -> Verdict:
    """The verdict of one fidelity; `price` is the target's cost in units of this one's.

    It is not paid for where it explains too little for its price, nor once proven where it adds
    nothing: a correlation over the space may be no news where the target's own answers have told
    as much. Its data mislead where the target is better predicted without the cheap data, and
    this fidelity explains less than was believed at first.
    """
    expected, low, high = belief.explained()
    worth = expected * price
    odds = LOG_ODDS_OF_USE + (0.0 if nats is None else nats)
    step = 0.0 if before is None else 1.0 if before.use_data else -1.0
    use_data = odds + step >= 0 or expected >= Belief().explained()[0]
    is_worth = worth >= WORTH_PAYING * _leaning(before, TURNS_AT)
    is_proven = belief.n_links >= N_PROOF
    is_news = nats is None or not is_proven or nats >= LEAST_NATS * _leaning(before, TURNS_AT**2)
    is_trusted = is_worth and is_news and use_data
    limit = PROVEN if is_proven else UNPROVEN
    return Verdict(
        fidelity=fidelity,
        n_pairs=n_pairs,
        n_links=belief.n_links,
        rank_correlation=belief.rank_correlation,
        rank_low=belief.rank_low,
        rank_high=belief.rank_high,
        variance_explained=expected,
        explained_low=low,
        explained_high=high,
        contrast=nats,
        informative_per_cost=worth,
        is_trusted=is_trusted,
        use_data=use_data,
        exposure=limit if is_trusted else 0.0,
        reason=_reason(belief, n_pairs, price, nats, is_worth, is_trusted, use_data),
    )


def _leaning(before: Verdict | None, factor: float) -> float:
    """What a threshold is multiplied by, in favour of the verdict that stands."""
    if before is None:
        return 1.0
    return 1 / factor if before.is_trusted else factor


def _reason(
    belief: Belief,
    n_pairs: int,
    price: float,
    nats: float | None,
    is_worth: bool,
    is_trusted: bool,
    use_data: bool,
) -> str:
    expected, low, high = belief.explained()
    source = f"{belief.n_links:.1f} links, {n_pairs} of them pairs"
    if belief.rank_correlation is None:
        source += " (too few: mostly prior belief)"
    found = (
        f"explains {expected:.2f} ({low:.2f} to {high:.2f}) of the target at 1/{price:.3g} of its "
        f"cost, by {source}: {expected * price:.2f} of the target's worth per cost"
    )
    if not use_data:
        return (
            f"not paid for nor learned from: {found}; its data mislead by {-(nats or 0):.1f} nats"
        )
    if is_trusted:
        return f"paid for, {'proven' if belief.n_links >= N_PROOF else 'not proven yet'}: {found}"
    if not is_worth:
        return f"not paid for: {found}, less than about {WORTH_PAYING:g}"
    return f"not paid for: {found}, but the cheap data add no more than {nats or 0:.1f} nats"


def payable(verdicts: Sequence[Verdict]) -> Tensor:
    """Which fidelities may be asked, `(m,)` bool; the target always."""
    return torch.tensor([verdict.is_trusted for verdict in verdicts] + [True])


def guarded(limits: Limits, verdicts: Sequence[Verdict], costs: Sequence[float]) -> Limits:
    """Limits that leave the cheap fidelities no more of the round's money than their exposure.

    The rest goes to the target first. Where the whole batch at the dearest trusted one would cost
    no more than that, nothing need be kept back: little money is at risk.
    """
    trusted = [verdict for verdict in verdicts if verdict.is_trusted]
    exposed = max((verdict.exposure for verdict in trusted), default=0.0) * limits.cost
    at_risk = limits.count * max((costs[verdict.fidelity] for verdict in trusted), default=0.0)
    if at_risk <= exposed:
        return limits
    return replace(limits, target_cost=max(limits.target_cost, limits.cost - exposed))


def learned(verdicts: Sequence[Verdict], fidelities: Tensor) -> Tensor:
    """Which observations the surrogate learns from, `(n,)` bool, given their `fidelities (n,)`."""
    return torch.tensor([verdict.use_data for verdict in verdicts] + [True])[fidelities]


def pair_gain(verdicts: Sequence[Verdict], answered: Tensor) -> Tensor:
    """Nats to add to a target query's log gain, `(q,)`: evidence of unproven fidelities is wanted.

    `answered (q, m)` bool: which candidates have an answer at which fidelity.
    """
    wanted = [not verdict.is_proven for verdict in verdicts]
    makes_pair = answered[:, :-1][:, torch.tensor(wanted, dtype=torch.bool)].any(1)
    return PAIR_GAIN * makes_pair.double()


def as_notes(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Verdicts as plain data, for the round's decision file."""
    return [asdict(verdict) for verdict in verdicts]


def from_notes(notes: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Verdicts read back; ValueError names a key that is missing or unknown."""
    names = {field.name for field in fields(Verdict)}
    for note in notes:
        if set(note) != names:
            odd = ", ".join(sorted(set(note) ^ names))
            raise ValueError(f"expected a guard's verdict as it was written; missing or odd: {odd}")
    return [Verdict(**note) for note in notes]

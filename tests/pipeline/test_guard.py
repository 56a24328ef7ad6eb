"""The guard's verdicts, and what follows from them for a round."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from pipeline.guard import (
    PAIR_GAIN,
    PROVEN,
    UNPROVEN,
    WORTH_PAYING,
    Verdict,
    as_notes,
    decide,
    from_notes,
    guarded,
    judge,
    learned,
    pair_gain,
    payable,
)
from pipeline.guard_evidence import Belief, Seen
from pipeline.selection import Limits
from surrogate.auto import Auto
from surrogate.gp import MultiFidelityGP
from tests.pipeline.guard_cases import Fixed, ladder


def verdict_on(r2: float, n_target: int, cost: float, seed: int = 0) -> Verdict:
    """By the surrogate of every campaign, four pairs among the answers."""
    seen = ladder(r2, 25, n_target, 4, seed)
    together = MultiFidelityGP()
    together.fit(seen.features, seen.fidelities, seen.values, 2, seed)
    return judge(seen, [cost, 1.0], MultiFidelityGP, together)[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_random_cheap_oracle_is_found_out(seed: int) -> None:
    """Without one more pair than the four of the start, at a tenth of the target's cost."""
    verdict = verdict_on(0.0, 20, 0.1, seed=seed)
    assert not verdict.is_trusted
    assert verdict.exposure == 0
    assert verdict.reason.startswith("not paid for")


def test_a_random_cheap_oracle_is_found_out_where_many_words_share_a_floor() -> None:
    """The contrast compares models of one kind, though a floor is split off of one fidelity."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(4, (80, 6), generator=generator)
    features = torch.nn.functional.one_hot(words, 4).flatten(1).double()
    target = torch.where((words == 3).any(1) & (words[:, 0] > 0), 0.0, 1 + (words == 0).sum(1) / 6)
    noise = torch.randn(40, generator=generator)
    values = torch.cat([noise, target[40:]]).double()
    assert int((values[40:] == values[40:].min()).sum()) >= 8
    fidelities = (torch.arange(80) >= 40).long()
    seen = Seen(features, fidelities, values, [str(i) for i in range(80)])

    def new() -> Auto:
        model = Auto(n_starts=1, max_iterations=20)
        model.feature_blocks, model.sign = (("letter", 4),) * 6, 1.0
        return model

    together = new()
    together.fit(features, fidelities, values, 2, 0)
    (verdict,) = judge(seen, [0.1, 1.0], new, together)
    assert verdict.contrast is not None
    assert abs(verdict.contrast) < 5


@pytest.mark.parametrize("seed", range(3))
def test_an_informative_cheap_oracle_is_paid_for(seed: int) -> None:
    verdict = verdict_on(0.95, 12, 0.1, seed=seed)
    assert verdict.is_trusted
    assert verdict.is_proven
    assert verdict.exposure == PROVEN
    assert verdict.reason.startswith("paid for, proven")


def test_what_explains_all_at_nearly_the_targets_price_is_not_worth_it() -> None:
    assert verdict_on(0.95, 12, 0.1).is_trusted
    dear = verdict_on(0.95, 12, 0.9)
    assert not dear.is_trusted
    assert dear.use_data  # what is there is not thrown away


def test_before_evidence_the_prior_speaks_and_little_is_risked() -> None:
    verdict = judge(ladder(0.0, 20, 2, 2), [0.05, 1.0], Fixed)[0]
    assert verdict.is_trusted
    assert not verdict.is_proven
    assert verdict.exposure == UNPROVEN
    assert "mostly prior belief" in verdict.reason
    assert verdict.rank_correlation is None


def belief(z: float, n: float = 20.0) -> Belief:
    return Belief(z, z, 0.0, 0.01, n)


def test_a_standing_verdict_turns_only_on_a_clear_change() -> None:
    z = math.atanh(math.sqrt(0.3))  # explains 0.3, at a price of 10: 3 of the target's worth
    fresh = decide(0, belief(z), 4, None, 10.1)
    trusted, distrusted = decide(0, belief(3.0), 4, None, 10), decide(0, belief(0.1), 4, None, 10)
    assert [v.is_trusted for v in (fresh, trusted, distrusted)] == [True, True, False]
    for price, after_trust, after_distrust in ((9, True, False), (11, True, False)):
        assert decide(0, belief(z), 4, None, price, trusted).is_trusted == after_trust
        assert decide(0, belief(z), 4, None, price, distrusted).is_trusted == after_distrust
    assert not decide(0, belief(z), 4, None, 7, trusted).is_trusted
    assert decide(0, belief(z), 4, None, 14, distrusted).is_trusted


def test_data_that_mislead_are_not_learned_from() -> None:
    bad = decide(0, belief(0.3), 4, -6.0, 20.0)
    assert not bad.use_data
    assert not bad.is_trusted
    assert "mislead by 6.0 nats" in bad.reason
    assert decide(0, belief(0.3), 4, -1.0, 20.0).use_data
    assert decide(0, belief(2.0), 4, -6.0, 20.0).use_data  # not this one: it explains
    assert not decide(0, belief(0.3), 4, -1.0, 20.0, bad).use_data
    assert decide(0, belief(0.3), 4, 0.0, 20.0, bad).use_data


def test_what_adds_nothing_to_the_targets_own_answers_is_not_paid_for() -> None:
    none, some = decide(0, belief(2.0), 4, 0.2, 20.0), decide(0, belief(2.0), 4, 2.0, 20.0)
    assert some.is_trusted
    assert not none.is_trusted
    assert none.use_data
    assert "add no more than 0.2 nats" in none.reason
    assert decide(0, belief(2.0), 4, 0.8, 20.0, some).is_trusted
    assert not decide(0, belief(2.0), 4, 1.2, 20.0, none).is_trusted
    assert decide(0, belief(2.0, n=5.0), 4, 0.2, 20.0).is_trusted  # the evidence is not in


def test_each_cheap_fidelity_is_judged_by_itself() -> None:
    good, bad = ladder(0.97, 25, 14, 4, seed=1), ladder(0.0, 25, 14, 4, seed=1)
    target = good.at(1)
    features = torch.cat([bad.at(0).features, good.at(0).features, target.features])
    of = torch.tensor([0] * 25 + [1] * 25 + [2] * 14)
    values = torch.cat([bad.at(0).values, good.at(0).values, target.values])
    names = [*bad.at(0).candidates, *good.at(0).candidates, *target.candidates]
    verdicts = judge(Seen(features, of, values, names), [0.1, 0.15, 1.0], Fixed)
    assert [v.fidelity for v in verdicts] == [0, 1]
    assert verdicts[0].variance_explained < 0.4 < 0.8 < verdicts[1].variance_explained
    assert payable(verdicts).tolist()[1:] == [True, True]


def test_one_fidelity_alone_has_no_verdict() -> None:
    seen = ladder(0.5, 5, 5, 5).at(1)
    only = Seen(seen.features, torch.zeros(5).long(), seen.values, seen.candidates)
    assert judge(only, [1.0], Fixed) == []
    assert payable([]).tolist() == [True]
    assert guarded(Limits(9.0, 3, 4.0), [], [1.0]) == Limits(9.0, 3, 4.0)


def test_law_the_same_evidence_has_the_same_verdict_and_survives_json() -> None:
    seen = ladder(0.5, 15, 8, 4)
    together = Fixed(rho=0.5)
    together.fit(seen.features, seen.fidelities, seen.values, 2, 0)
    one = judge(seen, [0.2, 1.0], Fixed, together)
    assert one == judge(seen, [0.2, 1.0], Fixed, together)
    assert one[0].contrast is not None
    assert from_notes(json.loads(json.dumps(as_notes(one)))) == one


def test_what_follows_for_the_round() -> None:
    good, bad = decide(0, belief(3.0), 4, None, 10), decide(1, belief(0.3), 4, -6.0, 10)
    fresh = decide(0, Belief(n_links=2.0), 2, None, 10)
    assert payable([good, bad]).tolist() == [True, False, True]
    assert learned([good, bad], torch.tensor([0, 1, 2, 1])).tolist() == [True, False, True, False]
    answered = torch.tensor([[True, False, False], [False, True, False], [False, False, True]])
    assert pair_gain([fresh, bad], answered).tolist() == [PAIR_GAIN, 0.0, 0.0]


def test_no_more_is_at_risk_than_the_exposure() -> None:
    proven, fresh = decide(0, belief(3.0), 4, None, 10), decide(0, Belief(), 2, None, 10)
    limits, costs = Limits(cost=8.0, count=80, target_cost=1.0), [0.1, 1.0]
    assert guarded(limits, [proven], costs).target_cost == pytest.approx(8.0 * (1 - PROVEN))
    assert guarded(limits, [fresh], costs).target_cost == pytest.approx(8.0 * (1 - UNPROVEN))
    assert guarded(replace(limits, target_cost=7.9), [fresh], costs).target_cost == 7.9
    few = replace(limits, count=20)  # a batch of cheap queries alone costs 2 of 8
    assert guarded(few, [fresh], costs) == few
    nobody = decide(0, belief(0.0), 4, None, 10)
    assert guarded(limits, [nobody], costs) == limits  # it cannot be asked at all


def test_the_threshold_is_in_units_of_the_targets_own_worth() -> None:
    certain = belief(math.atanh(math.sqrt(0.5)))
    assert decide(0, certain, 9, None, 2 * WORTH_PAYING * 1.05).is_trusted
    assert not decide(0, certain, 9, None, 2 * WORTH_PAYING * 0.95).is_trusted


def test_bad_input_is_answered() -> None:
    seen = ladder(0.5, 5, 5, 5)
    with pytest.raises(ValueError, match="expected a cost above 0"):
        judge(seen, [0.0, 1.0], Fixed)
    with pytest.raises(ValueError, match="expected a cost above 0"):
        judge(seen, [], Fixed)
    with pytest.raises(ValueError, match=r"on fidelities 0\.\.0, got \[3\]"):
        judge(seen, [0.1, 1.0], Fixed, None, [decide(3, Belief(), 0, None, 10)])
    with pytest.raises(ValueError, match="one length, got 10, 10, 10, 1"):
        Seen(seen.features, seen.fidelities, seen.values, ["a"])
    note = as_notes([decide(0, Belief(), 0, None, 10)])[0]
    del note["reason"]
    with pytest.raises(ValueError, match="missing or odd: reason"):
        from_notes([note])

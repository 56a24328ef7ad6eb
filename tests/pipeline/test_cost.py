"""What a query will cost: above 0, as declared before anything was paid, and learned after."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.cost import LEAST_FOR_FEATURES, CostKind, Paid, paid, predicted_costs

NAN = math.nan


def answers(
    fidelities: list[int],
    cost: list[float] | None = None,
    seconds: list[float] | None = None,
    features: Tensor | None = None,
) -> Paid:
    """Answers without what is not given."""
    n = len(fidelities)
    return Paid(
        torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        if features is None
        else features,
        torch.tensor(fidelities, dtype=torch.long),
        torch.tensor([NAN] * n if cost is None else cost, dtype=torch.float64),
        torch.tensor([NAN] * n if seconds is None else seconds, dtype=torch.float64),
    )


def points(n: int, seed: int = 1) -> Tensor:
    """Features `(n, 2)`."""
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MEASURED = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([NAN, 0.0, 1e-6, 0.3, 5.0, 1e7, math.inf])),
    max_size=30,
)


@settings(max_examples=60)
@given(MEASURED, st.sampled_from(["declared", "learned", "seconds"]))
def test_law_a_cost_is_finite_and_above_0(rows: list[tuple[int, float]], kind: CostKind) -> None:
    of, measured = [j for j, _ in rows], [y for _, y in rows]
    cost = predicted_costs(kind, [0.1, 1.0, 9.0], answers(of, measured, measured))(points(7))
    assert cost.shape == (7, 3)
    assert bool((cost > 0).all())
    assert bool(cost.isfinite().all())


@pytest.mark.parametrize("kind", ["declared", "learned", "seconds"])
def test_law_before_any_answer_a_cost_is_the_declared_one(kind: CostKind) -> None:
    cost = predicted_costs(kind, [0.1, 2.0], answers([]))(points(4))
    torch.testing.assert_close(cost, torch.tensor([[0.1, 2.0]] * 4, dtype=torch.float64))


def test_law_a_unit_of_cost_or_time_changes_only_the_unit() -> None:
    of, cost = [0, 0, 1, 1, 1], [0.2, 0.3, 4.0, 5.0, 6.0]
    x = points(3)
    one = predicted_costs("learned", [0.1, 2.0], answers(of, cost))(x)
    many = predicted_costs("learned", [10.0, 200.0], answers(of, [100 * c for c in cost]))(x)
    torch.testing.assert_close(100 * one, many)
    in_s = predicted_costs("seconds", [0.1, 2.0], answers(of, seconds=cost))(x)
    in_h = predicted_costs("seconds", [0.1, 2.0], answers(of, seconds=[c / 3600 for c in cost]))(x)
    torch.testing.assert_close(in_s, in_h)


def test_the_declared_cost_counts_as_one_answer() -> None:
    cost = predicted_costs("learned", [1.0, 5.0], answers([0, 0, 0], [8.0, 8.0, 8.0]))(points(1))
    assert float(cost[0, 0]) == pytest.approx(8.0**0.75)
    assert float(cost[0, 1]) == pytest.approx(5.0)


def test_one_absurd_answer_does_not_decide() -> None:
    usual = [1.9, 2.0, 2.0, 2.1, 2.2, 1.8, 2.0]
    clean = predicted_costs("learned", [1.0], answers([0] * 7, usual))(points(1))
    odd = predicted_costs("learned", [1.0], answers([0] * 8, [*usual, 1e9]))(points(1))
    assert float(odd) == pytest.approx(float(clean), rel=0.1)


def test_seconds_weigh_the_fidelities_against_each_other() -> None:
    """Declared 1:10, but both take as long: they come to cost the same."""
    of = [0] * 50 + [1] * 50
    cost = predicted_costs("seconds", [1.0, 10.0], answers(of, seconds=[30.0] * 100))(points(1))
    assert float(cost[0, 1] / cost[0, 0]) == pytest.approx(1.0, rel=0.1)
    assert float(cost.prod()) == pytest.approx(10.0)  # the ladder as a whole costs as declared


def dear_on_the_right(n: int, seed: int = 5) -> Paid:
    """Cost e^(3 x0), with some scatter, at one fidelity of declared cost 1."""
    x = points(n, seed)
    scatter = torch.randn(n, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return answers([0] * n, (3 * x[:, 0] + 0.1 * scatter).exp().tolist(), features=x)


def test_features_say_what_a_candidate_costs_once_there_is_enough_to_learn_from() -> None:
    ends = torch.tensor([[0.1, 0.5], [0.9, 0.5]], dtype=torch.float64)
    known = predicted_costs("learned", [1.0], dear_on_the_right(60))(ends)[:, 0]
    torch.testing.assert_close(known, (3 * ends[:, 0]).exp(), rtol=0.15, atol=0.0)
    few = predicted_costs("learned", [1.0], dear_on_the_right(LEAST_FOR_FEATURES - 1))(ends)[:, 0]
    assert float(few[0]) == pytest.approx(float(few[1]))


def test_nothing_is_extrapolated() -> None:
    seen = dear_on_the_right(60)
    far = predicted_costs("learned", [1.0], seen)(torch.tensor([[50.0, 0.5], [-50.0, 0.5]]))
    assert float(seen.cost.min()) * 0.99 <= float(far.min())
    assert float(far.max()) <= float(seen.cost.max()) * 1.01


def test_features_that_say_nothing_are_ignored() -> None:
    scatter = torch.randn(40, generator=torch.Generator().manual_seed(2)).double()
    seen = answers([0] * 40, scatter.mul(0.3).exp().tolist())
    cost = predicted_costs("learned", [1.0], seen)(points(50))[:, 0]
    assert float(cost.std()) < 0.15


def test_more_features_than_answers_and_constant_ones() -> None:
    x = torch.cat([points(25), torch.ones(25, 40, dtype=torch.float64)], 1)
    cost = predicted_costs("learned", [1.0], answers([0] * 25, [2.0] * 25, features=x))(x)
    torch.testing.assert_close(cost, torch.full_like(cost, 2.0 ** (25 / 26)))


def test_only_answers_of_the_ledger_count() -> None:
    frame = pd.DataFrame(
        {
            "candidate": ["a", "b", "c"],
            "fidelity": ["low", "high", "high"],
            "state": ["done", "done", "failed"],
            "actual_cost": [0.2, 3.0, 99.0],
            "seconds": [1.0, NAN, 5.0],
        }
    )
    seen = paid(frame, ["low", "high"], lambda keys: torch.zeros(len(keys), 1))
    assert seen.fidelities.tolist() == [0, 1]
    assert seen.cost.tolist() == [0.2, 3.0]
    assert len(seen.features) == 2


def test_bad_input_is_answered() -> None:
    with pytest.raises(ValueError, match="expected cost `declared`, `learned` or `seconds`"):
        predicted_costs("free", [1.0], answers([]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="declared cost above 0"):
        predicted_costs("declared", [0.0, 1.0], answers([]))
    with pytest.raises(ValueError, match=r"fidelities in 0\.\.0, got \[0, 1\]"):
        predicted_costs("learned", [1.0], answers([0, 1], [1.0, 1.0]))
    with pytest.raises(ValueError, match="one length, got 2, 1, 1, 1"):
        Paid(points(2), torch.zeros(1), torch.zeros(1), torch.zeros(1))

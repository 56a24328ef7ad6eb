import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sampler import environment
from sampler.environment import Environment
from sampler.environments.stack import Stack
from sampler.environments.stack_constraint import Constraint
from tests.sampler.continuous_walks import check_continuous_laws, walk
from tests.sampler.walks import all_states, check_discrete_laws

GRID = {"kind": "hyper_grid", "n_dims": 2, "length": 3}
LEVELS = {"kind": "hypercube", "n_dims": 2, "bounds": [(0.0, 1.0)] * 2, "n_levels": 3}
BOX = {"kind": "hypercube", "n_dims": 2, "bounds": [(0.0, 1.0)] * 2}
RING = {"kind": "torus", "n_dims": 1, "n_increments": 2}


class SolventWindow(Constraint):
    """A reactor: first the solvent, x0 of three levels, then x0, its temperature, and x1.

    Solvent k is liquid for temperatures from `starts[k]` to `starts[k]` + 0.4. `liquid` is what
    a restriction leaves of the temperatures: solvents that are liquid nowhere in it are forbidden.
    """

    parts = ("solvent", "conditions")

    def __init__(self, starts: list[float], liquid: tuple[float, float] = (0.0, 1.0)) -> None:
        self.starts = torch.tensor(starts, dtype=torch.float64)
        self.liquid = liquid

    def is_met(self, states: Mapping[str, Tensor]) -> Tensor:
        start = self.starts[states["solvent"][:, 0] - 1]
        temperature = states["conditions"][:, 0]
        return (temperature >= start - 1e-9) & (temperature <= start + 0.4 + 1e-9)

    def allowed(self, part: str, states: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        if part == "conditions":
            return mask
        low, high = self.liquid
        return mask & (self.starts < high - 1e-6) & (self.starts + 0.4 > low + 1e-6)

    def amount_range(
        self, part: str, states: Mapping[str, Tensor], actions: Tensor, low: Tensor, high: Tensor
    ) -> tuple[Tensor, Tensor]:
        if part == "solvent":
            return low, high
        start = self.starts[states["solvent"][:, 0] - 1]
        is_temperature = actions == 0
        return (
            torch.where(is_temperature, torch.maximum(low, start), low),
            torch.where(is_temperature, torch.minimum(high, start + 0.4), high),
        )

    def restricted(self, where: Mapping[str, Mapping[str, Any]]) -> Constraint:
        if "solvent" in where:
            return super().restricted(where)
        low, high = where.get("conditions", {}).get("x0", self.liquid)
        return SolventWindow(self.starts.tolist(), (low, high))


class NoLarger(Constraint):
    """The second grid point is nowhere above the first."""

    parts = ("small",)

    def is_met(self, states: Mapping[str, Tensor]) -> Tensor:
        return (states["small"][:, :2] <= states["large"][:, :2]).all(dim=1)

    def allowed(self, part: str, states: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        is_below = states["small"][:, :2] < states["large"][:, :2]
        return mask & torch.cat([is_below, torch.ones_like(mask[:, -1:])], dim=1)


def reactor(window: SolventWindow | None = None) -> Environment:
    solvent = {**LEVELS, "n_dims": 1, "bounds": [(0.0, 2.0)]}
    window = window or SolventWindow([0.0, 0.3, 0.6])
    return Stack({"solvent": solvent, "conditions": BOX}, [window])


@pytest.mark.parametrize(
    "parts",
    [
        {"a": BOX},
        {"a": GRID, "b": BOX},
        {"a": BOX, "b": GRID, "c": RING},
        {"a": RING, "b": {"kind": "stack", "parts": {"c": GRID, "d": BOX}}},
    ],
)
def test_laws_with_continuous_parts(parts: dict[str, Any]) -> None:
    check_continuous_laws(environment("stack", parts=parts))


@pytest.mark.parametrize("parts", [{"a": GRID}, {"a": LEVELS, "b": GRID}, {"a": GRID, "b": GRID}])
def test_laws_with_discrete_parts(parts: dict[str, Any]) -> None:
    space = environment("stack", parts=parts)
    check_discrete_laws(space)
    assert space.action_heads is None
    assert space.initial_states(1).dtype == torch.int64


def test_laws_under_constraints() -> None:
    check_continuous_laws(reactor())
    check_discrete_laws(Stack({"large": GRID, "small": GRID}, [NoLarger()]))


def test_heads_are_numbered_through() -> None:
    space = Stack({"a": RING, "b": GRID, "c": BOX})
    assert space.action_heads is not None
    assert space.action_heads.tolist() == [0, -1, -1, -1, 1, 2]
    assert space.circular_heads == (True, False, False)
    assert space.max_steps == 2 + 5 + 2
    assert not space.is_tree
    assert Stack({"a": BOX, "b": LEVELS}).is_tree


def test_widths_are_those_of_the_part_under_way() -> None:
    space = Stack({"a": LEVELS, "b": {**BOX, "n_increments": 2}})
    _, steps = walk(space, 5)
    for parents, actions, _, children in steps[:2]:
        assert space.log_width(parents, actions).tolist() == [0.0] * 5
        assert space.log_width_back(children, actions).tolist() == [0.0] * 5
    parents, actions, _, children = steps[-1]
    assert torch.allclose(space.log_width(parents, actions), (1 - parents[:, 4]).log())
    assert torch.allclose(space.log_width_back(children, actions), children[:, 4].log())


def test_a_candidate_is_a_dict_of_the_parts() -> None:
    space = Stack({"a | b": GRID, "c": BOX})
    made = {"a | b": np.array([2.0, 1.0]), "c": np.array([0.5, 0.25])}
    states = space.encode([made])
    assert states.tolist() == [[2, 2, 1, 1, 0.5, 0.25, 1, 1]]
    assert space.keys(states) == ['["2,1", "0.5,0.25"]']
    assert space.families(states) == space.keys(states)
    assert space.describe(states) == [{"a | b.x0": 2, "a | b.x1": 1, "c.x0": 0.5, "c.x1": 0.25}]
    assert space.features(states).tolist() == [[1, 0.5, 0.5, 0.25]]
    assert space.log_measure(states).tolist() == [0.0]
    assert space.decode(states)[0]["c"].tolist() == [0.5, 0.25]


def test_a_part_that_cannot_be_made_spoils_the_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Stack({"a": GRID, "b": BOX})
    error = ValueError("too hot")
    monkeypatch.setattr(space.parts["b"], "decode", lambda states: [error] * len(states))
    assert space.decode(walk(space, 2)[0]) == [error, error]


def test_what_a_part_came_to_bounds_the_next() -> None:
    space = reactor()
    terminal, _ = walk(space, 1500)
    solvent, temperature = terminal[:, 1] - 1, terminal[:, 2]
    for k, start in enumerate([0, 0.3, 0.6]):
        own = temperature[solvent == k]
        assert float(own.min()) >= start - 1e-9
        assert float(own.max()) <= start + 0.4 + 1e-9
        assert float(own.max() - own.min()) > 0.38
    with pytest.raises(ValueError, match="does not meet SolventWindow"):
        space.from_keys(['["0", "0.9,0.5"]'])


def test_a_constrained_space_is_exactly_what_meets_the_constraint() -> None:
    space = Stack({"large": GRID, "small": GRID}, [NoLarger()])
    states = all_states(space)
    found = {tuple(json.loads(key)) for key in space.keys(states[space.is_terminal(states)])}
    points = [f"{i},{j}" for i in range(3) for j in range(3)]
    assert found == {
        (a, b) for a, b in itertools.product(points, points) if b[0] <= a[0] and b[2] <= a[2]
    }


def test_a_restricted_stack_obeys() -> None:
    space = Stack({"a": LEVELS, "b": BOX})
    restricted = space.restricted({"a": {"x0": [0.4, 1]}, "b": {"x1": [0.1, 0.2]}})
    check_continuous_laws(restricted)
    terminal, _ = walk(restricted, 300)
    assert set(terminal[:, 1].tolist()) == {2.0, 3.0}
    assert float(terminal[:, 4].min()) >= 0.1
    assert float(terminal[:, 4].max()) <= 0.2
    assert set(walk(space, 300)[0][:, 1].tolist()) == {1.0, 2.0, 3.0}


def test_a_constraint_looks_ahead_under_a_restriction() -> None:
    restricted = reactor().restricted({"conditions": {"x0": [0.5, 0.65]}})
    check_continuous_laws(restricted)
    terminal, _ = walk(restricted, 300)
    assert set((terminal[:, 1] - 1).tolist()) == {1.0, 2.0}
    assert float(terminal[:, 2].min()) >= 0.5
    assert float(terminal[:, 2].max()) <= 0.65


def test_restrictions_that_cannot_be_met() -> None:
    space = Stack({"a": LEVELS, "b": BOX})
    with pytest.raises(ValueError, match="unknown key 'c'"):
        space.restricted({"c": {}})
    with pytest.raises(ValueError, match="a: expected a mapping"):
        space.restricted({"a": 3})
    with pytest.raises(ValueError, match=r"part 'b': where: x1: .* positive width"):
        space.restricted({"a": {"x0": 1}, "b": {"x1": [5, 6]}})
    with pytest.raises(ValueError, match="where: solvent: SolventWindow narrows this part"):
        reactor().restricted({"solvent": {"x0": 1}})


def test_a_constraint_that_leaves_no_amount_is_a_dead_end() -> None:
    with pytest.raises(RuntimeError, match=r"dead end: SolventWindow .* part 'conditions'"):
        walk(reactor(SolventWindow([1.5, 1.5, 1.5], liquid=(0.0, 9.0))), 3)


def test_constraints_may_be_named() -> None:
    kind = f"{__name__}:SolventWindow"
    parts = {"solvent": {**LEVELS, "n_dims": 1, "bounds": [(0.0, 2.0)]}, "conditions": BOX}
    space = environment(
        "stack", parts=parts, constraints=[{"kind": kind, "starts": [0.0, 0.3, 0.6]}]
    )
    assert space.keys(walk(space, 9)[0]) == reactor().keys(walk(reactor(), 9)[0])
    grids = {"large": GRID, "small": GRID}
    assert isinstance(Stack(grids, [f"{__name__}:NoLarger"]).constraints[0], NoLarger)
    with pytest.raises(ValueError, match="narrows 'small'; expected one of the parts a"):
        Stack({"a": GRID}, [NoLarger()])
    with pytest.raises(ValueError, match="expected a Constraint, got OrderedDict"):
        Stack({"a": GRID}, ["collections:OrderedDict"])
    with pytest.raises(ValueError, match="options with a kind"):
        Stack({"a": GRID}, [{"starts": []}])


def test_bad_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="parts: expected at least one"):
        Stack({})
    with pytest.raises(ValueError, match="parts: a: expected an environment or options"):
        Stack({"a": {"n_dims": 2}})
    with pytest.raises(ValueError, match="parts: a: n_dims: expected at least 1"):
        Stack({"a": {**BOX, "n_dims": 0}})


@pytest.mark.parametrize("key", ["nonsense", "[1, 2]", '["0,0"]', '["9,9", "0.5,0.5"]', "{}"])
def test_keys_outside_the_space_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        Stack({"a": GRID, "b": BOX}).from_keys([key])


def test_candidates_outside_the_space_are_refused() -> None:
    space = Stack({"a": GRID, "b": BOX})
    with pytest.raises(ValueError, match="expected a dict of a, b"):
        space.encode([{"a": np.zeros(2)}])
    with pytest.raises(ValueError, match=r"part 'b': .* lies outside"):
        space.encode([{"a": np.zeros(2), "b": np.array([0.5, 2.0])}])

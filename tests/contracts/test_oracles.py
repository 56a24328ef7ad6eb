"""The laws of an oracle, over every registered one."""

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from oracles import ORACLES, Oracle
from tests.crystals import from_spacegroup


@dataclass(frozen=True)
class Sample:
    """A small instance of a kind, and candidates for it."""

    options: dict[str, Any]
    candidates: Callable[[], list[Any]]
    absurd: Callable[[], list[Any]]


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    return _rock_salt(cation, anion, a).copy()


@cache  # half a second each
def _rock_salt(cation: str, anion: str, a: float) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, anion], sites)


def rock_salts() -> list[Any]:
    return [rock_salt("Na", "Cl", 5.7), rock_salt("Mg", "O", 4.2), rock_salt("Li", "F", 4.1)]


SAMPLES = {
    "band_gap": Sample(
        options={"reference": "pbe"},
        candidates=rock_salts,
        absurd=lambda: ["NaCl", None, Structure(Lattice.cubic(4), [], []),
                        rock_salt("Cm", "O", 5.0), rock_salt("X", "O", 5.0)],
    ),
    "branin": Sample(
        options={"bias": 0.5},
        candidates=lambda: list(np.random.default_rng(1).uniform([-5, 0], [10, 15], (7, 2))),
        absurd=lambda: ["no vector", np.array([math.nan, 0.0]), np.zeros(3), None],
    ),
    "chgnet": Sample(
        options={"relax": "none"},
        candidates=rock_salts,
        absurd=lambda: [
            "NaCl", None, rock_salt("Na", "Cl", 1.0), rock_salt("Na", "Cl", 60.0),
            rock_salt("Xe", "Cl", 5.7),
        ],
    ),
    "density": Sample(
        options={},
        candidates=rock_salts,
        absurd=lambda: ["NaCl", None, Structure(Lattice.cubic(4), [], []),
                        Structure([[3, 0, 0], [0, 3, 0], [3, 3, 0]], ["Na"], [[0, 0, 0]]),
                        Structure(Lattice.cubic(math.nan), ["Na"], [[0, 0, 0]])],
    ),
    "ehrlich": Sample(
        options={"length": 15},
        candidates=lambda: ["VQNNNSDDYQQNNNN", "YQGIIHRLYQRYQVM", "VQNSNSDDYQQNNNN"],
        absurd=lambda: ["VQN", "vqnnnsddyqqnnnn", "", None, np.zeros(15)],
    ),
    "hartmann": Sample(
        options={"bias": 0.5, "r2": 0.7},
        candidates=lambda: list(np.random.default_rng(1).uniform(size=(7, 6))),
        absurd=lambda: ["no vector", np.full(6, math.nan), np.zeros(3), np.full(6, 1.1), None],
    ),
    "park": Sample(
        options={"bias": 0.5, "r2": 0.7},
        candidates=lambda: [*np.random.default_rng(1).uniform(size=(7, 4)), np.zeros(4)],
        absurd=lambda: ["no vector", np.full(4, math.nan), np.zeros(3), np.full(4, -0.1), None],
    ),
    "tabulated": Sample(
        options={"file": str(Path(__file__).parent / "table.csv"), "normalise": True},
        candidates=lambda: ["ACGT", "NA", "ACGA"],
        absurd=lambda: ["TTTT", "", None, np.zeros(2), np.zeros((2, 2)), "two\nlines"],
    ),
}  # fmt: skip


def oracle_class(kind: str) -> Any:
    module, name = ORACLES[kind].split(":")
    return getattr(importlib.import_module(module), name)


def build(kind: str, **options: Any) -> Any:
    return oracle_class(kind)(fidelity="low", cost=0.5, **SAMPLES[kind].options, **options)


def text(answers: list[Any]) -> list[str]:
    return [repr(answer) for answer in answers]


def test_every_registered_oracle_has_a_sample() -> None:
    assert set(SAMPLES) == set(ORACLES)


@pytest.fixture(params=sorted(ORACLES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_says_what_it_is(kind: str) -> None:
    oracle = build(kind)
    assert isinstance(oracle, Oracle)
    assert (oracle.fidelity, oracle.cost) == ("low", 0.5)
    assert isinstance(oracle.version, str)
    assert oracle.properties
    assert all(isinstance(name, str) for name in oracle.properties)
    assert getattr(oracle, "batch_size", 1) >= 1


def test_its_options_are_annotated_keywords(kind: str) -> None:
    parameters = inspect.signature(oracle_class(kind), eval_str=True).parameters
    assert {"fidelity", "cost"} <= set(parameters)
    assert parameters["fidelity"].annotation is str
    assert parameters["cost"].annotation is float
    for name, parameter in parameters.items():
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD
        assert parameter.annotation is not inspect.Parameter.empty
        if name not in ("fidelity", "cost"):
            assert parameter.default is not inspect.Parameter.empty


def test_an_unknown_option_is_a_type_error(kind: str) -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        build(kind, no_such_option=1)


def test_negative_cost_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="cost"):
        oracle_class(kind)(fidelity="low", cost=-1.0, **SAMPLES[kind].options)


def test_one_answer_for_each_candidate_with_every_property(kind: str) -> None:
    oracle, candidates = build(kind), SAMPLES[kind].candidates()
    answers = oracle.query(candidates)
    assert len(answers) == len(candidates)
    for answer in answers:
        assert set(answer) == set(oracle.properties)
        assert all(type(value) is float and math.isfinite(value) for value in answer.values())
    assert oracle.query([]) == []


def test_same_answers_twice_and_from_another_instance(kind: str) -> None:
    oracle, candidates = build(kind), SAMPLES[kind].candidates()
    first = text(oracle.query(candidates))
    assert text(oracle.query(candidates)) == first
    assert text(build(kind).query(SAMPLES[kind].candidates())) == first


def test_answers_depend_neither_on_order_nor_on_company(kind: str) -> None:
    oracle, candidates = build(kind), SAMPLES[kind].candidates()
    together = text(oracle.query(candidates))
    assert text(oracle.query(candidates[::-1]))[::-1] == together
    assert [text(oracle.query([candidate]))[0] for candidate in candidates] == together


def test_an_absurd_candidate_fails_in_its_own_row_alone(kind: str) -> None:
    oracle, candidates = build(kind), SAMPLES[kind].candidates()
    expected = text(oracle.query(candidates[:2]))
    for absurd in SAMPLES[kind].absurd():
        before, failure, after = oracle.query([candidates[0], absurd, candidates[1]])
        assert isinstance(failure, Exception)
        assert "\n" not in str(failure)
        assert str(failure)
        assert text([before, after]) == expected


def test_candidates_are_left_as_they_were(kind: str) -> None:
    oracle, candidates = build(kind), SAMPLES[kind].candidates()
    oracle.query(candidates)
    assert text(candidates) == text(SAMPLES[kind].candidates())

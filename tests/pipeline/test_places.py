"""The `execution` section: what holds for all fidelities, what differs, and clear complaints."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.config import problem_lines
from pipeline.places import Execution, Place, place_problems

MIXED = {
    "workers": 3,
    "backoff_s": 0.5,
    "fidelities": {
        "dft": {
            "runner": "slurm",
            "partition": "gpu",
            "time": "02:00:00",
            "modules": ["vasp/6"],
            "attempts": 4,
        },
        "model": {"time_limit_s": 60},
    },
}


def test_a_fidelity_has_the_common_rules_but_where_it_says_otherwise() -> None:
    execution = Execution.model_validate(MIXED)
    dft, model, other = (execution.place(name) for name in ("dft", "model", "other"))
    assert (dft.runner, dft.partition, dft.attempts) == ("slurm", "gpu", 4)
    assert (model.runner, model.time_limit_s, model.attempts) == ("local", 60, 2)
    assert other == Place(backoff_s=0.5)
    assert dft.backoff_s == model.backoff_s == 0.5


def test_written_out_and_read_again_it_says_the_same() -> None:
    execution = Execution.model_validate(MIXED)
    written = yaml.safe_dump(execution.model_dump(mode="json"))
    again = Execution.model_validate(yaml.safe_load(written))
    assert again.place("dft") == execution.place("dft")
    assert yaml.safe_dump(again.model_dump(mode="json")) == written
    later = Execution.model_validate(yaml.safe_load(written) | {"backoff_s": 9})
    assert later.place("dft").backoff_s == 9  # what it did not say itself is not frozen


def test_each_wait_is_twice_as_long_and_never_overflows() -> None:
    place = Place(backoff_s=0.5)
    assert [place.backoff(n) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert place.backoff(10**9) < float("inf")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"workers": True}, "execution.workers: expected a valid integer, got True"),
    ({"runner": "pbs"}, "execution.runner: expected 'local', 'slurm' or 'dask', got 'pbs'"),
    ({"partition": "cpu"}, "`partition` needs the runner it belongs to"),
    ({"fidelities": {"dft": {"time": "1"}}}, "`fidelities.dft.time` needs the runner"),
    (
        {"fidelities": {"dft": {"partitoin": "x"}}},
        "execution.fidelities.dft.partitoin: unknown key; did you mean `partition`?",
    ),
    ({"runner": "slurm", "time": 7200}, "execution.time: expected Slurm's text in quotes"),
    ({"runner": "slurm", "time": "soon"}, "execution.time: "),
    ({"runner": "slurm", "partition": "-x"}, "execution.partition: "),
    ({"runner": "slurm", "options": ["-x"]}, "expected sbatch options such as"),
    ({"runner": "slurm", "options": ["--comment=a\nb"]}, "expected sbatch options such as"),
    ({"runner": "slurm", "modules": ["a b"]}, "execution.modules.0: "),
    ({"runner": "slurm", "mem": "much"}, "execution.mem: "),
    ({"attempts": 0}, "execution.attempts: "),
    ({"backoff_s": -1}, "execution.backoff_s: "),
    (
        {"runner": "dask", "dask": {"address": "tcp://a:1", "cluster_class": "a.B"}},
        "execution.dask: expected either `address` or `cluster_class`, got both",
    ),
    ({"dask": {"address": "tcp://a:1"}}, "`dask` needs the runner it belongs to"),
]


@pytest.mark.parametrize(("given", "told"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_what_cannot_be_is_told_in_one_line(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Execution.model_validate(given)
    lines = problem_lines(caught.value, Execution, "execution")
    assert any(told in line for line in lines), lines


def test_a_fidelity_that_no_oracle_has_is_told() -> None:
    execution = Execution.model_validate(MIXED)
    assert place_problems(execution, ["dft", "model"]) == []
    assert place_problems(execution, ["low", "dft"]) == [
        "execution.fidelities.model: no oracle has this fidelity; known: dft, low"
    ]

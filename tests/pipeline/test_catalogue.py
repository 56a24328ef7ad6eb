"""The catalogue names every kind, what it is, and its options."""

from __future__ import annotations

import pytest

from pipeline.assemble import KINDS
from pipeline.catalogue import describe_kinds


def test_every_registered_kind_is_described() -> None:
    told = describe_kinds()
    assert {name: [entry.kind for entry in entries] for name, entries in told.items()} == {
        name: sorted(kinds) for name, kinds in KINDS.items()
    }
    for entries in told.values():
        for entry in entries:
            assert entry.summary.strip(), entry.kind
            assert "\n" not in entry.summary


def test_options_come_with_type_and_default() -> None:
    (branin,) = [entry for entry in describe_kinds("oracles")["oracles"] if entry.kind == "branin"]
    assert branin.options == [
        "fidelity: str  (required)",
        "cost: float  (required)",
        "bias: float = 0.0",
        "r2: float = 1.0",
    ]


@pytest.mark.parametrize("section", sorted(KINDS))
def test_a_section_alone(section: str) -> None:
    assert list(describe_kinds(section)) == [section]


def test_what_the_pipeline_passes_is_no_option() -> None:
    for entry in describe_kinds("samplers")["samplers"]:
        names = {option.split(":")[0] for option in entry.options}
        assert not names & {"environment", "seed"}

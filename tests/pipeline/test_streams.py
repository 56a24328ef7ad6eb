"""Random streams: a function of (seed, round, role) and nothing else."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from pipeline.streams import stream


def test_a_stream_is_the_same_for_ever() -> None:
    # A stored ledger can be resumed only while this number stays what it is.
    assert stream(0, 1, "train") == 3654739496741691469


def test_streams_differ_by_seed_round_and_role() -> None:
    seeds = [stream(*w) for w in product(range(5), range(5), ["fit", "train", "propose"])]
    assert len(set(seeds)) == len(seeds)


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.text(max_size=20))
def test_a_stream_is_a_seed_that_torch_and_numpy_take(seed: int, number: int, role: str) -> None:
    assert 0 <= stream(seed, number, role) < 2**63


def test_fields_do_not_run_into_each_other() -> None:
    assert stream(1, 11, "x") != stream(11, 1, "x")

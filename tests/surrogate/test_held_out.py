import torch
from hypothesis import given
from hypothesis import strategies as st

from surrogate.held_out import balanced_rows, split
from surrogate.posterior import Observations

COUNTS = st.lists(st.integers(0, 300), min_size=1, max_size=4).filter(lambda c: sum(c) > 0)


def _of(counts: list[int]) -> torch.Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@given(COUNTS, st.integers(1, 200))
def test_rows_are_different_balanced_and_as_many_as_can_be(counts, n_rows):
    of = _of(counts)
    rows = balanced_rows(of, len(counts), n_rows, _generator())
    assert len(set(rows.tolist())) == len(rows)
    assert len(rows) == min(n_rows, len(of))
    taken = torch.bincount(of[rows], minlength=len(counts)).tolist()
    # Whoever got less than another by more than one had no more to give.
    assert all(t == c or t + 1 >= max(taken) for t, c in zip(taken, counts, strict=True))


@given(COUNTS)
def test_a_split_keeps_every_row_once_and_at_most_a_fifth_of_a_fidelity_judges(counts):
    of = _of(counts)
    x = torch.arange(len(of)).double()[:, None]
    seen = Observations(x, of, x[:, 0], torch.zeros(len(of)).double())
    judges, teachers = split(seen, len(counts), _generator())
    assert sorted([*judges.y.tolist(), *teachers.y.tolist()]) == x[:, 0].tolist()
    for j, count in enumerate(counts):
        assert int((judges.fidelities == j).sum()) <= count // 5

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sampler.rows import packed, rows_in, unique_rows

SMALL = st.integers(-3, 3)
HUGE = st.one_of(SMALL, st.sampled_from([2**63 - 1, -(2**63), 2**40, -(2**40)]))
REAL = st.floats(-2.0, 2.0, width=16)


def tables(element: st.SearchStrategy, max_width: int = 30) -> st.SearchStrategy:
    rows = st.integers(1, max_width).flatmap(
        lambda w: st.lists(st.lists(element, min_size=w, max_size=w), min_size=1, max_size=12)
    )
    # Some rows twice.
    return rows.flatmap(lambda table: st.permutations(table + table[: len(table) // 2]))


@given(st.one_of(tables(SMALL), tables(HUGE), tables(REAL)))
@settings(max_examples=150)
def test_codes_are_equal_and_ordered_as_the_rows_are(table: list[list[float]]) -> None:
    rows = torch.tensor(table, dtype=torch.float64 if isinstance(table[0][0], float) else None)
    coded = list(zip(table, packed(rows).tolist(), strict=True))
    assert all((x < y) == (a < b) for a, x in coded for b, y in coded)
    distinct, index = unique_rows(rows)
    assert distinct.tolist() == sorted({tuple(row): row for row in table}.values())
    assert torch.equal(distinct[index], rows)


def test_no_rows_and_no_columns() -> None:
    assert packed(torch.zeros(0, 3, dtype=torch.int64)).shape == (0,)
    assert packed(torch.zeros(3, 0, dtype=torch.int64)).tolist() == [0, 0, 0]
    distinct, index = unique_rows(torch.zeros(0, 3, dtype=torch.int64))
    assert (distinct.shape, index.shape) == ((0, 3), (0,))


def test_where_rows_are_known() -> None:
    known = torch.tensor([[3, 1], [0, 5], [2, 2]])
    assert rows_in(torch.tensor([[2, 2], [1, 3], [3, 1], [2, 2]]), known).tolist() == [2, -1, 0, 2]
    assert rows_in(known[:0], known).tolist() == []
    assert rows_in(known, known[:0]).tolist() == [-1, -1, -1]

"""A table answers what it holds, and says clearly what is wrong with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracles.oracle import NotRun
from oracles.tabulated import Tabulated


def table(path: Path, text: str, **options: Any) -> Tabulated:
    path.write_text(text)
    return Tabulated("f", 1, file=str(path), **options)


def values(oracle: Tabulated, candidates: list[Any]) -> list[float]:
    answers = oracle.query(candidates)
    assert all(isinstance(answer, dict) for answer in answers), answers
    return [answer["value"] for answer in answers if isinstance(answer, dict)]


@pytest.mark.parametrize(("suffix", "tab"), [(".csv", ","), (".tsv", "\t"), (".txt", "\t")])
def test_texts_by_any_separator(tmp_path: Path, suffix: str, tab: str) -> None:
    text = f"word{tab}score\nAC{tab}1\nNA{tab}-2.5e0\n007{tab}3\n"
    oracle = table(tmp_path / f"t{suffix}", text, candidate="word", value="score")
    assert values(oracle, ["007", "NA", "AC"]) == [3.0, -2.5, 1.0]


def test_vectors_by_their_columns(tmp_path: Path) -> None:
    oracle = table(tmp_path / "t.csv", "x,y,value\n0.1,2,5\n-0.0,3,6\n", candidate=["x", "y"])
    assert values(oracle, [np.array([0.1, 2.0]), [0, 3], (0.1 + 1e-12, 2)]) == [5.0, 6.0, 5.0]
    (answer,) = oracle.query([np.array([0.11, 2.0])])
    assert isinstance(answer, NotRun)


@pytest.mark.parametrize(
    ("candidates", "asked"),
    [(np.array(["AC", "GT"]), ["GT", "AC"]), (np.array([[0.0, 1], [2, 3]]), [[2, 3], [0, 1]])],
)
def test_arrays(tmp_path: Path, candidates: np.ndarray, asked: list[Any]) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, candidate=candidates, value=np.array([1.0, 2.0]))
    assert values(Tabulated("f", 1, file=str(path)), asked) == [2.0, 1.0]


def test_normalised_over_the_whole_table(tmp_path: Path) -> None:
    oracle = table(tmp_path / "t.csv", "candidate,value\na,-1\nb,3\nc,1\n", normalise=True)
    assert values(oracle, ["a", "b", "c"]) == [0.0, 1.0, 0.5]


def test_rows_without_a_value_and_repeated_ones(tmp_path: Path) -> None:
    oracle = table(tmp_path / "t.csv", "candidate,value\na,\nb,2\nb,2.0\nc,nan\n")
    missing, found, other = oracle.query(["a", "b", "c"])
    assert found == {"value": 2.0}
    assert isinstance(missing, NotRun)
    assert isinstance(other, NotRun)
    assert "`" not in str(missing)
    assert "not in the table: a" in str(missing)


def test_other_content_is_another_version(tmp_path: Path) -> None:
    before = table(tmp_path / "t.csv", "candidate,value\na,1\n").version
    assert table(tmp_path / "t.csv", "candidate,value\na,1\n").version == before
    assert table(tmp_path / "t.csv", "candidate,value\na,2\n").version != before


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("word,value\na,1\n", {}, "no `candidate`; it has word, value"),
        ("candidate,score\na,1\n", {}, "no `value`"),
        ("candidate,value\na,1\nb,good\n", {}, "line 3: expected a number in `value`, got 'good'"),
        ("x,y,value\n1,z,1\n", {"candidate": ["x", "y"]}, "line 2: expected a number in `y`"),
        ("candidate,value\na,1\na,2\n", {}, "a stands twice"),
        ("candidate,value\na,\n", {}, "no row has a value"),
        ("candidate,value\n", {}, "no row has a value"),
        ("", {}, "cannot be read"),
        ("candidate,value\na,1\nb,1\n", {"normalise": True}, "no range"),
    ],
)
def test_a_bad_table(tmp_path: Path, text: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        table(tmp_path / "t.csv", text, **options)


def test_a_bad_file(tmp_path: Path) -> None:
    (tmp_path / "t.npz").write_text("no arrays")
    np.savez(tmp_path / "s.npz", candidate=np.zeros((2, 2)), value=np.zeros(3))
    for name, told in [
        ("", "expected the path"),
        ("none.csv", "no such file"),
        ("t.npz", "cannot be read"),
        ("s.npz", r"\(2, 2\) and \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=told):
            Tabulated("f", 1, file=str(tmp_path / name) if name else "")
    (tmp_path / "t.xlsx").write_text("?")
    with pytest.raises(ValueError, match="csv"):
        Tabulated("f", 1, file=str(tmp_path / "t.xlsx"))

"""An oracle that looks its answers up in the user's table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oracles.oracle import Answer, NotRun

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
DIGITS = 9
"""Numbers of a vector are told apart by so many decimal places."""

Key = str | tuple[float, ...]


class Tabulated:
    """Looks a candidate's value up in a table: measured libraries, landscapes, published data.

    `file` (from the working directory) is a `.csv`, or a `.tsv` or `.txt` with tabs, whose columns
    have names; or a `.npz` with arrays of these names. `candidate` names the column of texts (a
    sequence, a SMILES), or several columns of numbers whose rows are vectors; in a `.npz` one
    array, of texts `(n,)` or of vectors `(n, d)`. `value` names the column of values, which
    answers call `value`. With `normalise` they are scaled to [0, 1] over the whole table. Rows
    without a value are left out; a candidate that stands twice with different values is refused.

    A candidate that is not in the table is a `NotRun` answer, refunded.
    """

    properties = ("value",)
    batch_size = 4096

    def __init__(
        self,
        fidelity: str,
        cost: float,
        file: str = "",
        candidate: str | list[str] = "candidate",
        value: str = "value",
        normalise: bool = False,
    ) -> None:
        if not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost must be a number >= 0, not {cost}")
        if not file:
            raise ValueError("file: expected the path of a .csv, .tsv, .txt or .npz file")
        columns = [candidate] if isinstance(candidate, str) else list(candidate)
        path = Path(file)
        keys, values = _read(path, columns, value)
        self.fidelity = fidelity
        self.cost = cost
        self.table = _table(path, keys, _scaled(path, values) if normalise else values)
        # Other content under the same name is another oracle.
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self.version = f"1 {digest} {columns} {value} {normalise}"

    def query(self, candidates: Sequence[Any]) -> list[Answer]:
        """`{"value": …}` of each candidate, in order, or a `NotRun` where the table has none."""
        return [self._answer(candidate) for candidate in candidates]

    def _answer(self, candidate: Any) -> Answer:
        key = _key(candidate)
        if isinstance(key, NotRun):
            return key
        value = self.table.get(key)
        return (
            NotRun(f"not in the table: {_shown(candidate)}") if value is None else {"value": value}
        )


def _key(candidate: Any) -> Key | NotRun:
    """What a candidate is looked up by: itself, or its rounded numbers."""
    if isinstance(candidate, str):
        return candidate
    try:
        vector = np.asarray(candidate, dtype=np.float64)
    except (TypeError, ValueError):
        return NotRun(f"expected a text or a vector, got {type(candidate).__name__}")
    if vector.ndim != 1:
        return NotRun(f"expected a text or a vector, got an array of shape {vector.shape}")
    return _rounded(vector)


def _rounded(vector: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple((vector.round(DIGITS) + 0.0).tolist())  # adding 0 makes -0 and 0 the same


def _shown(candidate: Any, limit: int = 60) -> str:
    text = " ".join(str(candidate).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _read(path: Path, columns: Sequence[str], value: str) -> tuple[list[Key], NDArray[np.float64]]:
    """Keys and values of every row that has a value; ValueError says what is wrong."""
    if not path.is_file():
        raise ValueError(f"file: {path}: no such file (from {Path.cwd()})")
    if path.suffix.lower() == ".npz":
        keys, numbers = _read_arrays(path, columns, value)
    elif path.suffix.lower() in SEPARATORS:
        keys, numbers = _read_text(path, columns, value)
    else:
        raise ValueError(f"file: {path}: expected a .csv, .tsv, .txt or .npz file")
    kept = np.isfinite(numbers)
    if not kept.any():
        raise ValueError(f"file: {path}: no row has a value in `{value}`")
    return [key for key, is_kept in zip(keys, kept, strict=True) if is_kept], numbers[kept]


def _read_text(
    path: Path, columns: Sequence[str], value: str
) -> tuple[list[Key], NDArray[np.float64]]:
    try:
        # Text as it stands: pandas would take a candidate called `NA` for a gap.
        table = pd.read_csv(
            path, sep=SEPARATORS[path.suffix.lower()], dtype=str, keep_default_na=False
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"file: {path}: cannot be read: {' '.join(str(error).split())}") from None
    _check_names(path, table, [*columns, value])
    numbers = _numbers(path, table[value], value)
    if len(columns) == 1:
        return table[columns[0]].tolist(), numbers
    vectors = np.column_stack([_numbers(path, table[name], name) for name in columns])
    return [_rounded(vector) for vector in vectors], numbers


def _read_arrays(
    path: Path, columns: Sequence[str], value: str
) -> tuple[list[Key], NDArray[np.float64]]:
    try:
        with np.load(path, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in opened.files}
    except (OSError, ValueError) as error:
        raise ValueError(f"file: {path}: cannot be read: {' '.join(str(error).split())}") from None
    _check_names(path, arrays, [*columns, value])
    if len(columns) > 1:
        raise ValueError(f"candidate: expected the name of one array of {path}, got {columns}")
    candidates, numbers = arrays[columns[0]], np.asarray(arrays[value], dtype=np.float64)
    if numbers.ndim != 1 or len(candidates) != len(numbers) or candidates.ndim not in (1, 2):
        raise ValueError(
            f"file: {path}: expected `{columns[0]}` (n,) or (n, d) and `{value}` (n,), got "
            f"{candidates.shape} and {numbers.shape}"
        )
    if candidates.ndim == 1:
        return [str(text) for text in candidates.tolist()], numbers
    return [_rounded(vector) for vector in candidates.astype(np.float64)], numbers


def _check_names(
    path: Path, found: Mapping[str, Any] | pd.DataFrame, wanted: Sequence[str]
) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"file: {path}: has no `{missing[0]}`; it has {', '.join(map(str, found))}; name the "
            "right ones by `candidate` and `value`"
        )


def _numbers(path: Path, column: pd.Series[str], name: str) -> NDArray[np.float64]:
    """Numbers of a column, NaN where it is empty; ValueError names the first line that is none."""
    texts = column.str.strip()
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.isnan(numbers) & ~texts.str.lower().isin(["", "nan", "na"]).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"file: {path} line {row + 2}: expected a number in `{name}`, got {texts.iloc[row]!r}"
        )
    return numbers


def _scaled(path: Path, values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = values.min(), values.max()
    if not high > low:
        raise ValueError(f"normalise: {path}: every value is {low:g}, there is no range to scale")
    scaled: NDArray[np.float64] = (values - low) / (high - low)
    return scaled


def _table(path: Path, keys: Sequence[Key], values: NDArray[np.float64]) -> dict[Key, float]:
    table: dict[Key, float] = {}
    for key, value in zip(keys, values.tolist(), strict=True):
        if table.setdefault(key, value) != value:
            raise ValueError(f"file: {path}: {_shown(key)} stands twice with different values")
    return table

"""The user's table: candidates, or structure files beside it, with or without known values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from pipeline.assemble import Parts
from pipeline.config import ConfigError
from pipeline.structures import Given, read_structures
from pipeline.structures_inside import inside


@dataclass(frozen=True)
class Rows:
    """Terminal states `(n, w)`, their fidelities by number, and values where they are known."""

    states: Tensor
    fidelities: list[int]
    values: list[float] | None
    notes: tuple[str, ...] = ()


def read_rows(path: Path, parts: Parts) -> Rows:
    """A CSV of candidate, fidelity, value, or of file[, value][, fidelity].

    In the second form `file` is a CIF or JSON of one structure, by its path from the table; the
    fidelity is the target unless said; without the column `value` the structures are asked.
    ConfigError names each bad line.
    """
    try:
        # Text as it stands: pandas would take a candidate called `NA` or `None` for a gap.
        text = {"candidate": str, "fidelity": str, "file": str}
        table = pd.read_csv(path, dtype=text, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ConfigError([f"initial.file: {path} cannot be read: {error}"]) from None
    of_files = "file" in table and "candidate" not in table
    missing = (set() if of_files else {"candidate", "fidelity", "value"}) - set(table.columns)
    if missing or table.empty:
        raise ConfigError(
            [
                f"initial.file: {path}: expected rows of candidate, fidelity, value, or of file, "
                "value and perhaps fidelity; "
                f"{'missing: ' + ', '.join(sorted(missing)) if missing else 'it has no rows'}"
            ]
        )
    return _structure_rows(table, path, parts) if of_files else _known_rows(table, path, parts)


def _known_rows(table: pd.DataFrame, path: Path, parts: Parts) -> Rows:
    problems = []
    for i, row in table.iterrows():
        problems += _cell_problems(_line(path, i), row, parts)
        try:
            parts.environment.from_keys([row["candidate"]])
        except ValueError as error:
            problems.append(f"{_line(path, i)}: {error}")
    problems += _repeated(table, table["candidate"].tolist(), path)
    if parts.config.initial.outside == "skip":
        problems.append("initial.outside: `skip` is for structures, not for a table of candidates")
    if problems:
        raise ConfigError(problems)
    fidelities = [parts.fidelities.index(f) for f in table["fidelity"]]
    states = parts.environment.from_keys(table["candidate"].tolist())
    return Rows(states, fidelities, table["value"].astype(float).tolist())


def _structure_rows(table: pd.DataFrame, path: Path, parts: Parts) -> Rows:
    if "fidelity" not in table:
        table = table.assign(fidelity=parts.fidelities[-1])
    given, problems = list[Given](), list[str]()
    for i, row in table.iterrows():
        problems += _cell_problems(_line(path, i), row, parts)
        try:
            given.append(_one_structure(path.parent / row["file"], row["file"]))
        except ValueError as error:
            problems += [f"{_line(path, i)}: {line}" for line in str(error).split("\n")]
    if problems:
        raise ConfigError(problems)
    kept = inside(given, path, parts)
    rows = table.iloc[kept.numbers]
    problems = _repeated(rows, parts.environment.keys(kept.states), path)
    if problems:
        raise ConfigError(problems)
    fidelities = [parts.fidelities.index(f) for f in rows["fidelity"]]
    values = rows["value"].astype(float).tolist() if "value" in rows else None
    return Rows(kept.states, fidelities, values, kept.notes)


def _one_structure(path: Path, name: str) -> Given:
    found = read_structures(path)
    if len(found) != 1 or path.is_dir():
        raise ValueError(f"{path}: expected a file of one structure, found {len(found)}")
    return Given(name, found[0].structure)


def _line(path: Path, index: Any) -> str:
    return f"initial.file: {path} line {int(index) + 2}"


def _cell_problems(where: str, row: Any, parts: Parts) -> list[str]:
    problems = []
    if row["fidelity"] not in parts.fidelities:
        known = ", ".join(parts.fidelities)
        problems.append(f"{where}: no oracle has the fidelity `{row['fidelity']}`; known: {known}")
    if "value" in row and not abs(pd.to_numeric(row["value"], errors="coerce")) < float("inf"):
        problems.append(f"{where}: expected a finite value, got {row['value']!r}")
    return problems


def _repeated(table: pd.DataFrame, candidates: list[str], path: Path) -> list[str]:
    told = pd.DataFrame({"candidate": candidates, "fidelity": table["fidelity"].tolist()})
    again = told.duplicated().tolist()
    return [
        f"{_line(path, index)}: `{candidate}` stands there again at `{fidelity}`; keep one value"
        for index, candidate, fidelity, is_again in zip(
            table.index, candidates, table["fidelity"], again, strict=True
        )
        if is_again
    ]

"""The user's own crystal structures, read from CIF and pymatgen's JSON files."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

EXPECTED = "a .csv, a .cif, a .json of structures, or a folder of .cif files"


@dataclass(frozen=True)
class Given:
    """One structure, and where it stands: `NaCl.cif`, `all.json, entry 3`."""

    name: str
    structure: Structure


def read_structures(path: Path) -> list[Given]:
    """Every structure of a file, or of the `.cif` files of a folder by name.

    A CIF may hold several, each read as the cell that it gives; JSON holds what
    `Structure.as_dict()` returns, one or a list. ValueError is one line for each file that cannot
    be read, or says that nothing is there.
    """
    if not path.is_dir():
        return _read(path)
    found, problems = list[Given](), list[str]()
    for file in sorted(path.glob("*.cif")):
        try:
            found += _read(file)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    if not found:
        raise ValueError(f"{path}: expected {EXPECTED}, found a folder without .cif files")
    return found


def _read(path: Path) -> list[Given]:
    readers = {".cif": _read_cif, ".json": _read_json}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: expected {EXPECTED}")
    try:
        structures = readers[path.suffix.lower()](path)
    # The parser's complaint, of whatever class, is about the user's file.
    except Exception as error:
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read: {reason}") from None
    if not structures:
        raise ValueError(f"{path}: expected at least one structure, found none")
    if len(structures) == 1:
        return [Given(path.name, structures[0])]
    return [Given(f"{path.name}, entry {i + 1}", s) for i, s in enumerate(structures)]


def _read_cif(path: Path) -> list[Structure]:
    from pymatgen.io.cif import CifParser

    # Block by block: the parser leaves out what it cannot read, and of equal names all but one.
    blocks = re.split(r"^(?=data_)", path.read_text(encoding="utf-8"), flags=re.M | re.I)
    with warnings.catch_warnings():
        # It warns of each rounded coordinate.
        warnings.simplefilter("ignore")
        return [
            structure
            for block in blocks
            if "_cell_length_a" in block
            for structure in CifParser.from_str(block).parse_structures(
                primitive=False, on_error="raise"
            )
        ]


def _read_json(path: Path) -> list[Structure]:
    from pymatgen.core.structure import Structure

    data: Any = json.loads(path.read_text(encoding="utf-8"))
    entries = data if isinstance(data, list) else [data]
    if not all(isinstance(entry, dict) and "lattice" in entry for entry in entries):
        raise ValueError("expected what Structure.as_dict() returns, or a list of that")
    return [Structure.from_dict(entry) for entry in entries]

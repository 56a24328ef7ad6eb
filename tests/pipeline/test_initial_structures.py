"""A campaign that starts from the user's own structures, with and without known values."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from torch import Tensor

from pipeline import Campaign
from pipeline.config import ConfigError, parse
from pipeline.progress import Progress
from pipeline.structures import read_structures
from tests.fakes import Menu, menu_config, price

CELLS = "tests.pipeline.test_initial_structures:Cells"


class Cells(Menu):
    """The menu as rock-salt cells: item i has a lattice constant of 4 + i / 10 Å."""

    def encode(self, candidates: Sequence[Any]) -> Tensor:
        items = [round(10 * (candidate.lattice.a - 4)) for candidate in candidates]
        for item in items:
            if not 0 <= item < self.n_actions:
                raise ValueError(f"expected a cell of 4 to 7.9 Å, got {4 + item / 10:g}")
        return super().encode(items)


def cell(a: float) -> Structure:
    faces = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    others = [[x, y, z + 0.5] for x, y, z in faces]
    return Structure(Lattice.cubic(a), ["Na"] * 4 + ["Cl"] * 4, faces + others, to_unit_cell=True)


def write_cifs(folder: Path, **cells: float) -> Path:
    folder.mkdir(exist_ok=True)
    for name, a in cells.items():
        CifWriter(cell(a)).write_file(folder / f"{name}.cif")
    return folder


def config(**initial: Any) -> dict[str, Any]:
    space = {"kind": CELLS, "n_items": 40}
    return menu_config(space=space, initial=initial, budget={"cost": 9, "rounds": 1})


def opened(folder: Path, **initial: Any) -> Campaign:
    (folder / "c.yaml").write_text(yaml.safe_dump(config(**initial)))
    return Campaign.from_config(folder / "c.yaml", folder / "run")


def first_round(folder: Path, **initial: Any) -> pd.DataFrame:
    with opened(folder, **initial) as campaign:
        campaign.run()
        frame = campaign.ledger.to_frame()
    assert (frame["round"] == 1).any()
    return frame[frame["round"] == 0]


def refused(folder: Path, **initial: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        opened(folder, **initial)
    assert not (folder / "run").exists()
    return caught.value.problems


class Notes(Progress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def as_folder(path: Path) -> str:
    return write_cifs(path / "mine", a=4.3, b=5.1).name


def as_json(path: Path) -> str:
    (path / "mine.json").write_text(json.dumps([cell(4.3).as_dict(), cell(5.1).as_dict()]))
    return "mine.json"


def as_one_cif(path: Path) -> str:
    write_cifs(path, a=4.3, b=5.1)
    (path / "mine.cif").write_text((path / "a.cif").read_text() + (path / "b.cif").read_text())
    return "mine.cif"


FORMS = pytest.mark.parametrize("write", [as_folder, as_json, as_one_cif])


@FORMS
def test_structures_are_asked_at_the_target_and_paid_for(
    tmp_path: Path, write: Callable[[Path], str]
) -> None:
    name = write(tmp_path)
    frame = first_round(tmp_path, file=name)
    assert list(frame["candidate"]) == ["item 3", "item 11"]
    assert set(frame["fidelity"]) == {"target"}
    assert frame["value"].tolist() == [price(3), price(11)]
    assert (frame["actual_cost"] == 1).all()
    assert frame["reason"].iloc[0] == {"why": f"given, from {name}"}


@FORMS
def test_what_is_read_is_what_was_written(tmp_path: Path, write: Callable[[Path], str]) -> None:
    found = read_structures(tmp_path / write(tmp_path))
    for given, a in zip(found, [4.3, 5.1], strict=True):
        assert given.structure.composition == cell(a).composition  # the cell that the file gives
        assert given.structure.lattice.a == pytest.approx(a)


def test_n_says_how_many_and_random_candidates_fill_up(tmp_path: Path) -> None:
    write_cifs(tmp_path / "mine", a=4.3, b=5.1, c=6.0)
    frame = first_round(tmp_path, file="mine", n={"low": 5, "target": 2})
    low, target = (frame[frame["fidelity"] == f] for f in ("low", "target"))
    assert list(low["candidate"])[:3] == ["item 3", "item 11", "item 20"]
    assert low["candidate"].nunique() == 5
    assert list(target["candidate"]) == ["item 3", "item 11"]
    whys = [reason["why"] for reason in low["reason"]]
    assert whys == ["given, from mine"] * 3 + ["initial design"] * 2


def test_known_values_beside_the_structures_cost_nothing(tmp_path: Path) -> None:
    write_cifs(tmp_path / "mine", a=4.3, b=5.1)
    table = "file,value,fidelity\na.cif,0.25,target\na.cif,0.5,low\nb.cif,-1,low\n"
    (tmp_path / "mine" / "values.csv").write_text(table)
    frame = first_round(tmp_path, file="mine/values.csv")
    assert list(frame["candidate"]) == ["item 3", "item 3", "item 11"]
    assert list(frame["fidelity"]) == ["target", "low", "low"]
    assert list(frame["value"]) == [0.25, 0.5, -1.0]
    assert (frame["actual_cost"] == 0).all()


def test_values_are_the_targets_unless_said_and_without_them_structures_are_asked(
    tmp_path: Path,
) -> None:
    write_cifs(tmp_path, a=4.3, b=5.1)
    (tmp_path / "known.csv").write_text("file,value\na.cif,0.25\n")
    assert list(first_round(tmp_path, file="known.csv")["fidelity"]) == ["target"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "ask.csv").write_text("file,fidelity\n../a.cif,low\n../b.cif,target\n")
    frame = first_round(other, file="ask.csv")
    assert frame["actual_cost"].tolist() == [0.1, 1.0]
    assert frame["value"].iloc[1] == price(11)


def test_the_same_candidate_is_asked_once_and_said(tmp_path: Path) -> None:
    write_cifs(tmp_path / "mine", a=4.3, b=4.301, c=5.0)
    with opened(tmp_path, file="mine") as campaign:
        campaign.progress = Notes()
        campaign.step()
        assert len(campaign.ledger.to_frame()) == 2
        assert "1 are the same candidate" in campaign.progress.told[0]


def test_a_structure_outside_is_refused_with_its_file_and_reason(tmp_path: Path) -> None:
    write_cifs(tmp_path / "mine", a=4.3, huge=40.0)
    (line,) = refused(tmp_path, file="mine")
    assert line.startswith("initial.file: ")
    for word in ("mine", "huge.cif", "expected a cell of 4 to 7.9", "outside: skip"):
        assert word in line


def test_structures_outside_are_skipped_on_request_and_said(tmp_path: Path) -> None:
    write_cifs(tmp_path / "mine", a=4.3, huge=40.0, vast=50.0)
    with opened(tmp_path, file="mine", outside="skip") as campaign:
        campaign.progress = Notes()
        campaign.step()
        assert list(campaign.ledger.to_frame()["candidate"]) == ["item 3"]
        (line,) = campaign.progress.told
    for word in ("2 of 3", "huge.cif", "vast.cif", "got 40"):
        assert word in line
    notes = json.loads((tmp_path / "run/rounds/000/decision.json").read_text())
    assert notes["initial"] == [line]


def test_skipped_rows_take_their_values_with_them(tmp_path: Path) -> None:
    write_cifs(tmp_path, a=4.3, huge=40.0, b=5.1)
    (tmp_path / "v.csv").write_text("file,value\na.cif,1\nhuge.cif,2\nb.cif,3\n")
    frame = first_round(tmp_path, file="v.csv", outside="skip")
    assert list(zip(frame["candidate"], frame["value"], strict=True)) == [
        ("item 3", 1.0),
        ("item 11", 3.0),
    ]


def test_many_outside_are_counted_and_none_left_is_refused(tmp_path: Path) -> None:
    write_cifs(tmp_path / "mine", **{f"c{i}": 40.0 + i for i in range(8)})
    lines = refused(tmp_path, file="mine", outside="skip")
    assert len(lines) == 6
    assert "and 3 more" in lines[-1]


def spoil_cif(path: Path) -> str:
    write_cifs(path / "mine", a=4.3)
    (path / "mine" / "bad.cif").write_text("data_\n_cell_length_a much\n")
    return "mine"


def write(name: str, text: str) -> Callable[[Path], str]:
    def written(path: Path) -> str:
        write_cifs(path, a=4.3, b=5.1)
        (path / name).write_text(text)
        return name

    return written


BAD: dict[str, tuple[Callable[[Path], str], list[str]]] = {
    "nothing there": (lambda _: "none.cif", ["none.cif", "cannot be read"]),
    "no folder": (lambda _: "none", ["none", "expected a .csv, a .cif"]),
    "a folder without": (lambda path: write_cifs(path / "mine").name, ["without .cif"]),
    "a spoilt cif": (spoil_cif, ["bad.cif", "cannot be read"]),
    "a cif without a cell": (write("c.cif", "data_\n_a 1\n"), ["c.cif", "found none"]),
    "no json": (write("s.json", "{"), ["s.json", "cannot be read"]),
    "other json": (write("s.json", '[{"a": 1}]'), ["s.json", "as_dict"]),
    "empty json": (write("s.json", "[]"), ["s.json", "found none"]),
    "other ending": (write("s.txt", "x"), ["s.txt", "expected a .csv"]),
    "a missing file": (write("v.csv", "file,value\nc.cif,1"), ["line 2", "c.cif"]),
    "no value": (write("v.csv", "file,value\na.cif,1\nb.cif,"), ["line 3", "finite value"]),
    "no such fidelity": (write("v.csv", "file,fidelity\na.cif,lwo"), ["line 2", "`lwo`"]),
    "twice": (write("v.csv", "file,value\na.cif,1\na.cif,2"), ["line 3", "again"]),
    "a folder in a row": (write("v.csv", "file,value\n.,1"), ["line 2", "one structure"]),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_file_is_one_line_before_anything_is_written(tmp_path: Path, name: str) -> None:
    make, words = BAD[name]
    (line,) = refused(tmp_path, file=make(tmp_path))
    assert line.startswith("initial.file: ")
    assert all(word in line for word in words), line


def test_more_structures_than_money_is_refused(tmp_path: Path) -> None:
    write_cifs(tmp_path / "mine", a=4.3, b=5.1)
    made = config(file="mine") | {"budget": {"cost": 1.5, "rounds": 1}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(ConfigError) as caught:
        Campaign.from_config(tmp_path / "c.yaml", tmp_path / "run")
    (line,) = caught.value.problems
    for word in ("2 queries", "costs 2", "budget.cost 1.5", "initial.n"):
        assert word in line


def test_structures_are_not_candidates_of_a_space_of_vectors(tmp_path: Path) -> None:
    write_cifs(tmp_path, a=4.3)
    grid = {"kind": "hyper_grid", "n_dims": 2, "length": 5}
    made = config(file="a.cif") | {"space": grid}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(ConfigError, match=r"a\.cif: outside the space"):
        Campaign.from_config(tmp_path / "c.yaml", tmp_path / "run")


@pytest.mark.parametrize(
    ("initial", "words"),
    [
        ({"n": {"low": 2}, "outside": "skip"}, "only beside a `file`"),
        ({"file": "a.cif", "outside": "drop"}, "initial.outside"),
        ({"file": "a.csv", "n": {"low": 1}}, "expected either"),
    ],
    ids=["skip without a file", "another word", "n beside a table"],
)
def test_a_wrong_section_is_one_line(initial: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(config(**initial))
    (line,) = caught.value.problems
    assert words in line

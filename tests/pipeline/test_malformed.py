"""Malformed campaigns through the command line: one line an error, exit 2, nothing written."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from pipeline import Campaign
from tests.fakes import branin_config

PLUGINS = {
    "raises_lab.py": "raise RuntimeError('no license\\nfound')",
    "needs_lab.py": "import a_library_that_is_missing",
    "half_lab.py": "class NoQuery:\n    fidelity = 'target'\n    cost = 1.0\n"
    "class Silent:\n    def __init__(self): raise OSError('no such device')\n",
}
TABLES = {
    "bad.csv": "candidate,fidelity,value\n3;4,low,1\n1,1,tagret,2\n",
    "rows.csv": 'candidate,fidelity,value\n"3,40",low,1\n"1,1",tagret,nan\n',
    "columns.csv": "x,y\n1,2\n",
    "empty.csv": "candidate,fidelity,value\n",
}


def change(*path: str | int, to: Any) -> Callable[[], dict[str, Any]]:
    """The small campaign with one value changed."""

    def made() -> dict[str, Any]:
        config = branin_config()
        inner: Any = config
        for step in path[:-1]:
            inner = inner.setdefault(step, {}) if isinstance(inner, dict) else inner[step]
        inner[path[-1]] = to
        return config

    return made


def without(*path: str) -> Callable[[], dict[str, Any]]:
    def made() -> dict[str, Any]:
        config = branin_config()
        inner = config
        for step in path[:-1]:
            inner = inner[step]
        del inner[path[-1]]
        return config

    return made


LOW, TARGET = branin_config()["oracles"]
CRYSTAL = {"kind": "crystal", "space_groups": [225]}

CONFIGS: dict[str, tuple[Callable[[], dict[str, Any]], list[list[str]]]] = {
    # name: the config, and for each line that is expected the words in it
    "wrong type": (change("budget", "rounds", to="many"), [["budget.rounds", "integer", "many"]]),
    "a list for a section": (change("budget", to=[1]), [["budget", "[1]"]]),
    "text for a component": (change("space", to="grid"), [["space", "'grid'"]]),
    "unknown key": (change("budgett", to={}), [["budgett", "did you mean `budget`?"]]),
    "unknown nested key": (
        change("selection", "batch_sise", to=3),
        [["selection.batch_sise", "did you mean `batch_size`?"]],
    ),
    "unknown option": (
        change("space", "lenght", to=3),
        [["space.lenght", "did you mean `length`?"]],
    ),
    "unknown oracle option": (
        change("oracles", 0, "biass", to=3),
        [["oracles.0.biass", "did you mean `bias`?"]],
    ),
    "missing option": (without("space", "length"), [["space.length", "missing"]]),
    "missing section": (without("objective"), [["objective", "missing"]]),
    "missing kind": (without("space", "kind"), [["space.kind", "missing"]]),
    "wrong option": (change("space", "length", to="long"), [["space.length", "integer", "long"]]),
    "yes for a number": (change("budget", "cost", to=True), [["budget.cost", "boolean True"]]),
    "yes for an option": (
        change("space", "length", to=True),
        [["space.length", "boolean True"]],
    ),
    "misspelt space": (change("space", "kind", to="hypergrid"), [["space.kind", "`hyper_grid`?"]]),
    "misspelt oracle": (
        change("oracles", 1, "kind", to="brannin"),
        [["oracles.1.kind", "`branin`?"]],
    ),
    "misspelt surrogate": (
        change("surrogate", to={"kind": "multi_fidelity_pg"}),
        [["surrogate.kind", "`multi_fidelity_gp`?"]],
    ),
    "misspelt acquisition": (
        change("acquisition", to={"kind": "mf_gibon"}),
        [["acquisition.kind", "`mf_gibbon`?"]],
    ),
    "misspelt sampler": (
        change("sampler", to={"kind": "gflownets"}),
        [["sampler.kind", "`gflownet`?"]],
    ),
    "misspelt loss": (
        change("sampler", "loss", to="trajectory_ballance"),
        [["sampler", "trajectory_balance"]],
    ),
    "misspelt goal": (change("objective", "goal", to="minimise"), [["objective.goal", "minimize"]]),
    "misspelt tracking": (change("tracking", to={"kind": "mlflo"}), [["tracking.kind", "mlflow"]]),
    "negative cost": (change("oracles", 0, "cost", to=-1), [["oracles.0", "cost", "-1"]]),
    "zero cost": (change("oracles", 0, "cost", to=0), [["oracles.0.cost", "greater than 0"]]),
    "cost that is not a number": (
        change("oracles", 1, "cost", to=float("nan")),
        [["oracles.1", "cost", "nan"]],
    ),
    "endless cost": (change("oracles", 1, "cost", to=float("inf")), [["oracles.1", "inf"]]),
    "empty ladder": (change("oracles", to=[]), [["oracles", "at least 1"]]),
    "ladder out of order": (
        change("oracles", to=[TARGET, LOW]),
        [["oracles", "cheapest first", "target 1, low 0.1"]],
    ),
    "a fidelity twice": (
        change("oracles", 1, "fidelity", to="low"),
        [["oracles.1.fidelity", "`low` stands twice"], ["initial.n.target", "known: low"]],
    ),
    "an empty fidelity": (change("oracles", 0, "fidelity", to=""), [["oracles.0.fidelity"]]),
    "budget below one target query": (
        change("budget", "cost", to=0.5),
        [["budget.cost", "`target`", "raise it"], ["initial.n", "2.6"]],
    ),
    "initial design above the budget": (
        change("initial", to={"n": {"low": 20, "target": 7}}),
        [["initial.n", "costs 9", "budget.cost 8"]],
    ),
    "unknown fidelity": (
        change("initial", to={"n": {"low": 2, "tagret": 1}}),
        [["initial.n.tagret", "did you mean `target`?"]],
    ),
    "no initial design": (change("initial", to={}), [["initial", "`n`", "`file`"]]),
    "impossible grid": (change("space", "length", to=0), [["space", "length", "got 0"]]),
    "impossible bounds": (
        change("space", "bounds", to=[[0, 0], [0, 1]]),
        [["space", "low < high"]],
    ),
    "impossible crystals": (
        change("space", to=CRYSTAL | {"elements": ["Na", "K"], "n_elements": [1, 2]}),
        [["space: "]],
    ),
    "no such element": (change("space", to=CRYSTAL | {"elements": ["Qq", "O"]}), [["space: "]]),
    "impossible sampler": (change("sampler", "hidden", to=[]), [["sampler", "hidden"]]),
    "impossible surrogate": (change("surrogate", "n_starts", to=0), [["surrogate", "n_starts"]]),
    "impossible name": (change("name", to="../elsewhere"), [["name", "../elsewhere"]]),
    "negative seed": (change("seed", to=-1), [["seed", "greater than or equal to 0"]]),
    "plug-in not there": (
        change("oracles", 1, "kind", to="my_lab:Precise"),
        [["oracles.1.kind", "my_lab", "beside the config"]],
    ),
    "plug-in that raises": (
        change("oracles", 1, "kind", to="raises_lab:Precise"),
        [["oracles.1.kind", "RuntimeError: no license found"]],
    ),
    "plug-in that needs more": (
        change("space", "kind", to="needs_lab:Space"),
        [["space.kind", "a_library_that_is_missing"]],
    ),
    "plug-in without the class": (
        change("oracles", 1, "kind", to="half_lab:NoQuerry"),
        [["oracles.1.kind", "did you mean `NoQuery`?"]],
    ),
    "plug-in without query": (
        change("oracles", 1, to={"kind": "half_lab:NoQuery"}),
        [["oracles.1", "query(candidates)"]],
    ),
    "plug-in that cannot be made": (
        change("oracles", 1, to={"kind": "half_lab:Silent"}),
        [["oracles.1", "OSError: no such device"]],
    ),
    "a property that the target does not answer": (
        change("objective", "property", to="valeu"),
        [["objective.property", "`valeu`", "did you mean `value`?"]],
    ),
    "table not there": (change("initial", to={"file": "no.csv"}), [["initial.file", "no.csv"]]),
    "table with other columns": (
        change("initial", to={"file": "columns.csv"}),
        [["initial.file", "missing: candidate, fidelity, value"]],
    ),
    "table without rows": (change("initial", to={"file": "empty.csv"}), [["no rows"]]),
    "table with bad rows": (
        change("initial", to={"file": "rows.csv"}),
        [["line 2", "3,40"], ["line 3", "tagret"], ["line 3", "finite value"]],
    ),
    "table that is not one": (change("initial", to={"file": "bad.csv"}), [["bad.csv"]]),
    "many at once": (
        lambda: branin_config(
            seed=-1,
            nam="x",
            objective={"goal": "up"},
            budget={"cost": "much", "rounds": 0},
            tracking={"kind": "wandb"},
        ),
        [["seed"], ["nam", "`name`"], ["goal"], ["budget.cost"], ["budget.rounds"], ["tracking"]],
    ),
    "many options at once": (
        lambda: branin_config(
            space={"kind": "hyper_grid", "n_dims": "two", "length": 10, "colour": 1},
            oracles=[LOW | {"bias": "much"}, {"kind": "brannin"}],
            sampler={"kind": "gflownet", "hiden": [8]},
        ),
        [
            ["space.n_dims"],
            ["space.colour"],
            ["oracles.0.bias"],
            ["oracles.1.kind"],
            ["sampler.hiden", "`hidden`?"],
        ],
    ),
}

TEXTS = {
    "bad yaml": ("name: [x", ["not valid YAML", "line"]),
    "a tab": ("name: x\n\tseed: 1", ["not valid YAML", "line 2"]),
    "a key twice": ("name: x\nname: y", ["`name` stands twice", "line 2"]),
    "an empty file": ("", ["expected a mapping", "nothing"]),
    "a list": ("- name: x", ["expected a mapping", "a list"]),
    "a python object": ("name: !!python/name:os.system", ["not valid YAML"]),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {**PLUGINS, **TABLES}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


def refused(folder: Path, *arguments: str) -> list[str]:
    """The lines of a command that must exit 2, complain line by line and write nothing."""
    before = snapshot(folder)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2, (result.output, result.exception)
    assert snapshot(folder) == before
    lines = result.stderr.splitlines()
    assert lines
    assert all(line.startswith("error: ") for line in lines), lines
    assert "Traceback" not in result.output
    return lines


def check(lines: list[str], expected: list[list[str]]) -> None:
    assert len(lines) == len(expected), lines
    for words in expected:
        assert any(all(word in line for word in words) for line in lines), (words, lines)


@pytest.mark.parametrize("command", ["run", "validate"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_malformed_config(folder: Path, name: str, command: str) -> None:
    make, expected = CONFIGS[name]
    (folder / "c.yaml").write_text(yaml.safe_dump(make(), sort_keys=False))
    check(refused(folder, command, "c.yaml"), expected)


@pytest.mark.parametrize("command", ["run", "validate"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_is_no_config(folder: Path, name: str, command: str) -> None:
    text, words = TEXTS[name]
    (folder / "c.yaml").write_text(text)
    check(refused(folder, command, "c.yaml"), [["c.yaml", *words]])


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_missing_file(folder: Path, command: str) -> None:
    (folder / "branin.yaml").write_text(yaml.safe_dump(branin_config()))
    lines = refused(folder, command, "brannin.yaml")
    check(lines, [["brannin.yaml", "no such file", "did you mean `branin.yaml`?"]])


@pytest.mark.parametrize("command", ["run", "validate"])
@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("budget.cost", "expected key=value"),
        ("budget.cost=-3", "greater than 0"),
        ("oracles.7.cost=3", "expected an index below 2"),
        ("budgett.cost=3", "did you mean `budget`?"),
    ],
)
def test_a_bad_override(folder: Path, command: str, assignment: str, words: str) -> None:
    (folder / "c.yaml").write_text(yaml.safe_dump(branin_config()))
    check(refused(folder, command, "c.yaml", assignment), [[words]])


def test_the_same_name_with_a_changed_config(folder: Path) -> None:
    (folder / "c.yaml").write_text(yaml.safe_dump(branin_config()))
    Campaign.from_config("c.yaml").close()
    lines = refused(folder, "run", "c.yaml", "seed=4", "selection.batch_size=9")
    check(lines, [["runs/small", "another config", "seed was 0, is 4", "batch_size was 4, is 9"]])


def test_a_directory_that_is_someone_elses(folder: Path) -> None:
    (folder / "c.yaml").write_text(yaml.safe_dump(branin_config()))
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("precious")
    lines = refused(folder, "run", "c.yaml", "--dir", "thesis")
    check(lines, [["thesis", "not empty", "chapter.tex", "--dir"]])
    lines = refused(folder, "run", "c.yaml", "--dir", "columns.csv")
    check(lines, [["columns.csv", "found a file", "--dir"]])


@pytest.mark.parametrize("verb", ["status", "export", "report", "resume"])
def test_a_directory_without_a_campaign(folder: Path, verb: str) -> None:
    more = ["--out", "table.csv"] if verb == "export" else []
    check(refused(folder, verb, "nowhere", *more), [["nowhere", "no campaign here"]])


def test_a_spoilt_ledger(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "ledger.sqlite").write_bytes(b"scribble" * 1000)
    (folder / "c.yaml").write_text(yaml.safe_dump(branin_config()))
    for arguments in (["run", "c.yaml", "--dir", "run"], ["status", "run"], ["resume", "run"]):
        check(refused(folder, *arguments), [["run/ledger.sqlite", "not a readable ledger"]])


def test_the_small_campaign_itself_is_well_formed(folder: Path) -> None:
    (folder / "c.yaml").write_text(yaml.safe_dump(branin_config()))
    before = snapshot(folder)
    result = CliRunner().invoke(app, ["validate", "c.yaml"])
    assert result.exit_code == 0, result.output
    assert "costs at most" in result.stdout
    assert snapshot(folder) == before


def test_each_case_is_a_case_of_its_own() -> None:
    texts = [yaml.safe_dump(make()) for make, _ in copy.copy(CONFIGS).values()]
    assert len(set(texts)) == len(texts) >= 22
    assert yaml.safe_dump(branin_config()) not in texts


def test_the_real_command_in_the_users_folder(folder: Path) -> None:
    (folder / "yaml.py").write_text("raise SystemExit('shadowed')")
    make, expected = CONFIGS["many at once"]
    (folder / "c.yaml").write_text(yaml.safe_dump(make(), sort_keys=False))
    before = snapshot(folder)
    command = [sys.executable, "-B", "-P", "-m", "flows", "run", "c.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines), lines
    check(lines, expected)
    assert snapshot(folder) == before

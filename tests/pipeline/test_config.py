"""The schema: what it accepts, and that every error comes at once with its remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import ConfigError, did_you_mean, override, parse, read_yaml
from tests.fakes import branin_config


def problems(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(branin_config(**changes))
    return caught.value.problems


def yaml_problem(folder: Path, text: str) -> str:
    path = folder / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    (line,) = caught.value.problems
    return line


def test_the_smallest_config_gets_its_defaults() -> None:
    config = parse(branin_config(surrogate=None, sampler=None, selection=None, tracking=None))
    assert config.surrogate.kind == "auto"
    assert config.acquisition.kind == "log_ei"
    assert config.sampler.kind == "gflownet"
    assert config.selection.batch_size == 8
    assert config.execution.attempts == 2
    assert config.tracking.kind == "mlflow"
    assert config.objective.property == "value"


def test_a_component_holds_its_options_beside_its_kind() -> None:
    config = parse(branin_config())
    assert config.space.options == {"n_dims": 2, "length": 10, "bounds": [[-5, 10], [0, 15]]}


def test_a_config_is_frozen() -> None:
    config = parse(branin_config())
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


def test_as_yaml_is_the_same_config_again() -> None:
    config = parse(branin_config(objective={"goal": "maximize", "unit": "eV/Å³"}))
    assert parse(yaml.safe_load(config.as_yaml())) == config
    assert "eV/Å³" in config.as_yaml()


def test_every_error_comes_at_once() -> None:
    found = problems(seed=-1, budget={"cost": 0, "rounds": "many"}, nmae="x", objective={})
    assert len(found) == 5
    for where in ("seed: ", "budget.cost: ", "budget.rounds: ", "nmae: ", "objective.goal: "):
        assert [line for line in found if line.startswith(where)], where


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"budgt": {}}, "budgt: unknown key; did you mean `budget`?"),
        (
            {"selection": {"batchsize": 3}},
            "selection.batchsize: unknown key; did you mean `batch_size`?",
        ),
        (
            {"initial": {"n": {"low": 1}, "fil": "x"}},
            "initial.fil: unknown key; did you mean `file`?",
        ),
        ({"objective": None}, "objective: required, but missing"),
        ({"seed": True}, "seed: expected a number, got the boolean True"),
        (
            {"budget": {"cost": True, "rounds": 1}},
            "budget.cost: expected a number, got the boolean True",
        ),
        (
            {"initial": {"n": {"low": False}}},
            "initial.n.low: expected a number, got the boolean False",
        ),
    ],
)
def test_an_error_says_where_what_and_the_remedy(changes: dict[str, Any], line: str) -> None:
    assert problems(**changes) == [line]


@pytest.mark.parametrize("cost", [0, -1, float("nan"), float("inf"), "much", None, [1]])
def test_a_budget_is_a_finite_number_above_zero(cost: object) -> None:
    (line,) = problems(budget={"cost": cost, "rounds": 1})
    assert line.startswith("budget.cost: ")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 81, 7])
def test_a_name_is_a_plain_folder_name(name: object) -> None:
    (line,) = problems(name=name)
    assert line.startswith("name: ")


@pytest.mark.parametrize(
    "initial", [{}, {"n": {"low": 1}, "file": "a.csv"}, {"n": {}}, {"n": {"low": 0}}]
)
def test_an_initial_design_is_one_of_two(initial: dict[str, Any]) -> None:
    (line,) = problems(initial=initial)
    assert line.startswith("initial: expected ")


def test_a_problem_is_one_line_whatever_it_quotes() -> None:
    assert ConfigError(["one\nproblem\n", "two"]).problems == ["one problem", "two"]
    (line,) = problems(**{"a\nb": 1})
    assert "\n" not in line


def test_a_long_value_is_shortened() -> None:
    (line,) = problems(seed="s" * 500)
    assert len(line) < 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", ["line 3", "`a` stands twice"]),
        ("a: {b: 1, b: 2}", ["line 1", "`b` stands twice"]),
        ("a: [1, 2", ["not valid YAML", "line 1"]),
        ("a: b: c", ["not valid YAML", "line 1, column 5"]),
        ("", ["expected a mapping", "got nothing"]),
        ("# only this", ["got nothing"]),
        ("- a\n- b", ["got a list"]),
        ("just text", ["got a str"]),
        ("a: !!python/object:os.system x", ["not valid YAML", "could not determine"]),
        ("a: 2020-13-45", ["not valid YAML", "month"]),
        ("a: *b", ["not valid YAML", "undefined alias"]),
        ("a: 1\n---\nb: 2", ["not valid YAML"]),
        ("a: \x00", ["not valid YAML"]),
    ],
)
def test_bad_yaml_is_one_line_that_says_where(tmp_path: Path, text: str, words: list[str]) -> None:
    line = yaml_problem(tmp_path, text)
    for word in [str(tmp_path / "c.yaml"), *words]:
        assert word in line
    assert "\n" not in line


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "c.yaml")


def test_a_folder_is_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "branin.yaml").touch()
    with pytest.raises(ConfigError, match=r"no such file; did you mean `branin\.yaml`\?"):
        read_yaml(tmp_path / "brannin.yaml")
    with pytest.raises(ConfigError, match=r"no such file$"):
        read_yaml(tmp_path / "nowhere" / "c.yaml")


def test_merge_keys_work(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("base: &base {kind: branin, cost: 1}\nother: {<<: *base, cost: 2}\n")
    assert read_yaml(path)["other"] == {"kind": "branin", "cost": 2}


def test_overrides_reach_keys_lists_and_new_keys() -> None:
    changed = override(
        branin_config(),
        ["budget.cost=50", "oracles.0.cost=0.2", "space.bounds=[[0, 1], [0, 1]]", "tracking.uri="],
    )
    assert changed["budget"]["cost"] == 50
    assert changed["oracles"][0]["cost"] == 0.2
    assert changed["oracles"][1]["cost"] == 1
    assert changed["space"]["bounds"] == [[0, 1], [0, 1]]
    assert changed["tracking"]["uri"] is None
    assert override({}, ["execution.workers=3"]) == {"execution": {"workers": 3}}


def test_overrides_leave_the_original_alone() -> None:
    before = branin_config()
    override(before, ["budget.cost=50", "oracles.0.cost=9"])
    assert before == branin_config()


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("budget.cost", "expected key=value"),
        ("=5", "expected key=value"),
        ("oracles.2.cost=1", "expected an index below 2, got `2`"),
        ("oracles.first.cost=1", "expected an index below 2"),
        ("oracles.-1.cost=1", "expected an index below 2"),
        ("name.x=1", "something that has no keys"),
        ("budget.cost=[1", "flow sequence"),
    ],
)
def test_a_bad_override_says_so(assignment: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r".") as caught:
        override(branin_config(), [assignment])
    (line,) = caught.value.problems
    assert line.startswith(f"{assignment}: ")
    assert words in line


def test_all_bad_overrides_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        override(branin_config(), ["x", "budget.rounds=2", "name.y=1"])
    assert len(caught.value.problems) == 2


def test_keys_that_are_no_text_do_not_break_anything() -> None:
    dated = yaml.safe_load("{name: x, 2020-01-01: 1, 3: y, null: z}")
    with pytest.raises(ConfigError, match="2020-01-01"):
        parse(override(dated, []))


def test_a_config_that_holds_itself_is_an_error() -> None:
    round_trip = yaml.safe_load("&a {name: x, space: *a}")
    with pytest.raises(ConfigError, match="itself"):
        parse(override(round_trip, []))


def test_did_you_mean() -> None:
    assert did_you_mean("targt", ["low", "target"]) == "; did you mean `target`?"
    assert did_you_mean("zzz", ["low", "target"]) == "; known: low, target"
    assert did_you_mean("zzz", []) == ""

"""Plug-ins: found where they lie, never in our way, their options read from the signature."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import yaml

from pipeline import Campaign
from pipeline.campaign import checked
from pipeline.config import ConfigError
from pipeline.plugins import allow_plugins_from, check_options, construct, find_class, options_model
from tests import fakes
from tests.fakes import Menu, branin_config, menu_config

if TYPE_CHECKING:
    from decimal import Decimal

ROOT = Path(__file__).parents[2]


class Options:
    def __init__(
        self,
        size: int,
        share: float = 0.5,
        names: list[str] | None = None,
        way: Literal["up", "down"] = "up",
        *,
        is_on: bool = False,
        untyped=None,
    ) -> None:
        self.got = (size, share, names, way, is_on, untyped)


class Anything:
    def __init__(self, size: int = 1, **rest: object) -> None:
        self.size, self.rest = size, rest


class Typed:
    def __init__(self, price: Decimal) -> None:
        self.price = price


def test_options_are_the_signature() -> None:
    checked, problems = check_options(Options, {"size": 3, "way": "down", "untyped": [1]}, "it")
    assert problems == []
    assert construct(Options, checked).got == (3, 0.5, None, "down", False, [1])
    assert checked.model_dump() == {
        "size": 3,
        "share": 0.5,
        "names": None,
        "way": "down",
        "is_on": False,
        "untyped": [1],
    }


def test_every_problem_of_the_options_comes_at_once() -> None:
    checked, problems = check_options(Options, {"share": "x", "way": "left", "nmes": []}, "it")
    assert checked is None
    assert len(problems) == 4
    assert "it.size: required, but missing" in problems
    assert "it.nmes: unknown key; did you mean `names`?" in problems
    assert any(p.startswith("it.way: ") and "'up'" in p and "'left'" in p for p in problems)


@pytest.mark.parametrize("name", ["size", "share"])
def test_yes_is_no_number(name: str) -> None:
    _, problems = check_options(Options, {"size": 1, name: True}, "it")
    assert problems == [f"it.{name}: expected a number, got the boolean True"]


def test_what_the_pipeline_passes_no_config_may_set() -> None:
    assert "environment" not in options_model(Options, frozenset({"size"})).model_fields
    _, problems = check_options(Options, {"size": 1}, "it", frozenset({"size"}))
    assert problems[0].startswith("it.size: unknown key")
    checked, _ = check_options(Options, {}, "it", frozenset({"size"}))
    assert construct(Options, checked, size=7).got[0] == 7


def test_a_class_may_take_any_option() -> None:
    checked, problems = check_options(Anything, {"size": 2, "colour": "red"}, "it")
    assert problems == []
    assert construct(Anything, checked).rest == {"colour": "red"}


def test_an_annotation_that_cannot_be_read_is_the_plug_ins_line() -> None:
    with pytest.raises(ValueError, match=r"Typed.*Decimal"):
        check_options(Typed, {"price": 1}, "it")


def test_an_installed_class_is_found_by_its_path() -> None:
    assert find_class("tests.fakes:Menu", {}) is Menu
    assert find_class("menu", {"menu": "tests.fakes:Menu"}) is Menu


def test_a_kind_of_ours_may_be_a_function_that_chooses_the_class() -> None:
    found = find_class("cube", {"cube": "sampler.environments.hypercube:Hypercube"})
    options = {"n_dims": 1, "bounds": [[0, 1]], "n_levels": 3}
    checked, problems = check_options(found, options, "space")
    assert problems == []
    assert construct(found, checked).n_levels == 3


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("braninn", "unknown kind `braninn`; did you mean `branin`?"),
        ("no_such_module:X", "no module `no_such_module` is installed or lies beside the config"),
        ("tests.no_such:X", "no module `tests.no_such`"),
        ("tests.fakes:Mneu", "has no class `Mneu`; did you mean `Menu`?"),
        ("tests.fakes:price", "has no class `price`"),
        ("tests.fakes:", "has no class ``"),
        (":X", "cannot import `:X`"),
        ("..up:X", "cannot import `..up:X`"),
    ],
)
def test_a_class_that_is_not_there_is_one_line(kind: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        find_class(kind, {"branin": "oracles.branin:Branin"})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise RuntimeError('no\\nlicense')", "RuntimeError: no license"),
        ("import sys; sys.exit(4)", "SystemExit: 4"),
        ("import a_missing_library", "it needs the module `a_missing_library`"),
        ("def x(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_plug_in_that_breaks_on_import_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "broken_lab.py").write_text(text)
    allow_plugins_from(tmp_path)
    with pytest.raises(ValueError) as caught:
        find_class("broken_lab:X", {})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_searched_once_and_its_packages_too(tmp_path: Path) -> None:
    package = tmp_path / "deep_lab" / "inner"
    package.mkdir(parents=True)
    (package / "tools.py").write_text("class Tool: pass")
    before = len(sys.meta_path)
    allow_plugins_from(tmp_path)
    allow_plugins_from(tmp_path / "deep_lab" / "..")
    assert len(sys.meta_path) == before + 1
    assert find_class("deep_lab.inner.tools:Tool", {}).__name__ == "Tool"


def test_all_four_of_the_users_own_in_one_campaign(tmp_path: Path) -> None:
    shutil.copy(fakes.__file__, tmp_path / "own_lab.py")
    config = menu_config("own_lab", budget={"cost": 5, "rounds": 1})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    with Campaign.from_config(tmp_path / "c.yaml", tmp_path / "run") as campaign:
        campaign.run()
        frame = campaign.ledger.to_frame()
        assert type(campaign.parts.environment).__module__ == "own_lab"
    assert (frame["state"] == "done").all()
    assert set(frame["oracle"]) == {"own_lab:Price"}
    assert frame["round"].max() == 1


class FixedPrice:
    """The least plug-in oracle of the public contract: no constructor at all."""

    fidelity = "exact"
    cost = 1.0

    def query(self, candidates: list[int]) -> list[float]:
        return [float(i) for i in candidates]


def test_an_oracle_with_attributes_alone_is_enough(tmp_path: Path) -> None:
    from pipeline.status import read_status

    config = menu_config(
        oracles=[{"kind": f"{__name__}:FixedPrice"}],
        initial={"n": {"exact": 4}},
        budget={"cost": 6, "rounds": 1},
    )
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.run()
        assert campaign.target == "exact"
    status = read_status(tmp_path / "run")
    assert status["state"] == "done"
    assert status["best"] is not None


def test_a_config_prices_an_oracle_that_takes_no_options(tmp_path: Path) -> None:
    oracle = {"kind": f"{__name__}:FixedPrice", "fidelity": "lab", "cost": 2}
    config = menu_config(
        oracles=[oracle], initial={"n": {"lab": 2}}, budget={"cost": 6, "rounds": 1}
    )
    with Campaign.from_config(config, tmp_path / "run") as campaign:
        campaign.run()
        assert campaign.target == "lab"
        assert campaign.ledger.spend() == 6.0


SHADOWS = ("sampler", "random", "torch", "numpy", "oracles", "json", "yaml", "psutil")


def test_a_users_folder_never_shadows_ours(tmp_path: Path) -> None:
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    for name in ("pipeline", "surrogate", "flows"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('shadowed')")
    shutil.copy(fakes.__file__, tmp_path / "shadow_lab.py")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(menu_config("shadow_lab")))
    script = (
        "from flows.cli import app; import sys\n"
        "import random, json, sampler, pipeline, torch\n"
        "app(['validate', 'c.yaml'], standalone_mode=False)\n"
        "import surrogate, oracles, flows\n"
        "for m in (random, json, sampler, pipeline, torch, surrogate, oracles, flows):\n"
        "    home = m.__file__ or list(m.__path__)[0]\n"
        "    assert not home.startswith(sys.argv[1]), home\n"
        "assert sys.modules['shadow_lab'].__file__.startswith(sys.argv[1])\n"
    )
    command = [sys.executable, "-P", "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "shadow_lab:Menu" in done.stdout


@pytest.mark.parametrize(
    ("section", "contract"),
    [
        ("space", "sampler.environment.Environment"),
        ("surrogate", "surrogate.surrogate.Surrogate"),
        ("acquisition", "surrogate.acquisition.Acquisition"),
    ],
)
def test_a_part_that_lacks_a_method_is_told_so(section: str, contract: str) -> None:
    config = branin_config() | {section: {"kind": "tests.pipeline.test_plugins:Bare"}}
    with pytest.raises(ConfigError) as caught:
        checked(config, Path())
    assert any(contract in problem and "lacks" in problem for problem in caught.value.problems)


class Bare:
    """No part of anything."""


def test_ctrl_c_while_a_plug_in_loads_is_no_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # C extensions answer an interrupt in their initialisation with an ImportError.
    (tmp_path / "interrupted.py").write_text("raise ImportError from KeyboardInterrupt()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        find_class("interrupted:Anything", {})

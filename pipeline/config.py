"""The schema of a campaign's configuration, and errors that name the remedy.

Everything is frozen. Only the shape is known here: which kinds exist and which options they take
is the business of `pipeline.assemble`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.goal import Goal, read_goal
from pipeline.places import Execution


class ConfigError(Exception):
    """A configuration that cannot run; `problems` holds one clear line for each error."""

    def __init__(self, problems: Sequence[str]) -> None:
        # A problem may quote anything, such as a message of several lines: each stays one line.
        self.problems = [" ".join(problem.split()) for problem in problems]
        super().__init__("\n".join(self.problems))


def no_bool(value: object) -> object:
    """YAML reads `yes` and `on` as booleans, which pydantic would take for the number 1."""
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got the boolean {value}")
    return value


Count = Annotated[int, BeforeValidator(no_bool), Field(ge=1)]
Cost = Annotated[float, BeforeValidator(no_bool), Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(no_bool), Field(ge=0, le=1)]


STEPS_OF_A_ROUND = 300
"""Training steps of a `gflownet` in a round, where the configuration does not say."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Component(BaseModel):
    """A part chosen by `kind`; all other keys are its options, checked against its signature."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str

    @property
    def options(self) -> dict[str, Any]:
        """The options, without `kind`."""
        return dict(self.__pydantic_extra__ or {})


class Objective(_Frozen):
    """Which property counts and which way is better."""

    property: str = "value"
    goal: Annotated[Goal, BeforeValidator(read_goal)]
    unit: str = ""


class Initial(_Frozen):
    """Where the campaign starts: random candidates by fidelity, or what the user brings.

    `file` is a CSV, a CIF, a JSON of structures or a folder of CIFs. Beside structures without
    values `n` says how many candidates each fidelity gets. `outside` says what becomes of
    structures that lie outside the space.
    """

    n: dict[str, Annotated[int, BeforeValidator(no_bool), Field(ge=0)]] | None = None
    file: str | None = None
    outside: Literal["refuse", "skip"] = "refuse"

    @model_validator(mode="after")
    def _one_of(self) -> Initial:
        is_table = self.file is not None and self.file.lower().endswith(".csv")
        if (self.n is None) == (self.file is None) and (self.n is None or is_table):
            raise ValueError(
                "expected either `n` (a count for each fidelity) or `file` (a CSV), or `file` "
                "(structures) with or without `n`"
            )
        if self.outside == "skip" and self.file is None:
            raise ValueError("expected `outside: skip` only beside a `file` of structures")
        if self.n is not None and not any(self.n.values()):
            raise ValueError("expected at least one initial query in `n`")
        return self


class Selection(_Frozen):
    """How a round's batch is chosen: see `pipeline.selection`.

    `top_k`: how many different good candidates the campaign is after. `fidelity`: who decides the
    fidelity of a query. `guard`: stop paying for a cheap oracle that misleads.
    """

    batch_size: Count = 8
    n_proposals: Count = 1000
    target_share: Share = 0.5
    top_k: Count = 10
    diversity: Literal["dpp", "distance", "none"] = "dpp"
    min_distance: Annotated[float, BeforeValidator(no_bool), Field(gt=0)] | None = None
    fidelity: Literal["gain", "target", "random", "cheapest", "trajectory"] = "gain"
    cost: Literal["declared", "learned", "seconds"] = "declared"
    guard: bool = True

    @model_validator(mode="after")
    def _distance_has_a_length(self) -> Selection:
        if (self.diversity == "distance") != (self.min_distance is not None):
            raise ValueError(
                "expected `min_distance` (a number) together with `diversity: distance`, and not "
                "without it"
            )
        return self


class Budget(_Frozen):
    """What the whole campaign may spend, in the oracles' cost units, and its number of rounds.

    `queries`: at most so many at a fidelity; `hours`: no new round so long after the first query.
    """

    cost: Cost
    rounds: Count
    queries: dict[str, Annotated[int, BeforeValidator(no_bool), Field(ge=0)]] = {}
    hours: Cost | None = None


class Approval(_Frozen):
    """When a person decides before money is spent: see `pipeline.approval`."""

    when: Literal["never", "always", "target_fidelity", "cost_above"] = "never"
    cost_above: Cost | None = None

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, given: Any) -> Any:
        """Read `{when: {cost_above: 5}}` and `{cost_above: 5}` as what they say."""
        if not isinstance(given, dict):
            return given
        when = given.get("when")
        if isinstance(when, dict) and set(when) == {"cost_above"}:
            return {**given, **when, "when": "cost_above"}
        return {"when": "cost_above", **given} if "cost_above" in given else given

    @model_validator(mode="after")
    def _limit_belongs_to_cost_above(self) -> Approval:
        if (self.when == "cost_above") != (self.cost_above is not None):
            raise ValueError("expected `cost_above: NUMBER` with `when: cost_above` alone")
        return self


class Tracking(_Frozen):
    """Where rounds are shown. The ledger is the truth; this is a view."""

    kind: Literal["mlflow", "none"] = "mlflow"
    uri: str | None = None


class CampaignConfig(_Frozen):
    """A whole campaign."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
    seed: Annotated[int, BeforeValidator(no_bool), Field(ge=0, lt=2**63)] = 0
    space: Component
    objective: Objective
    oracles: Annotated[list[Component], Field(min_length=1)]
    initial: Initial
    surrogate: Component = Component(kind="auto")
    acquisition: Component = Component(kind="log_ei")
    sampler: Component = Component(kind="gflownet")
    selection: Selection = Selection()
    budget: Budget
    execution: Execution = Execution()
    tracking: Tracking = Tracking()
    approval: Approval = Approval()

    @model_validator(mode="after")
    def _steps_of_a_round(self) -> CampaignConfig:
        """A sampler goes on from round to round: one round needs fewer steps than a start."""
        if self.sampler.kind == "gflownet" and "n_steps" not in self.sampler.options:
            steps = Component(**{**self.sampler.model_dump(), "n_steps": STEPS_OF_A_ROUND})
            object.__setattr__(self, "sampler", steps)  # frozen, and not handed out yet
        return self

    def as_yaml(self) -> str:
        """The resolved configuration, every default written out, as YAML."""
        dumped = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        return str(dumped)


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a mapping that says the same key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *other`, which may stand twice
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` stands twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file; ConfigError says which line is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file{_neighbours(path)}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from None
    try:
        # A subclass of the safe loader: it builds plain data only.
        data = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506
    # ValueError: the loader makes dates and numbers of what looks like them, such as 2020-13-45.
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError([f"{path}: not valid YAML: {_yaml_problem(error)}"]) from None
    if not isinstance(data, dict):
        came = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError([f"{path}: expected a mapping with `name`, `space`, …, got {came}"])
    return data


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, [p.name for p in path.parent.glob("*.y*ml")])


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or the known words when none is close, or nothing."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known: {', '.join(words)}" if words else ""


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with `a.b.0.c=value` assignments applied; values are read as YAML."""
    result: dict[str, Any] = _plain(data)
    problems = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        try:
            if not equals or not path:
                raise ValueError("expected key=value, such as budget.cost=50")
            _assign(result, path.split("."), yaml.safe_load(text))
        except (ValueError, yaml.YAMLError) as error:
            problems.append(f"{assignment}: {' '.join(str(error).split())}")
    if problems:
        raise ConfigError(problems)
    return result


def _plain(data: Any, around: tuple[int, ...] = ()) -> Any:
    """A deep copy of plain data, with text for every key and for what is neither."""
    if id(data) in around:
        raise ConfigError(["config: a value holds itself (a YAML anchor inside of what it names)"])
    inside = (*around, id(data))
    if isinstance(data, Mapping):
        return {str(key): _plain(value, inside) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value, inside) for value in data]
    return data if data is None or isinstance(data, str | int | float) else str(data)


def _assign(data: Any, path: list[str], value: Any) -> None:
    head, *rest = path
    key: Any = head
    if isinstance(data, list):
        if not head.isdigit() or int(head) >= len(data):
            raise ValueError(f"expected an index below {len(data)}, got `{head}`")
        key = int(head)
    elif not isinstance(data, dict):
        raise ValueError(f"`{head}` is asked of something that has no keys")
    if not rest:
        data[key] = value
        return
    if isinstance(data, dict) and data.get(key) is None:
        data[key] = {}
    _assign(data[key], rest, value)


def parse(data: Mapping[str, Any]) -> CampaignConfig:
    """Check the shape of a whole configuration; ConfigError holds every problem at once."""
    try:
        return CampaignConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(problem_lines(error, CampaignConfig)) from None


def problem_lines(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """One line for each problem that pydantic found: where, what was expected, what came."""
    return [_problem_line(dict(problem), model, prefix) for problem in error.errors()]


def _problem_line(problem: dict[str, Any], model: type[BaseModel], prefix: str) -> str:
    location = [str(part) for part in problem["loc"]]
    where = ".".join([prefix, *location] if prefix else location) or "config"
    came = _shorten(problem["input"])
    match problem["type"]:
        case "extra_forbidden":
            hint = did_you_mean(location[-1], _known_fields(model, location[:-1]))
            return f"{where}: unknown key{hint}"
        case "missing":
            return f"{where}: required, but missing"
        case "value_error":
            return f"{where}: {problem['ctx']['error']}"
        case _:
            message = problem["msg"].replace("Input should be ", "expected ")
            return f"{where}: {message}, got {came}"


def _shorten(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _known_fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    current = model
    for part in path:
        field = current.model_fields.get(part)
        annotation = field.annotation if field else None
        choices = [annotation, *get_args(annotation)]
        nested = [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            break
        current = nested[0]
    return list(current.model_fields)


def digest(data: Any) -> str:
    """A short, stable hash of plain data."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""From a configuration to objects: the only place that knows which class a kind names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

import oracles
import sampler
import surrogate
from oracles.oracle import Oracle
from pipeline.config import CampaignConfig, Component, ConfigError, did_you_mean, digest
from pipeline.places import place_problems
from pipeline.plugins import (
    allow_plugins_from,
    check_options,
    construct,
    find_class,
    options_model,
)

if TYPE_CHECKING:
    # Only for types: a worker needs the space and the oracles, and starts seconds sooner without.
    from pipeline.trajectory_fidelity import TrajectoryFidelity
    from sampler.environment import Environment
    from surrogate.acquisition import Acquisition
    from surrogate.surrogate import Surrogate

KINDS: dict[str, Mapping[str, str]] = {
    "environments": sampler.ENVIRONMENTS,
    "oracles": oracles.ORACLES,
    "surrogates": surrogate.SURROGATES,
    "acquisitions": surrogate.ACQUISITIONS,
    "samplers": sampler.SAMPLERS,
    "losses": sampler.LOSSES,
}
INJECTED = frozenset({"environment", "seed"})


@dataclass(frozen=True)
class Rung:
    """One oracle of the ladder. `identity` goes into the key of each of its queries."""

    oracle: Oracle
    kind: str
    identity: str

    @property
    def fidelity(self) -> str:
        """The name of its fidelity."""
        return self.oracle.fidelity

    @property
    def cost(self) -> float:
        """The declared cost of one query."""
        return float(self.oracle.cost)


@dataclass(frozen=True)
class Part:
    """A class with its checked options, ready to be made."""

    cls: type[Any]
    options: BaseModel
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What a plug-in oracle's constructor does not take and is set on the instance."""

    def make(self, **injected: Any) -> Any:
        """An instance; `injected` are the arguments that the pipeline passes."""
        made = construct(self.cls, self.options, **injected)
        for name, value in self.attributes.items():
            setattr(made, name, value)
        return made

    def written(self) -> dict[str, Any]:
        """Every option with its value, as plain data."""
        return self.options.model_dump(mode="json", fallback=repr) | dict(self.attributes)


@dataclass(frozen=True)
class Parts:
    """Everything that a campaign is made of."""

    config: CampaignConfig
    environment: Environment
    ladder: tuple[Rung, ...]
    surrogate: Part
    acquisition: Part
    sampler: Part

    @property
    def fidelities(self) -> list[str]:
        """The names of the fidelities, cheapest first."""
        return [rung.fidelity for rung in self.ladder]

    def random(self, seed: int) -> Any:
        """A sampler that is uniform over actions."""
        return sampler.Random(self.environment, seed=seed)

    def new_surrogate(self) -> Surrogate:
        """A surrogate that has seen nothing."""
        made: Surrogate = self.surrogate.make()
        return made

    def new_acquisition(self) -> Acquisition:
        """An acquisition that is not prepared."""
        made: Acquisition = self.acquisition.make()
        return made

    @property
    def pairs(self) -> TrajectoryFidelity | None:
        """The pairs (candidate, fidelity) that the sampler draws, where it chooses fidelities."""
        from pipeline.trajectory_fidelity import TrajectoryFidelity

        if self.config.selection.fidelity != "trajectory":
            return None
        costs = [rung.cost for rung in self.ladder]
        return TrajectoryFidelity(self.environment, self.fidelities, costs)

    def new_sampler(self, seed: int) -> Any:
        """A sampler that is not trained, of candidates or of `pairs`."""
        pairs = self.pairs
        space = self.environment if pairs is None else pairs.space
        return self.sampler.make(environment=space, seed=seed)


def assemble(config: CampaignConfig, folder: Path) -> Parts:
    """All parts of a campaign; ConfigError holds every problem at once.

    `folder` is where plug-ins and data files beside the configuration are found.
    """
    allow_plugins_from(folder)
    problems: list[str] = []
    space = _part("space", config.space, "environments", problems)
    rungs = [
        _part(f"oracles.{i}", component, "oracles", problems)
        for i, component in enumerate(config.oracles)
    ]
    model = _part("surrogate", config.surrogate, "surrogates", problems)
    acquisition = _part("acquisition", config.acquisition, "acquisitions", problems)
    sampler_part = _part("sampler", config.sampler, "samplers", problems)
    environment = _compact(_made("space", space, problems))
    made = [_made(f"oracles.{i}", rung, problems) for i, rung in enumerate(rungs)]
    problems += [p for i, oracle in enumerate(made) if oracle for p in _oracle_problems(i, oracle)]
    if not problems:
        problems += _ladder_problems(config, made)
    if not problems:
        problems += _contract_problems(environment, model, acquisition, sampler_part)
    if problems or not (environment and space and model and acquisition and sampler_part):
        raise ConfigError(problems)
    ladder = tuple(
        Rung(oracle, component.kind, _identity(config, component, part, oracle, space))
        for component, part, oracle in zip(config.oracles, rungs, made, strict=True)
        if part is not None
    )
    resolved = _resolved(config, space, rungs, model, acquisition, sampler_part)
    return Parts(resolved, environment, ladder, model, acquisition, sampler_part)


def space_and_oracles(config: CampaignConfig, folder: Path) -> tuple[Environment, list[Oracle]]:
    """What a worker needs of a configuration that `assemble` has passed."""
    allow_plugins_from(folder)
    problems: list[str] = []
    space = _part("space", config.space, "environments", problems)
    rungs = [_part("oracles", component, "oracles", problems) for component in config.oracles]
    if problems or space is None:
        raise ConfigError(problems)
    return _compact(space.make()), [rung.make() for rung in rungs if rung is not None]


def _compact(environment: Any) -> Any:
    """What a campaign samples in; a plug-in that is no subclass may lack the method."""
    return environment.compact() if hasattr(environment, "compact") else environment


def _part(where: str, component: Component, registry: str, problems: list[str]) -> Part | None:
    try:
        cls = find_class(component.kind, KINDS[registry])
        given, attributes = component.options, dict[str, Any]()
        if registry == "oracles":
            given, attributes = _without_attributes(cls, given)
        options, found = check_options(cls, given, where, INJECTED)
    except (ValueError, TypeError) as error:
        problems.append(f"{where}.kind: {error}")
        return None
    problems += found
    return None if options is None else Part(cls, options, attributes)


def _without_attributes(
    cls: type[Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split off `fidelity` and `cost` where an oracle's constructor takes neither."""
    known = options_model(cls)
    taken = known.model_fields if known.model_config.get("extra") == "forbid" else options
    attributes = {k: options[k] for k in ("fidelity", "cost") if k in options and k not in taken}
    return {k: v for k, v in options.items() if k not in attributes}, attributes


def _made(where: str, part: Part | None, problems: list[str], **injected: Any) -> Any:
    if part is None:
        return None
    try:
        return part.make(**injected)
    # A constructor may be anyone's code, and its complaint is about the options it got.
    except Exception as error:
        named = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        problems.append(f"{where}: {named}{' '.join(str(error).split())}")
        return None


def _contract_problems(
    environment: Any, model: Part | None, acquisition: Part | None, sampler_part: Part | None
) -> list[str]:
    """Make every part once: what a plug-in lacks must show before money is spent."""
    # Here and not above: a worker never gets this far, and starts without torch's GP stack.
    from sampler.environment import Environment
    from surrogate.acquisition import Acquisition
    from surrogate.surrogate import Surrogate

    problems: list[str] = []
    made = {
        "space": (environment, Environment),
        "surrogate": (_made("surrogate", model, problems), Surrogate),
        "acquisition": (_made("acquisition", acquisition, problems), Acquisition),
    }
    problems += [p for where, (part, c) in made.items() for p in _missing(where, part, c)]
    if not problems:
        _made("sampler", sampler_part, problems, environment=environment, seed=0)
    return problems


def _missing(where: str, part: Any, contract: type[Any]) -> list[str]:
    wanted = [name for name, member in vars(contract).items() if callable(member)]
    public = [name for name in wanted if not name.startswith("_")]
    lacking = [name for name in public if not callable(getattr(part, name, None))]
    if part is None or not lacking:
        return []
    return [
        f"{where}: {type(part).__name__} lacks {', '.join(lacking)}; "
        f"make it a subclass of {contract.__module__}.{contract.__name__}"
    ]


def _oracle_problems(index: int, oracle: Any) -> list[str]:
    where = f"oracles.{index}"
    problems = []
    if not callable(getattr(oracle, "query", None)):
        problems.append(
            f"{where}: expected a method query(candidates), {type(oracle).__name__} has none"
        )
    if not isinstance(getattr(oracle, "fidelity", None), str) or not oracle.fidelity:
        problems.append(
            f"{where}.fidelity: expected a name, got {getattr(oracle, 'fidelity', None)!r}"
        )
    cost = getattr(oracle, "cost", None)
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 < cost < math.inf:
        problems.append(f"{where}.cost: expected a number greater than 0, got {cost!r}")
    return problems


def _ladder_problems(config: CampaignConfig, ladder: Sequence[Oracle]) -> list[str]:
    names = [oracle.fidelity for oracle in ladder]
    costs = [float(oracle.cost) for oracle in ladder]
    problems = [
        f"oracles.{i}.fidelity: `{name}` stands twice; each oracle needs a name of its own"
        for i, name in enumerate(names)
        if name in names[:i]
    ]
    if costs != sorted(costs):
        shown = ", ".join(f"{n} {c:g}" for n, c in zip(names, costs, strict=True))
        problems.append(f"oracles: expected the cheapest first and the target last, got {shown}")
    elif costs[-1] > config.budget.cost:
        problems.append(
            f"budget.cost: {config.budget.cost:g} does not pay for one query of the target "
            f"`{names[-1]}` at {costs[-1]:g}; raise it"
        )
    problems += _initial_problems(config, dict(zip(names, costs, strict=True)))
    declared = getattr(ladder[-1], "properties", None)
    if declared and config.objective.property not in declared:
        hint = did_you_mean(config.objective.property, declared)
        problems.append(
            f"objective.property: the target does not answer `{config.objective.property}`{hint}"
        )
    return problems


def _initial_problems(config: CampaignConfig, costs: Mapping[str, float]) -> list[str]:
    counts, most = config.initial.n or {}, config.budget.queries
    problems = [
        f"{where}.{name}: no oracle has this fidelity{did_you_mean(name, costs)}"
        for where, names in (("initial.n", counts), ("budget.queries", most))
        for name in names
        if name not in costs
    ]
    problems += [
        f"initial.n.{name}: {n}, more than the {most[name]} that budget.queries allows"
        for name, n in counts.items()
        if n > most.get(name, n)
    ]
    problems += place_problems(config.execution, costs)
    total = sum(n * costs.get(name, 0.0) for name, n in counts.items())
    if total > config.budget.cost * (1 + 1e-9):
        problems.append(
            f"initial.n: costs {total:g}, more than budget.cost {config.budget.cost:g}; lower it"
        )
    return problems


def _identity(
    config: CampaignConfig, component: Component, part: Part, oracle: Oracle, space: Part
) -> str:
    options = part.written()
    answers_depend_on = {k: v for k, v in options.items() if k not in ("cost", "fidelity")}
    version = str(getattr(oracle, "version", "1"))
    return digest([component.kind, version, answers_depend_on, config.space.kind, space.written()])


def _resolved(
    config: CampaignConfig,
    space: Part,
    rungs: Sequence[Part | None],
    model: Part,
    acquisition: Part,
    sampler_part: Part,
) -> CampaignConfig:
    def written(kind: str, part: Part) -> Component:
        return Component(kind=kind, **part.written())

    return config.model_copy(
        update={
            "space": written(config.space.kind, space),
            "oracles": [
                written(component.kind, part)
                for component, part in zip(config.oracles, rungs, strict=True)
                if part is not None
            ],
            "surrogate": written(config.surrogate.kind, model),
            "acquisition": written(config.acquisition.kind, acquisition),
            "sampler": written(config.sampler.kind, sampler_part),
        }
    )

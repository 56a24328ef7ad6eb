"""Where queries run and by which rules: the `execution` section of a configuration.

What stands beside `runner` holds for every fidelity; `fidelities: {dft: {…}}` overrides it for one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_serializer,
    model_validator,
)

Count = Annotated[int, Field(strict=True, ge=1)]
Seconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Wait = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Word = Annotated[str, Field(pattern=r"^[^\s-]\S*$", max_length=200)]
SLURM_ONLY = ("partition", "time", "cpus", "mem", "gres", "account", "qos", "modules", "options")


def _time_text(given: object) -> object:
    if isinstance(given, int | float):
        raise ValueError(
            f'expected Slurm\'s text in quotes, such as "02:00:00" or "1-12:00:00", got {given!r}'
            " (YAML reads 2:00:00 without quotes as a number)"
        )
    return given


def _option(given: str) -> str:
    if not re.fullmatch(r"--[a-z][a-z-]*(=[^\n\0]*)?", given):
        raise ValueError(f"expected sbatch options such as --constraint=avx2, got {given!r}")
    return given


SlurmTime = Annotated[
    str, BeforeValidator(_time_text), Field(pattern=r"^(\d+-)?\d+(:\d{1,2}){0,2}$")
]


class Dask(BaseModel):
    """A Dask cluster, in the words of Prefect's `DaskTaskRunner`.

    Either the `address` of a running scheduler, or a `cluster_class` such as
    `dask_jobqueue.SLURMCluster` with its `cluster_kwargs`, to be started for the campaign.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Word | None = None
    cluster_class: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*\.\w+$")] | None = None
    cluster_kwargs: dict[str, Any] = {}
    adapt_kwargs: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_of(self) -> Dask:
        if self.address is not None and (self.cluster_class or self.cluster_kwargs):
            raise ValueError("expected either `address` or `cluster_class`, got both")
        return self


class Place(BaseModel):
    """Where and how queries run.

    `time_limit_s` for one query; `attempts` when its process dies, with `backoff_s` before the
    second and twice as long before each further one. The names from `partition` to `options` are
    sbatch's (`cpus` a task). `poll_s` apart the cluster's queue is looked at; `grace_s` after a job
    has left it, its result file must have come.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runner: Literal["local", "slurm", "dask"] = "local"
    time_limit_s: Seconds | None = None
    attempts: Count = 2
    backoff_s: Wait = 1.0
    partition: Word | None = None
    time: SlurmTime | None = None
    cpus: Count | None = None
    mem: Annotated[str, Field(pattern=r"^\d+[KMGT]?$")] | None = None
    gres: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    modules: tuple[Word, ...] = ()
    options: tuple[Annotated[str, AfterValidator(_option)], ...] = ()
    poll_s: Seconds = 10.0
    grace_s: Wait = 60.0
    dask: Dask = Dask()

    def backoff(self, attempt: int) -> float:
        """Seconds to wait after the failure of this attempt, counted from 1."""
        return float(self.backoff_s * 2 ** min(attempt - 1, 20))


class Execution(Place):
    """How queries run: what holds for all fidelities, and what differs for some.

    A round closes when `close_share` of its queries have ended, or `close_after_s` after they went
    out; what is still out is taken in by later rounds. The last round waits for all. `cache`: a
    folder, counted from the configuration's, of answers that campaigns share.
    """

    workers: Count = 2
    max_failed_share: Share = 0.9
    close_share: Share = 1.0
    close_after_s: Seconds | None = None
    cache: str | None = None
    fidelities: dict[str, Place] = {}

    def cache_in(self, folder: Path) -> Path | None:
        """The shared cache of a campaign whose configuration lies in `folder`."""
        return None if self.cache is None else folder / self.cache

    def place(self, fidelity: str) -> Place:
        """Where and how the queries of this fidelity run."""
        common = {name: getattr(self, name) for name in Place.model_fields}
        return Place(**(common | _given(self.fidelities.get(fidelity))))

    @field_serializer("fidelities")
    def _only_what_differs(self, fidelities: dict[str, Place]) -> dict[str, Any]:
        return {
            name: {key: _plain(value) for key, value in _given(place).items()}
            for name, place in fidelities.items()
        }

    @model_validator(mode="after")
    def _options_have_their_runner(self) -> Execution:
        for name, own in self.fidelities.items():
            runner = self.place(name).runner
            misplaced = _misplaced(set(_given(own)), [runner])
            if misplaced:
                raise ValueError(_MISPLACED.format(f"fidelities.{name}.{misplaced}", runner))
        runners = {self.runner, *(self.place(name).runner for name in self.fidelities)}
        given = {n for n in Place.model_fields if getattr(self, n) != Place.model_fields[n].default}
        misplaced = _misplaced(given, runners)
        if misplaced:
            raise ValueError(_MISPLACED.format(misplaced, ", ".join(sorted(runners))))
        return self


_MISPLACED = "`{}` needs the runner it belongs to (slurm or dask), the runner here is {}"


def _misplaced(given: set[str], runners: Collection[str]) -> str | None:
    """The first name that belongs to a runner which is not used."""
    wanted = dict.fromkeys(SLURM_ONLY, "slurm") | {"dask": "dask"}
    return next((n for n in sorted(given) if n in wanted and wanted[n] not in runners), None)


def _given(place: Place | None) -> dict[str, Any]:
    """What a place says itself, without its defaults."""
    return {n: getattr(place, n) for n in place.model_fields_set} if place is not None else {}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def place_problems(execution: Execution, fidelities: Iterable[str]) -> list[str]:
    """One line for each fidelity of `execution.fidelities` that no oracle has."""
    known = sorted(fidelities)
    return [
        f"execution.fidelities.{name}: no oracle has this fidelity; known: {', '.join(known)}"
        for name in execution.fidelities
        if name not in known
    ]

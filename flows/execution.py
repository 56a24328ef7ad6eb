"""The runner of a campaign, as its `execution` section says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.runners.local import LocalRunner
from flows.runners.routes import Runners
from flows.runners.site import Site, site_of
from flows.runners.slurm import SlurmRunner
from pipeline.assemble import Parts
from pipeline.jobs import Runner
from pipeline.places import Execution, Place

__all__ = ["LocalRunner", "SlurmRunner", "local_runner", "make_runner", "runner_for"]


def runner_for(parts: Parts, directory: Path, folder: Path) -> Runner:
    """The runner of a campaign; `folder` is where its configuration lies."""
    execution = execution_of(parts)
    places = [execution.place(name) for name in parts.fidelities]
    return make_runner(site_of(parts, directory, folder), places, execution.workers)


def local_runner(parts: Parts, directory: Path, folder: Path) -> LocalRunner:
    """Local processes for every fidelity, whatever runner the configuration names."""
    execution = execution_of(parts)
    places = [execution.place(name) for name in parts.fidelities]
    return LocalRunner(site_of(parts, directory, folder), places, execution.workers)


def make_runner(site: Site, places: Sequence[Place], workers: int) -> Runner:
    """One runner where all fidelities name the same, else one for each that is named.

    `places`: where each fidelity's queries run, cheapest first. Two Dask clusters are two runners.
    """
    names = [(place.runner, place.dask.model_dump_json()) for place in places]
    by_name = dict(zip(names, places, strict=True))
    made = {name: _make(place, site, places, workers) for name, place in by_name.items()}
    if len(made) == 1:
        return made[names[0]]
    return Runners([made[name] for name in names])


def _make(place: Place, site: Site, places: Sequence[Place], workers: int) -> Runner:
    match place.runner:
        case "slurm":
            return SlurmRunner(site, places)
        case "dask":
            # Not above: the others need nothing of it.
            from flows.runners.dask import DaskRunner

            return DaskRunner(site, places, place.dask)
        case _:
            return LocalRunner(site, places, workers)


def execution_of(parts: Parts) -> Execution:
    """The `execution` section of a campaign."""
    return Execution.model_validate(parts.config.execution.model_dump(mode="json"))

"""What MLflow shows of a campaign: a run for the campaign, and in it a run for each round.

Only `MlflowClient` with explicit run ids, because the fluent interface keeps the active run in
global state. Everything is written from a `Snapshot`, with the ledger's own times, so that writing
the same round twice leaves one row of each metric.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

import pandas as pd
import yaml

from flows.prepared import copy_prepared, keep_prepared
from pipeline import metrics
from pipeline.figures import all_figures
from pipeline.snapshot import Snapshot
from pipeline.tables import CALIBRATION, batch_table, best_table

Status = Literal["FINISHED", "FAILED", "KILLED"]

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that does not answer: MLflow would try for minutes, and the campaign's end waits.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
MAX_ENTRIES = 100
"""How many parameters or tags one call may log."""
MAX_METRICS = 1000
"""How many metrics one call may log; also the most points of a round's loss curve."""
MAX_NAME, MAX_PARAMETER = 250, 6000


class MlflowView:
    """One campaign's runs in one MLflow store. Use it from one thread; opening takes seconds."""

    def __init__(self, directory: Path, uri: str, experiment: str) -> None:
        client = import_client()
        from mlflow.entities import Metric, Param, RunTag

        self.directory = directory
        self._client = client(tracking_uri=uri)
        self._metric, self._param, self._tag = Metric, Param, RunTag
        self._experiment = self._open_experiment(experiment, uri)
        self._parent: str | None = None

    def _open_experiment(self, name: str, uri: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # A server knows where its artifacts go; a plain store would put them where we stand.
        is_served = uri.startswith(("http", "databricks"))
        place = None if is_served else (self.directory / "mlflow-artifacts").as_uri()
        # Without its kind the pages open on those for language models.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(name, place, tags))

    def sync(self, snapshot: Snapshot) -> None:
        """Show every complete round that is not shown yet; a half-written one is written anew."""
        if not snapshot.recorded:
            return
        parent = self._parent_run(snapshot)
        shown = set()
        for run in self._runs(f"tags.`mlflow.parentRunId` = '{parent}'"):
            if run.info.status == "FINISHED":
                shown.add(int(run.data.tags["motherlode.round"]))
            else:
                self._remove(run)
        for number in snapshot.recorded:
            if number not in shown:
                self._show_round(snapshot.until(number), number, parent)

    def close(self, snapshot: Snapshot, status: Status) -> None:
        """End the campaign's run, with the figures and the best candidates of the whole."""
        if snapshot.frame.empty:
            return
        parent = self._parent_run(snapshot)
        with tempfile.TemporaryDirectory() as folder:
            _write_figures(snapshot, Path(folder))
            best_table(snapshot).to_csv(Path(folder) / "best.csv")
            _write_config(snapshot, Path(folder))
            self._client.log_artifacts(parent, folder)
        self._client.set_terminated(parent, status, _times(snapshot.frame)[1])

    def remove(self) -> None:
        """Delete the runs of this campaign, and no others."""
        for parent in self._parents():
            for run in self._runs(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"):
                self._remove(run)
            self._remove(parent)
        self._parent = None

    def _remove(self, run: Any) -> None:
        self._client.delete_run(run.info.run_id)
        artifacts = Path(unquote(urlparse(run.info.artifact_uri).path))
        # MLflow keeps the files of a deleted run; those in our own folder are ours to remove.
        if artifacts.is_relative_to(self.directory / "mlflow-artifacts"):
            shutil.rmtree(artifacts.parent, ignore_errors=True)

    def _parents(self) -> list[Any]:
        runs = self._runs("tags.`motherlode.shows` = 'campaign'")
        return [r for r in runs if r.data.tags.get("motherlode.directory") == str(self.directory)]

    def _parent_run(self, snapshot: Snapshot) -> str:
        """The campaign's run, made at the first call, with its parameters and tags."""
        if self._parent is None:
            found = self._parents()
            run = found[0] if found else self._new_parent(snapshot)
            self._describe(run, snapshot)
            self._parent = str(run.info.run_id)
        return self._parent

    def _new_parent(self, snapshot: Snapshot) -> Any:
        tags = {"motherlode.shows": "campaign", "motherlode.directory": str(self.directory)}
        return self._client.create_run(
            self._experiment, _times(snapshot.frame)[0], tags, snapshot.config.name
        )

    def _describe(self, run: Any, snapshot: Snapshot) -> None:
        """Parameters and tags of the campaign's run; what a resume changed becomes a tag.

        MLflow's parameters cannot be changed.
        """
        wanted = parameters(snapshot)
        known = run.data.params
        fresh = {name: text for name, text in wanted.items() if name not in known}
        changed = {n: text for n, text in wanted.items() if n in known and known[n] != text}
        tags = _tags(snapshot) | {f"changed.{name}"[:MAX_NAME]: t for name, t in changed.items()}
        for part in _parts([self._param(n, t) for n, t in fresh.items()], MAX_ENTRIES):
            self._client.log_batch(run.info.run_id, params=part)
        for part in _parts([self._tag(n, t) for n, t in tags.items()], MAX_ENTRIES):
            self._client.log_batch(run.info.run_id, tags=part)
        if run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")

    def _show_round(self, snapshot: Snapshot, number: int, parent: str) -> None:
        """Write a round's run; its status says last of all that it is whole."""
        own = snapshot.frame[snapshot.frame["round"] == number]
        began, ended = _times(own)
        tags = {
            "mlflow.parentRunId": parent,
            "motherlode.shows": "round",
            "motherlode.round": str(number),
        }
        run = self._client.create_run(
            self._experiment, began, tags | _tags(snapshot), f"round {number:03d}"
        ).info.run_id
        self._write_artifacts(snapshot, number, run)
        figures = round_metrics(snapshot, number)
        self._log(run, [(name, value, number) for name, value in figures.items()], ended)
        points = [(name, value, number) for name, value in figures.items()]
        points += loss_points(snapshot.losses(), number)
        self._log(parent, points, ended)
        self._client.set_terminated(run, "FINISHED", ended)

    def _write_artifacts(self, snapshot: Snapshot, number: int, run: str) -> None:
        table = batch_table(snapshot.frame, number, snapshot.label).reset_index(names="key")
        self._client.log_table(run, table, "batch.json")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            table.to_csv(folder / "batch.csv", index=False)
            _write_figures(snapshot, folder)
            _write_config(snapshot, folder)
            (folder / "versions.json").write_text(json.dumps(snapshot.versions, indent=1))
            for file in snapshot.folder(number).iterdir():
                if file.suffix in (".json", ".pt"):
                    shutil.copy(file, folder)
            self._client.log_artifacts(run, name)

    def _log(self, run: str, points: Sequence[tuple[str, float, int]], at: int) -> None:
        entries = [self._metric(name, value, at, step) for name, value, step in points]
        for part in _parts(entries, MAX_METRICS):
            self._client.log_batch(run, metrics=part)

    def _runs(self, condition: str) -> list[Any]:
        runs: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], condition, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs


def round_metrics(snapshot: Snapshot, number: int) -> dict[str, float]:
    """The figures of a round by MLflow's names, without those that do not exist."""
    told = metrics.round_figures(snapshot.frame, number, snapshot.target, snapshot.goal)
    calibration = told.pop("calibration")
    told["diversity"] = told.pop("batch_diversity")
    for fidelity, figures in calibration.items():
        told |= {f"calibration.{fidelity}.{name}": figures[name] for name in CALIBRATION}
    notes = snapshot.notes.get(number, {})
    told |= {f"proposals.{name}": value for name, value in notes.get("proposals", {}).items()}
    told |= {name: notes.get(name) for name in ("seconds_fit", "seconds_train")}
    losses = snapshot.losses().get(number, [])
    told["sampler_loss"] = losses[-1] if losses else None
    return {_metric_name(name): float(v) for name, v in told.items() if v is not None}


def loss_points(losses: Mapping[int, Sequence[float]], number: int) -> list[tuple[str, float, int]]:
    """A round's losses as (name, value, step), steps counted over all rounds, thinned."""
    own = losses.get(number, [])
    before = sum(len(loss) for n, loss in losses.items() if n < number)
    every = -(-len(own) // MAX_METRICS) or 1
    return [("sampler_loss_by_step", own[i], before + i) for i in range(0, len(own), every)]


def parameters(snapshot: Snapshot) -> dict[str, str]:
    """The resolved configuration as MLflow parameters, names such as `oracles.0.cost`."""
    config = yaml.safe_load(snapshot.about["config"])
    return {
        name[:MAX_NAME]: (value if isinstance(value, str) else json.dumps(value))[:MAX_PARAMETER]
        for name, value in _leaves(config, "")
    }


def _leaves(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Names and values of nested mappings and of lists of mappings."""
    if isinstance(data, list) and any(isinstance(item, dict) for item in data):
        data = dict(enumerate(data))
    if not isinstance(data, dict):
        yield path, data
        return
    for key, value in data.items():
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _tags(snapshot: Snapshot) -> dict[str, str]:
    versions = {f"version.{name}": text for name, text in snapshot.versions.items()}
    return {"motherlode.campaign": snapshot.config.name} | versions


def _metric_name(name: str) -> str:
    """A name that MLflow takes: a fidelity may be called anything."""
    return re.sub(r"[^\w\-. ]", "_", name)[:MAX_NAME]


def _times(rows: pd.DataFrame) -> tuple[int, int]:
    """When the first of some queries was reserved and the last one ended, in Unix milliseconds."""
    began = rows["created_at"].min()
    ended = rows["finished_at"].dropna().max()
    return _milliseconds(began), _milliseconds(ended if isinstance(ended, str) else began)


def _milliseconds(stamp: str) -> int:
    return round(1000 * datetime.fromisoformat(stamp).timestamp())


def _parts(entries: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [entries[start : start + size] for start in range(0, len(entries), size)]


def _write_figures(snapshot: Snapshot, folder: Path) -> None:
    (folder / "figures").mkdir()
    for name, figure in all_figures(snapshot).items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=110, facecolor="white")


def _write_config(snapshot: Snapshot, folder: Path) -> None:
    (folder / "config.resolved.yaml").write_text(snapshot.about["config"], encoding="utf-8")


def create_store(path: Path) -> None:
    """Create an empty SQLite store where there is none, whole or not at all.

    MLflow makes it in dozens of migrations, and cannot go on with one that was stopped half-way.
    """
    if path.exists() or copy_prepared("mlflow", path):
        return
    for leftover in path.parent.glob(".mlflow-*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
        fresh = Path(folder) / path.name
        import_client()(tracking_uri=f"sqlite:///{fresh}").search_experiments(max_results=1)
        # The default experiment names a folder of this campaign; MLflow makes it where there is
        # none.
        keep_prepared("mlflow", fresh, without=["experiments"])
        fresh.rename(path)


def import_client() -> Any:
    """MLflow's client class, imported so that MLflow says nothing; takes seconds."""
    # These settings count only before MLflow is first imported.
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    return MlflowClient

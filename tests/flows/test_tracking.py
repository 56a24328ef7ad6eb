"""MLflow's view: equal to what the ledger says, repaired after a crash, never in the way."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pandas as pd
import pytest

from flows import mlflow_view
from flows.mlflow_view import MAX_METRICS, MlflowView, create_store, loss_points, parameters
from flows.prepared import CACHE
from flows.tracking import STORE, MlflowTracking, TrackingError, track_directory, tracking
from pipeline import Campaign, metrics
from pipeline.config import Tracking
from pipeline.ledger import Ledger
from pipeline.snapshot import Snapshot, read_snapshot
from pipeline.tables import CALIBRATION
from tests.fakes import branin_config, comparable, menu_config

ROUNDS = [0, 1, 2]


@pytest.fixture(scope="session")
def creation(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """An empty store, made once, by a process whose output is kept."""
    store = tmp_path_factory.mktemp("store") / STORE
    code = "import sys, pathlib; from flows.mlflow_view import create_store as c; "
    code += "c(pathlib.Path(sys.argv[1])); print('', end='')"
    command = [sys.executable, "-P", "-c", code, str(store)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of three rounds of real parts, played once."""
    directory = tmp_path_factory.mktemp("campaign") / "small"
    with Campaign.from_config(branin_config(), directory) as campaign:
        campaign.run()
    return directory


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take a second a round to draw, and most tests look at other things."""
    monkeypatch.setattr(mlflow_view, "all_figures", lambda snapshot: {})


@pytest.fixture
def directory(finished: Path, creation: subprocess.CompletedProcess[str], tmp_path: Path) -> Path:
    """A copy of the campaign with an empty store."""
    copy = tmp_path / "small"
    shutil.copytree(finished, copy)
    shutil.copy(creation.args[-1], copy / STORE)
    return copy


class Store:
    """What a store holds, by MLflow's own client."""

    def __init__(self, directory: Path) -> None:
        uri = f"sqlite:///{directory / STORE}"
        self.client = mlflow_view.import_client()(tracking_uri=uri)
        self.experiment = self.client.get_experiment_by_name("small")

    def runs(self, shows: str) -> list[Any]:
        found = self.client.search_runs([self.experiment.experiment_id])
        ours = [run for run in found if run.data.tags["motherlode.shows"] == shows]
        return sorted(ours, key=lambda run: str(run.info.run_name))

    @property
    def parent(self) -> Any:
        (run,) = self.runs("campaign")
        return run

    def curve(self, run: Any, name: str) -> list[tuple[int, float]]:
        history = self.client.get_metric_history(run.info.run_id, name)
        return sorted((point.step, point.value) for point in history)

    def artifacts(self, run: Any, folder: str | None = None) -> set[str]:
        return {entry.path for entry in self.client.list_artifacts(run.info.run_id, folder)}

    def file(self, run: Any, name: str) -> Path:
        return Path(unquote(urlparse(run.info.artifact_uri).path)) / name

    def contents(self) -> Any:
        """Everything but the ids: to compare two stores."""
        return [
            (
                run.info.run_name,
                run.info.status,
                run.info.start_time,
                run.info.end_time,
                run.data.params,
                {n: t for n, t in run.data.tags.items() if not n.startswith("mlflow.")},
                {name: self.curve(run, name) for name in run.data.metrics},
                self.artifacts(run) | self.artifacts(run, "figures"),
            )
            for run in [self.parent, *self.runs("round")]
        ]


def track(directory: Path) -> MlflowTracking:
    """Show everything by the calls of a running campaign; nothing may fail."""
    view = MlflowTracking(directory)
    view.queries(1)
    view.finished("FINISHED")
    assert view.failure is None
    return view


def test_a_store_is_made_without_a_word(creation: subprocess.CompletedProcess[str]) -> None:
    assert creation.stdout + creation.stderr == ""
    assert [path.name for path in Path(creation.args[-1]).parent.iterdir()] == [STORE]


@pytest.mark.usefixtures("no_figures")
def test_the_view_is_what_the_ledger_says(directory: Path) -> None:
    track(directory)
    store, snapshot = Store(directory), read_snapshot(directory)
    parent = store.parent
    assert parent.info.status == "FINISHED"
    history = metrics.history(snapshot.frame, snapshot.target, snapshot.goal)
    history = history.rename(columns={"batch_diversity": "diversity"}).set_index("round")
    for name in ("best", "top_10_mean", "spend", "diversity", "found_families", "failed"):
        assert store.curve(parent, name) == list(history[name].astype(float).items()), name
    for number in ROUNDS[1:]:
        own = snapshot.frame[snapshot.frame["round"] == number]
        for fidelity, figures in metrics.round_calibration(own).items():
            for name in CALIBRATION:
                curve = dict(store.curve(parent, f"calibration.{fidelity}.{name}"))
                assert curve.get(number) == figures[name]
    losses = snapshot.losses()
    assert store.curve(parent, "sampler_loss") == [(n, losses[n][-1]) for n in (1, 2)]
    assert store.curve(parent, "sampler_loss_by_step") == list(enumerate(losses[1] + losses[2]))
    distinct = [(n, float(snapshot.notes[n]["proposals"]["distinct"])) for n in (1, 2)]
    assert store.curve(parent, "proposals.distinct") == distinct
    assert parent.data.params["oracles.0.cost"] == "0.1"
    assert parent.data.params["sampler.kind"] == "gflownet"
    assert parent.data.tags["motherlode.campaign"] == "small"
    assert parent.data.tags["version.torch"] == snapshot.versions["torch"]


def test_each_round_is_a_run_in_the_campaigns_run(directory: Path) -> None:
    track(directory)
    store, frame = Store(directory), read_snapshot(directory).frame
    rounds = store.runs("round")
    assert [run.info.run_name for run in rounds] == ["round 000", "round 001", "round 002"]
    for number, run in enumerate(rounds):
        assert run.data.tags["mlflow.parentRunId"] == store.parent.info.run_id
        assert run.info.status == "FINISHED"
        kept = store.artifacts(run)
        assert {"batch.json", "batch.csv", "config.resolved.yaml", "versions.json"} <= kept
        assert ({"sampler.pt", "decision.json"} <= kept) == (number > 0)
        assert "figures/progress.png" in store.artifacts(run, "figures")
        batch = pd.read_json(store.file(run, "batch.json"), orient="split", dtype={"key": str})
        assert batch["key"].tolist() == frame[frame["round"] == number]["key"].tolist()
        assert set(run.data.metrics) >= {"best", "spend"}
    assert {"best.csv", "figures"} <= store.artifacts(store.parent)


@pytest.mark.usefixtures("no_figures")
def test_showing_twice_changes_nothing_and_rebuilding_makes_the_same(directory: Path) -> None:
    track(directory)
    first = Store(directory).contents()
    ids = {run.info.run_id for run in Store(directory).runs("round")}
    track(directory)
    assert Store(directory).contents() == first
    assert {run.info.run_id for run in Store(directory).runs("round")} == ids
    track_directory(directory, rebuild=True)
    assert Store(directory).contents() == first
    assert {run.info.run_id for run in Store(directory).runs("round")}.isdisjoint(ids)
    # The files of the deleted runs are gone with them.
    assert len(list((directory / "mlflow-artifacts").iterdir())) == 1 + len(ROUNDS)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("where", ["_write_artifacts", "_log"])
def test_a_half_written_round_is_written_anew(
    directory: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(MlflowView, where)

    def dies(view: MlflowView, *arguments: Any) -> None:
        whole(view, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowView, where, dies)
        with pytest.raises(KeyboardInterrupt):
            MlflowTracking(directory).update()
    assert [run.info.status for run in Store(directory).runs("round")] == ["RUNNING"]
    track(directory)
    store = Store(directory)
    assert [run.info.status for run in store.runs("round")] == ["FINISHED"] * 3
    assert [step for step, _ in store.curve(store.parent, "spend")] == ROUNDS


@pytest.mark.usefixtures("no_figures")
def test_a_failure_is_warned_of_once_and_caught_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise OSError("disk full\nand more")

    view = MlflowTracking(directory)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "motherlode"):
        patch.setattr(MlflowView, "_write_artifacts", fails)
        view.queries(1)
        view.queries(1)
        view.finished("FAILED")
    (record,) = [record for record in caplog.records if record.name == "motherlode"]
    assert "disk full" in record.message
    assert f"motherlode track {directory} --rebuild" in record.message
    assert "\n" not in record.message
    assert view.failure is not None
    view.finished("FINISHED")
    assert len(Store(directory).runs("round")) == len(ROUNDS)
    assert Store(directory).parent.info.status == "FINISHED"


def test_a_store_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = []
    for name, wanted in (
        ("tracked", Tracking(uri="sqlite:////proc/no/such/place.db")),
        ("plain", Tracking(kind="none")),
    ):
        config = menu_config()
        with (
            Campaign.from_config(config, tmp_path / name) as campaign,
            tracking(campaign.directory, wanted) as view,
        ):
            campaign.progress = view
            campaign.run()
            frames.append(comparable(campaign.ledger.to_frame()))
    assert frames[0] == frames[1]
    assert len([record for record in caplog.records if record.name == "motherlode"]) == 1
    with pytest.raises(TrackingError, match="/proc/no/such/place"):
        MlflowTracking(tmp_path / "tracked", "sqlite:////proc/no/such/place.db").update()


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (OSError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_how_a_campaign_ended(
    directory: Path,
    error: type[BaseException] | None,
    status: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(MlflowTracking, "started", lambda view: None)
    monkeypatch.setattr(MlflowTracking, "finished", lambda view, how: told.append(how))
    if error is None:
        with tracking(directory, Tracking()):
            pass
    else:
        with pytest.raises(error), tracking(directory, Tracking()):
            raise error
    assert told == [status]


@pytest.mark.usefixtures("no_figures")
def test_a_running_campaign_is_shown_while_the_next_rounds_oracles_work(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_snapshot(directory)
    played: list[int] = []

    def so_far(_: Path) -> Snapshot:
        return whole.until(played[-1])

    monkeypatch.setattr("flows.tracking.read_snapshot", so_far)
    view = MlflowTracking(directory)
    for number in ROUNDS[:2]:
        played.append(number)
        view.queries(1)
        view._worker.submit(lambda: None).result()
        store = Store(directory)
        assert len(store.runs("round")) == number + 1
        assert store.parent.info.status == "RUNNING"
    view.finished("KILLED")
    assert Store(directory).parent.info.status == "KILLED"
    assert view.failure is None


@pytest.mark.usefixtures("no_figures")
def test_a_changed_budget_is_a_tag(directory: Path) -> None:
    track(directory)
    Campaign.resume(directory, overrides=["budget.cost=8.05"]).close()
    track(directory)
    parent = Store(directory).parent
    assert parent.data.params["budget.cost"] == "8.0"
    assert parent.data.tags["changed.budget.cost"] == "8.05"


@pytest.mark.usefixtures("no_figures")
def test_a_broken_store_is_made_anew(
    directory: Path,
    creation: subprocess.CompletedProcess[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def create(path: Path) -> None:
        if not path.exists():
            shutil.copy(creation.args[-1], path)

    monkeypatch.setattr(mlflow_view, "create_store", create)
    (directory / STORE).write_bytes(b"not a database at all, but long enough" * 100)
    track_directory(directory, rebuild=True)
    assert len(Store(directory).runs("round")) == len(ROUNDS)


def test_a_store_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".mlflow-killed").mkdir()
    monkeypatch.setenv(CACHE, str(tmp_path / "none"))

    def dies() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow_view, "import_client", dies)
    with pytest.raises(KeyboardInterrupt):
        create_store(tmp_path / STORE)
    assert list(tmp_path.iterdir()) == []


def test_parameters_are_flat_and_within_mlflows_limits(directory: Path) -> None:
    flat = parameters(read_snapshot(directory))
    assert flat["objective.goal"] == "minimize"
    assert flat["sampler.hidden"] == "[16]"
    assert flat["execution.time_limit_s"] == "null"
    assert flat["oracles.1.fidelity"] == "target"
    assert all(len(name) <= 250 and len(text) <= 6000 for name, text in flat.items())


def test_a_long_loss_curve_is_thinned() -> None:
    losses = {1: [1.0] * 10, 2: [float(i) for i in range(2500)]}
    points = loss_points(losses, 2)
    assert len(points) <= MAX_METRICS
    assert points[0] == ("sampler_loss_by_step", 0.0, 10)
    assert points[1] == ("sampler_loss_by_step", 3.0, 13)
    assert loss_points(losses, 0) == []


def test_an_empty_campaign_is_not_an_error(
    creation: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    Campaign.from_config(menu_config(), tmp_path / "menu").close()
    shutil.copy(creation.args[-1], tmp_path / "menu" / STORE)
    track_directory(tmp_path / "menu")
    ledger = Ledger.read(tmp_path / "menu" / "ledger.sqlite")
    assert ledger.to_frame().empty
    ledger.close()


@pytest.fixture(autouse=True)
def no_global_state() -> Iterator[None]:
    """Tracking must not turn on MLflow's fluent interface."""
    yield
    fluent = sys.modules.get("mlflow.tracking.fluent")
    if fluent is not None:
        assert fluent.active_run() is None

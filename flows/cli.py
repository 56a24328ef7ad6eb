"""The command line: `motherlode --help`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.interrupts import INTERRUPTED, stop_in_order
from flows.terminal import TerminalProgress, complain, console, frame_table, pairs

if TYPE_CHECKING:
    from pipeline.config import CampaignConfig, Tracking

BAD_CONFIG, STOPPED = 2, 3

app = typer.Typer(
    name="motherlode",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Discovery campaigns that spend a simulation budget well and never pay twice.",
    epilog="Start with: `motherlode validate configs/branin.yaml`, then `motherlode run …`",
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The campaign's YAML file.")]
Assignments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]…", help="Overrides, such as `budget.cost=50`."),
]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A campaign's directory.")]
DirOption = Annotated[
    Path | None, typer.Option("--dir", help="Where the campaign lives [runs/NAME].")
]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can mend into one line each and the exit code that says which kind."""
    import httpx

    from flows.server import PrefectServerError
    from flows.tracking import TrackingError
    from pipeline.campaign import LockedError
    from pipeline.config import ConfigError
    from pipeline.ledger import LedgerError
    from pipeline.queries import CampaignStoppedError

    try:
        yield
    except ConfigError as error:
        complain(error.problems)
        raise typer.Exit(BAD_CONFIG) from None
    except LedgerError as error:
        complain([str(error)])
        raise typer.Exit(BAD_CONFIG) from None
    except (LockedError, CampaignStoppedError, TrackingError) as error:
        complain([str(error)])
        raise typer.Exit(STOPPED) from None
    except (httpx.HTTPError, PrefectServerError) as error:
        complain([f"stopped: Prefect's server: {error}; run the same command again to go on"])
        raise typer.Exit(STOPPED) from None
    except (OSError, sqlite3.OperationalError) as error:
        complain([f"stopped: {error}; nothing is lost, mend this and run the same command again"])
        raise typer.Exit(STOPPED) from None
    except KeyboardInterrupt:
        complain(["stopped; nothing is lost, run the same command again to go on"])
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def run(
    config: ConfigPath,
    assignments: Assignments = None,
    dir: DirOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Tell what it would spend, by a play with the cheapest oracle's answers.",
        ),
    ] = False,
) -> None:
    """Run a campaign to the end of its budget; the same command again goes on where it stopped.

    It survives anything: Ctrl-C, `kill -9`, a power cut. No query is paid for twice.

    Example: `motherlode run configs/branin.yaml budget.cost=20 --dir runs/small`
    """
    if dry_run:
        _forecast(config, assignments or ())
        return
    from flows.execution import runner_for
    from pipeline.campaign import Campaign

    with one_line_errors():
        _run(
            lambda: Campaign.from_config(
                config, dir, overrides=assignments or (), runner=runner_for
            )
        )


def _forecast(config: Path, assignments: Sequence[str]) -> None:
    """Print how the campaign's money would go; nothing is written and nothing dear is asked."""
    from pipeline.campaign import checked
    from pipeline.config import override, read_yaml
    from pipeline.dry_run import dry_run

    folder = config.resolve().parent
    with one_line_errors():
        parts = checked(override(read_yaml(config), assignments), folder)
        with contextlib.ExitStack() as stack:

            def watch(campaign: Any) -> Any:
                return stack.enter_context(TerminalProgress(campaign))

            table = dry_run(parts, folder, watch)
    cheapest = parts.fidelities[0]
    console.print(frame_table(table, f"Forecast: `{cheapest}` answered for all; nothing was paid"))


@app.command()
def resume(directory: Directory, assignments: Assignments = None) -> None:
    """Go on with a campaign from its directory; its budget and execution may be changed.

    Example: `motherlode resume runs/branin budget.cost=60 budget.rounds=8`
    """
    from flows.execution import runner_for
    from pipeline.campaign import Campaign

    with one_line_errors():
        _run(lambda: Campaign.resume(directory, overrides=assignments or (), runner=runner_for))


def _run(open_campaign: Any) -> None:
    """Run an opened campaign as a Prefect flow, tracked, watched and reported."""
    from flows.artifacts import PrefectArtifacts
    from flows.campaign import prefect_server, run_as_flow
    from flows.tracking import tracking
    from pipeline.progress import Several

    signal.signal(signal.SIGTERM, _interrupt)
    # On a server that others look at too, the rounds have their pages.
    is_shared = bool(os.environ.get("PREFECT_API_URL"))
    with open_campaign() as campaign:
        stop_in_order()
        directory, config = campaign.directory, campaign.config
        # Tracking also catches up with what a crash after the last round left out.
        with tracking(directory, config.tracking) as view:
            if not campaign.is_complete():
                campaign.runner.start()
                with prefect_server(directory) as wait, TerminalProgress(campaign) as terminal:
                    pages = [PrefectArtifacts(campaign)] if is_shared else []
                    campaign.progress = Several(terminal, view, *pages)
                    wait()
                    run_as_flow(campaign, is_shared)
    _conclude(directory, config)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _conclude(directory: Path, config: CampaignConfig) -> None:
    from pipeline.report import write_report

    page = write_report(directory)
    _print_best(directory)
    console.print(pairs({"report": str(page)} | _mlflow_place(directory, config.tracking)))


def _mlflow_place(directory: Path, tracking: Tracking) -> dict[str, str]:
    if tracking.kind == "none":
        return {}
    uri = tracking.uri or f"sqlite:///{directory / 'mlflow.db'}"
    return {"MLflow": f"mlflow ui --host 127.0.0.1 --backend-store-uri {uri}"}


@app.command()
def validate(config: ConfigPath, assignments: Assignments = None, dir: DirOption = None) -> None:
    """Check a config, writing nothing: every error at once, or what it resolves to and costs.

    Example: `motherlode validate configs/crystal_formation_energy.yaml`
    """
    from pipeline.campaign import check_directory, checked, directory_of
    from pipeline.config import override, read_yaml
    from pipeline.initial import check_initial

    folder = config.resolve().parent
    with one_line_errors():
        parts = checked(override(read_yaml(config), assignments or ()), folder)
        check_directory(directory_of(parts.config, dir), parts.config)
        console.print(parts.config.as_yaml(), markup=False, soft_wrap=True)
        console.print(pairs(_most_it_costs(parts, check_initial(parts, folder))))


def _most_it_costs(parts: Any, initial: float) -> dict[str, str]:
    budget, target = parts.config.budget, parts.ladder[-1]
    left = budget.cost - initial
    return {
        "costs at most": f"{budget.cost:g}, of which the initial design {initial:g}",
        "ladder": " < ".join(f"{rung.fidelity} {rung.cost:g}" for rung in parts.ladder),
        "rounds": f"{budget.rounds}, about {left / budget.rounds:g} each",
        "target queries": f"at most {int(left / target.cost + 1e-9)} after the initial design",
    }


@app.command()
def status(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Say where a campaign stands, also while it runs.

    Example: `motherlode status runs/branin --json`
    """
    from pipeline.status import read_status

    with one_line_errors():
        found = read_status(directory)
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    shown = {name: value for name, value in found.items() if name != "queries"}
    console.print(pairs(shown))
    for fidelity, counts in found["queries"].items():
        told = ", ".join(f"{n} {state}" for state, n in counts.items())
        console.print(f"  {fidelity}: {told}")


@app.command()
def report(directory: Directory) -> None:
    """Write the campaign's report, one self-contained HTML page.

    Example: `motherlode report runs/branin`
    """
    from pipeline.report import write_report

    with one_line_errors():
        console.print(str(write_report(directory)), soft_wrap=True)


@app.command()
def export(
    directory: Directory,
    out: Annotated[Path, typer.Option("--out", help="FILE.csv, FILE.parquet or FILE.json.")],
) -> None:
    """Write every query and outcome of the ledger to a table.

    Example: `motherlode export runs/branin --out branin.csv`
    """
    from pipeline.export import write_table

    with one_line_errors():
        rows = write_table(directory, out)
        console.print(f"{rows} rows in {out}", soft_wrap=True)


@app.command()
def sample(
    directory: Directory,
    n: Annotated[int, typer.Option("--n", min=1, help="How many candidates.")],
    out: Annotated[Path, typer.Option("--out", help="FILE.csv, FILE.parquet or FILE.json.")],
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where", metavar="KEY=VALUE", help="A restriction; may be given several times."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed, the same candidates.")] = 0,
) -> None:
    """Draw candidates from a campaign's trained sampler, restricted at will, without retraining.

    Keys of a restriction depend on the space; a wrong one is answered with those it knows. Nothing
    is queried.

    Example: `motherlode sample runs/crystal_formation_energy --n 100 --where elements=[Mg,O]
    --where lattice_system=cubic --out oxides.csv`
    """
    from pipeline.config import override
    from pipeline.draw import draw
    from pipeline.export import check_format, write_frame

    with one_line_errors():
        check_format(out)
        write_frame(draw(directory, n, override({}, where or ()), seed), out)
        console.print(f"{n} rows in {out}", soft_wrap=True)


@app.command()
def pending(
    directory: Directory,
    out: Annotated[
        Path | None, typer.Option("--out", help="FILE.csv, FILE.parquet or FILE.json.")
    ] = None,
) -> None:
    """Show the batch that waits for your approval: what, at which fidelity, for how much, and why.

    Example: `motherlode pending runs/branin`
    """
    from pipeline.approval import waiting_batch
    from pipeline.export import check_format, write_frame

    with one_line_errors():
        if out is not None:
            check_format(out)
        found = waiting_batch(directory)
        if found is None:
            console.print("no batch waits for approval")
            return
        number, batch = found
        if out is not None:
            write_frame(batch, out)
        shown = batch.assign(key=batch["key"].str[:8]).drop(columns=["candidate", "why"])
        console.print(
            frame_table(shown, f"Round {number}: {len(batch)} queries for {batch['cost'].sum():g}")
        )
        console.print(f"motherlode approve {directory} [--drop KEY], or reject {directory} --why …")


@app.command()
def approve(
    directory: Directory,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop", metavar="KEY", help="Leave this query out, for good; several times."
        ),
    ] = None,
) -> None:
    """Let the waiting batch go out: `motherlode resume` then spends its cost.

    A key may be cut short as long as it names one query.

    Example: `motherlode approve runs/branin --drop 3fa85f64`
    """
    from pipeline.approval import approve as decide

    with one_line_errors():
        number, n_left = decide(directory, drop or ())
    console.print(f"round {number}: {n_left} queries approved")


@app.command()
def reject(
    directory: Directory,
    why: Annotated[str, typer.Option("--why", help="The reason, kept in the ledger.")],
) -> None:
    """Refuse the waiting batch: nothing is spent, and none of it is proposed again.

    Example: `motherlode reject runs/branin --why "too many oxides"`
    """
    from pipeline.approval import reject as decide

    with one_line_errors():
        number, n = decide(directory, why)
    console.print(f"round {number}: {n} queries rejected; they are not proposed again")


@app.command()
def retry(
    directory: Directory,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="Only this query; several times."),
    ] = None,
) -> None:
    """Let failed queries be tried once more: `resume` then asks them again.

    What a failure cost stays paid. A key may be cut short as long as it names one query.

    Example: `motherlode retry runs/branin`
    """
    from pipeline.retry import retry as reopen

    with one_line_errors():
        keys = reopen(directory, key or ())
    console.print(f"{len(keys)} queries to be tried again; go on: motherlode resume {directory}")


@app.command()
def serve(
    config: ConfigPath,
    cron: Annotated[
        str, typer.Option("--cron", help="When, such as `0 2 * * *`: at two at night.")
    ],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds each time.")] = 1,
    dir: DirOption = None,
) -> None:
    """Advance a campaign by some rounds on a schedule, until this command is stopped.

    Prefect makes the runs: on the server that PREFECT_API_URL names, or on one of the campaign's
    own, whose page this command prints. Several campaigns: one `serve` each. A run that finds the
    campaign busy leaves it alone. What `motherlode resume` changed since the file was written stays
    changed.

    Example: `motherlode serve configs/branin.yaml --cron "0 2 * * *" --rounds 1`
    """
    from flows.campaign import prefect_server

    signal.signal(signal.SIGTERM, _interrupt)
    with one_line_errors():
        directory, name, told = _opened_once(config, dir)
        stop_in_order()
        with prefect_server(directory, schedules=True) as wait:
            _check_cron(cron)
            wait()
            from flows.deploy import serve as serve_flow

            shown = {"page": _prefect_page(), "campaign": str(directory)}
            console.print(pairs(shown | ({"now": told} if told else {})))
            serve_flow(config, cron, rounds, directory, name)


def _opened_once(config: Path, dir: Path | None) -> tuple[Path, str, str]:
    """A campaign's directory, its name, and what a person should know; every error comes now.

    One that another process holds is served all the same: runs leave it alone meanwhile, such as
    while a flow run works on whose `serve` was killed.
    """
    from flows.execution import runner_for
    from flows.standing import as_it_stands
    from pipeline.campaign import Campaign, LockedError, directory_of
    from pipeline.config import parse, read_yaml

    assignments, told = as_it_stands(config, dir)
    try:
        with Campaign.from_config(config, dir, overrides=assignments, runner=runner_for) as opened:
            return opened.directory, opened.config.name, "; ".join(told)
    except LockedError as error:
        wanted = parse(read_yaml(config))
        return directory_of(wanted, dir), wanted.name, str(error).partition(";")[0]


def _check_cron(cron: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    from pipeline.config import ConfigError

    try:
        CronSchedule(cron=cron)
    except ValueError:
        raise ConfigError(
            [f"--cron {cron}: expected minute, hour, day, month, weekday, such as `0 2 * * *`"]
        ) from None


def _prefect_page() -> str:
    return os.environ["PREFECT_API_URL"].removesuffix("/").removesuffix("/api")


@app.command("list")
def list_kinds(
    kind: Annotated[
        Literal["environments", "oracles", "surrogates", "acquisitions", "samplers", "losses"]
        | None,
        typer.Argument(help="What to list; everything when left out."),
    ] = None,
) -> None:
    """List the kinds a config can name, with their options.

    Example: `motherlode list oracles`
    """
    from pipeline.catalogue import describe_kinds

    for section, entries in describe_kinds(kind).items():
        console.print(f"[bold]{section}[/bold]")
        for entry in entries:
            console.print(f"  [cyan]{entry.kind}[/cyan]  {entry.summary}", soft_wrap=True)
            for option in entry.options:
                console.print(f"      {option}", markup=False, soft_wrap=True)


@app.command()
def track(
    directory: Directory,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Start MLflow's view anew.")] = False,
) -> None:
    """Bring MLflow's view of a campaign up to date with its ledger, or build it anew.

    Example: `motherlode track runs/branin --rebuild`
    """
    from flows.tracking import track_directory

    with one_line_errors():
        track_directory(directory, rebuild)


def _print_best(directory: Path) -> None:
    from pipeline.snapshot import read_snapshot
    from pipeline.tables import short_table

    table = short_table(read_snapshot(directory))
    if table.empty:
        console.print("nothing was found at the target fidelity yet")
        return
    console.print(frame_table(table, f"The {len(table)} best different candidates"))

"""What a person sees in the terminal: progress, tables, one line an error."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from pipeline import progress
from pipeline.goal import Target

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.campaign import Campaign

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def complain(problems: Sequence[str]) -> None:
    """One line for each problem, on standard error."""
    for problem in problems:
        errors.print(Text.assemble(("error: ", "bold red"), problem))


class TerminalProgress(progress.Progress):
    """Round, spend, best so far and time left, on one live line, or a line a round in a file."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.began = time.monotonic()
        self.rounds_timed: list[float] = []
        self.number = 0
        self._done_steps = 0
        self._bar = Progress(
            TextColumn("[bold]{task.fields[headline]}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=None, headline="")
        self._live = Live(self._bar, console=console, transient=True, refresh_per_second=5)

    def __enter__(self) -> TerminalProgress:
        if console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self._live.stop()

    def round(self, number: int, rounds: int) -> None:
        """A round begins."""
        self.number = number
        self.round_began = time.monotonic()
        self._show(f"round {number}/{rounds}")

    def verb(self, name: str) -> None:
        """The round goes on to this verb."""
        self._done_steps = 0
        steps = self.campaign.config.sampler.options.get("n_steps") if name == "train" else None
        self._bar.update(self._task, description=name, completed=0, total=steps)

    def step(self, step: int, loss: float) -> None:
        """The sampler made a step."""
        self._done_steps += 1
        self._bar.update(self._task, completed=self._done_steps)

    def queries(self, n: int) -> None:
        """Queries were dispatched."""
        self._bar.update(self._task, completed=0, total=n)

    def answered(self) -> None:
        """One was answered."""
        self._bar.advance(self._task)
        self._show(f"round {self.number}/{self.campaign.config.budget.rounds}")

    def recorded(self, number: int) -> None:
        """A round is complete: leave a line that stays."""
        if number > 0:
            self.rounds_timed.append(time.monotonic() - self.round_began)
        rows = self.campaign.ledger.round_queries(number)
        failed = sum(row["state"] == "failed" for row in rows)
        line = f"round {number}/{self.campaign.config.budget.rounds}  {len(rows):3d} queries"
        line += f" ({failed} failed)" if failed else ""
        console.print(f"{line}  {self._figures()}", soft_wrap=True)

    def note(self, text: str) -> None:
        """Leave the line on the screen."""
        console.print(text, markup=False, soft_wrap=True)

    def _show(self, headline: str) -> None:
        self._bar.update(self._task, headline=f"{headline}  {self._figures()}")

    def _figures(self) -> str:
        campaign = self.campaign
        found = campaign.ledger.best(campaign.target, campaign.goal)
        best = None if found is None else found[1]
        unit = campaign.config.objective.unit
        shown = "–" if best is None else f"{best:.4g} {unit}".rstrip()
        if best is not None and isinstance(campaign.goal, Target):
            shown += f" ({abs(best - campaign.goal.target):.3g} off {campaign.goal.target:g})"
        spent = campaign.ledger.spend()
        return f"spend {spent:g}/{campaign.config.budget.cost:g}  best {shown}  {self._time()}"

    def _time(self) -> str:
        elapsed = _clock(time.monotonic() - self.began)
        if not self.rounds_timed:
            return f"{elapsed} gone"
        mean = sum(self.rounds_timed) / len(self.rounds_timed)
        left = max(0.0, (self.campaign.config.budget.rounds - self.number) * mean)
        return f"{elapsed} gone, about {_clock(left)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def frame_table(frame: pd.DataFrame, title: str) -> Table:
    """A frame as a table: numbers right, four digits, a dash where there is none.

    Long headers fold, cells do not: what was found is read, its column names are known.
    """
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in frame.columns:
        numeric = frame[name].dtype.kind in "fiu"
        header = str(name).replace("_", " ")
        words = [*header.split(), *(_cell(value) for value in frame[name])]
        table.add_column(
            header,
            justify="right" if numeric else "left",
            overflow="fold",
            min_width=max(map(len, words)),
        )
    for row in frame.itertuples(index=False):
        table.add_row(*map(_cell, row))
    return table


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN is the one value that differs from itself
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def pairs(rows: Mapping[str, Any]) -> Table:
    """Names and values in two columns."""
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), _cell(value))
    return table

"""Where the command line prints: results to standard output, progress and errors to standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

output = Console()
errors = Console(stderr=True)


@contextmanager
def speaking(wanted: bool) -> Iterator[None]:
    """Print within the block only if wanted; an error that leaves it is printed always."""
    output.quiet = errors.quiet = not wanted
    try:
        yield
    finally:
        output.quiet = errors.quiet = False


class Bar:
    """A progress bar over a share from 0 to 1."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._whole, self._unit = 100.0, "%"

    def of(self, whole: float, unit: str) -> None:
        """Show the rate in a unit of which this many make the whole."""
        self._whole, self._unit = whole, unit

    def by(self, share: float) -> None:
        """This much more is done."""
        self._progress.advance(self._task, share)
        self._show_rate()

    def to(self, share: float) -> None:
        """This much is done in all."""
        self._progress.update(self._task, completed=share)
        self._show_rate()

    def _show_rate(self) -> None:
        speed = self._progress.tasks[0].speed
        self._progress.update(self._task, rate=f"{self._whole * speed:.1f} {self._unit}/s" if speed else "")


@contextmanager
def progress_bar(description: str) -> Iterator[Bar]:
    """A bar with its rate and the remaining time, gone when done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        yield Bar(progress, progress.add_task(description, total=1.0, rate=""))


class JobsBar:
    """A progress bar over jobs that run side by side."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, running: list[str], done: int, total: int) -> None:
        """What runs now, and how much of all is done."""
        self._progress.update(self._task, completed=done, total=total, running=", ".join(running))


@contextmanager
def jobs_bar() -> Iterator[JobsBar]:
    """A bar with the jobs done, the time passed and left, and what runs now."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[running]}"),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        yield JobsBar(progress, progress.add_task("", total=None, running=""))

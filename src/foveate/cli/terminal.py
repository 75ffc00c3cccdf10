"""The terminal: the arguments that several commands take from it, and where they print.

Results go to standard output, progress and errors to standard error. What is printed holds names of files, classes and
packages, and messages of libraries. None of it is markup: a name may be `img[red].jpg`, and `foveate[viewer]` is an
extra. So no text is ever parsed here. Styles are given beside the text.
"""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

import typer
from rich import progress as parts
from rich.console import Console
from rich.text import Text

import foveate
from foveate import reporting, runs
from foveate.errors import CheckpointError, ConfigError, ImageReadError


def _trust(given: list[str] | None) -> list[str] | None:
    """What --code allows, in this process and those it starts."""
    if given:
        foveate.trust_code(*given)
    return given


def _run_folder(text: str) -> Path:
    """The folder of a run; one on the hub is downloaded first."""
    if not text.startswith("hf:/"):
        return Path(text)
    return runs.share.fetch(text)


Overrides: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Configuration values to change.")
]
RunFolder: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", parser=_run_folder, help="Folder of a finished or running training, or hf://USER/NAME."
    ),
]
# Of earlier versions; --devices says both.
Device: TypeAlias = Annotated[str, typer.Option(hidden=True)]
ProcessCount: TypeAlias = Annotated[int, typer.Option("--processes", min=1, hidden=True)]
Devices: TypeAlias = Annotated[
    str | None,
    typer.Option("--devices", help="Devices, one process each: auto (every GPU), cpu, cpu:4, or GPUs: 0, 0,2, 0-3."),
]
Sets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="The same as KEY=VALUE; may be repeated."),
]
Changes: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Configuration values to change.")
]
Checkpoint: TypeAlias = Annotated[str, typer.Option(help="Which checkpoint to load: best or last.")]
Code: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        metavar="FOLDER|NAME",
        callback=_trust,
        help="Allow your own network: the folder of its module, or an installed package.module:callable.",
    ),
]
Plane: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="N|z=N,t=N|bands", help="Plane of a stack, counted from 1; or bands, if its pages are bands."),
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]


def joined(overrides: list[str] | None, sets: list[str] | None) -> list[str]:
    """Values to change that were given alone and by --set; the latter count where both name a key."""
    return [*(overrides or []), *(sets or [])]


def places(devices: str | None, device: str, processes: int) -> tuple[str, int]:
    """The device of each process, joined by commas, or one for all of them; and how many processes."""
    from foveate.devices import device_named, devices_of

    if devices is None:
        place = device_named(device)
        return place.type if device in ("auto", "cuda") else str(place), processes
    found = devices_of(devices)
    return ",".join(dict.fromkeys(found)), len(found)


def loading(checkpoint: str, overrides: list[str], devices: str | None, device: str, processes: int) -> runs.Loading:
    """How a run is loaded, and by how many processes."""
    place, count = places(devices, device, processes)
    return {"checkpoint": checkpoint, "overrides": overrides, "device": place, "processes": count}


def one_of(allowed: Any, name: str, option: str) -> Any:
    """A name that an option gives, which is one of a `Literal`."""
    if name not in get_args(allowed):
        raise ConfigError(f"{option} {name}; allowed are {', '.join(get_args(allowed))}")
    return name


def check_run(run: Path, overrides: list[str] | None = None, *, data: bool = False) -> None:
    """Refuse at once, before torch is loaded, what is no run, a bad setting, or data that are not there."""
    config = foveate.RunConfig.load(run / "config.yaml", overrides)
    folder = run / "checkpoints"
    weights = (folder / "best.ckpt", folder / "last.ckpt", run / "model.safetensors")  # the last of a run from the hub
    if not config.is_ensemble and not any(path.exists() for path in weights):
        raise CheckpointError(
            f"no checkpoint at {folder / 'last.ckpt'}; a run keeps best.ckpt and last.ckpt in its folder checkpoints"
        )
    if data:
        config.data.check_there()


NOTHING = "nothing at {}; give an image, a class map, polygons or a folder of predictions"


def check_there(*places: str | Path, says: str = "no image at {}") -> None:
    """Refuse files and folders that are not there at once, before what reads them is loaded; servers are not asked."""
    for place in map(str, places):
        # A path has made one slash of the two of an address; and {band} stands for several files.
        elsewhere = ":/" in place or place.startswith("/vsi") or "{" in place
        if not elsewhere and not Path(place).exists():
            raise ImageReadError(says.format(place))


def show_image(location: str | Path, plane: str | None = None) -> None:
    """Print what an image is."""
    from foveate.data.readers.base import plane_of

    with foveate.open_image(location, plane=plane_of(plane)) as reader:
        output.print(reporting.tables.facts_table(reader.location, reporting.tables.image_facts(reader)))


def refuse_method(option: str, names: str | None, today: str) -> None:
    """Refuse an option of earlier versions, which named estimators a second time."""
    if names is None:
        return
    from foveate.foveation.config import name_today

    now = ",".join(name_today(name) for name in names.split(","))
    raise ConfigError(f"{option} {names} is called {today} {now} now; see CHANGELOG.md")


# A name of a file may hold them, and a terminal would obey.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PlainConsole(Console):
    """A console that prints text as it is: no markup, no emoji codes, no colours of its own, no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text as it is, in tables too, whatever Rich is asked to parse."""
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})

    def say(self, text: str, label: str = "", style: str = "") -> None:
        """A message that is not wrapped, so that it can be copied; after a label in a style of its own."""
        before = f"{label}: " if label else ""
        self.print(Text.assemble((before, style), printable(text)), soft_wrap=True)


def printable(text: str) -> str:
    """The text with control characters, and bytes of names that are no text, spelled out."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


_SECONDS_A_LINE = 30.0

output = PlainConsole()
errors = PlainConsole(stderr=True)


def say_how_to_resume(stopped: Exception, *, resume: bool = True) -> None:
    """Say that work was stopped, and the command that goes on with it.

    Args:
        stopped: says how far it came.
        resume: go on with what is there; otherwise the command was stopped before it had changed anything.
    """
    given = [word for word in sys.argv[1:] if not resume or word not in ("--resume", "--overwrite")]
    again = shlex.join(["foveate", *given, *(["--resume"] if resume else [])])
    errors.say(f"{stopped}; to continue, run\n\n    {again}\n")


def show_cursor() -> None:
    """Where a process ends in the middle of a progress bar, which hides it."""
    errors.show_cursor(True)


@contextmanager
def speaking(wanted: bool) -> Iterator[None]:
    """Print within the block only if wanted; an error that leaves it is printed always."""
    output.quiet = errors.quiet = not wanted
    try:
        yield
    finally:
        output.quiet = errors.quiet = False


class Bar:
    """A share of work from 0 to 1: a bar with its rate; for a file or a pipe a line every half minute."""

    def __init__(self, progress: parts.Progress, description: str) -> None:
        self._progress, self._description, self._done = progress, description, 0.0
        progress.add_task(printable(description), total=1.0, rate="")
        self._start = self._said = time.monotonic()
        self._whole, self._unit = 100.0, "%"

    def of(self, whole: float, unit: str) -> None:
        """Show the rate in a unit of which this many make the whole."""
        self._whole, self._unit = whole, unit

    def by(self, share: float) -> None:
        """This much more is done."""
        self.to(self._done + share)

    def to(self, share: float) -> None:
        """This much is done in all."""
        self._done, task = share, self._progress.tasks[0]
        self._progress.update(task.id, completed=share)
        self._progress.update(task.id, rate=self._rate(task.speed) if task.speed else "")
        now = time.monotonic()
        if not errors.is_terminal and now - self._said >= _SECONDS_A_LINE and 0 < share < 1:
            self._said, speed = now, share / (now - self._start)
            left = timedelta(seconds=round((1 - share) / speed))
            errors.say(f"{self._description}: {share:.0%} done, {self._rate(speed)}, about {left} left")

    def _rate(self, speed: float) -> str:
        return f"{self._whole * speed:.1f} {self._unit}/s"


@contextmanager
def progress_bar(description: str) -> Iterator[Bar]:
    """A bar with its rate and the remaining time, gone when done; lines where there is no terminal."""
    with _progress(
        parts.TextColumn("{task.description}", markup=False),
        parts.BarColumn(),
        parts.TaskProgressColumn(),
        parts.TextColumn("{task.fields[rate]}", markup=False),
        parts.TimeRemainingColumn(),
    ) as progress:
        yield Bar(progress, description)


def _progress(*columns: parts.ProgressColumn) -> parts.Progress:
    shown = errors.is_terminal
    return parts.Progress(parts.SpinnerColumn(), *columns, console=errors, transient=True, disable=not shown)


class JobsBar:
    """Jobs that run side by side: a bar; for a file or a pipe a line for each that begins."""

    def __init__(self, progress: parts.Progress) -> None:
        self._progress, self._task = progress, progress.add_task("", total=None, running="")
        self._begun: set[str] = set()
        self._start, self._first = time.monotonic(), -1

    def show(self, running: list[str], done: int, total: int) -> None:
        """What runs now, how much of all is done, and in lines the time passed, and about how much is left."""
        self._progress.update(self._task, completed=done, total=total, running=", ".join(running))
        self._first = done if self._first < 0 else self._first
        new = [f"; now {name}" for name in running if name not in self._begun] if running else [""]
        for begun in [] if errors.is_terminal else new:
            errors.say(f"{done} of {total} done{self._times(done, total)}{begun}")
        self._begun.update(running)

    def _times(self, done: int, total: int) -> str:
        passed, made = time.monotonic() - self._start, done - self._first
        if not made:
            return ""
        left = passed / made * (total - done)
        return f" in {timedelta(seconds=round(passed))}, about {timedelta(seconds=round(left))} left"


@contextmanager
def jobs_bar() -> Iterator[JobsBar]:
    """A bar with the jobs done, the time passed and left, and what runs now; lines where there is no terminal."""
    with _progress(
        parts.BarColumn(),
        parts.MofNCompleteColumn(),
        parts.TimeElapsedColumn(),
        parts.TimeRemainingColumn(),
        parts.TextColumn("{task.fields[running]}", markup=False),
    ) as progress:
        yield JobsBar(progress)

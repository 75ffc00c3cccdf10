"""Commands that make a model: `foveate init`, `foveate train` and `foveate demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveate.cli.arguments import (
    Code,
    Overrides,
    Overwrite,
    Sets,
    check_folder,
    check_not_trained,
    joined,
    refuse_method,
)
from foveate.cli.console import errors, output, progress_bar, say_how_to_resume, show_cursor, speaking
from foveate.errors import StoppedError
from foveate.processes import StoppedAtOnce

if TYPE_CHECKING:
    from foveate.processes import Stop
    from foveate.runs.config import RunConfig
    from foveate.runs.folder import RunFolder
    from foveate.runs.train import TrainingPart


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, or a folder with images/ and masks/.")],
    overrides: Overrides = None,
    sets: Sets = None,
    estimator: Annotated[
        str | None,
        typer.Option(help="Replaces the estimator of CONFIG: fixed_1, mean, ... (see foveate compare --help)."),
    ] = None,
    method: Annotated[str | None, typer.Option(hidden=True)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue exactly from the last checkpoint.")] = False,
    overwrite: Overwrite = False,
    devices: Annotated[
        str | None,
        typer.Option(
            help="Devices of each computer, one process each: auto (every GPU), cpu, cpu:2, or GPUs: 0, 0,2, 0-3."
        ),
    ] = None,
    nodes: Annotated[int, typer.Option(help="Number of computers that train together.")] = 1,
    accelerator: Annotated[str, typer.Option(hidden=True)] = "auto",
    code: Code = None,
) -> None:
    """Train a segmentation network as a configuration describes.

    CONFIG may also be a folder of images and labels. Its configuration is then written first, as `foveate init
    FOLDER` does.

    Results are RUN/config.yaml (with every setting), RUN/checkpoints/best.ckpt and last.ckpt, RUN/metrics.csv and
    RUN/tensorboard.

    Ctrl-C and SIGTERM stop the training after the current step and save a checkpoint. The same command with
    --resume continues from exactly that step. Only one training can use a folder at a time.

    The estimator `ensemble` trains one network for each field of view, in RUN/members, and combines them.

    Examples:

        foveate train data/mine

        foveate train configs/idrid.yaml

        foveate train configs/idrid.yaml training.steps=200 foveation.fields_of_view=[256,512,1024] --out runs/short

        foveate train configs/idrid.yaml --estimator mean --out runs/idrid-mean

        foveate train configs/idrid.yaml --resume

        foveate train configs/idrid.yaml --devices 0-3
    """
    from foveate.runs.config import RunConfig

    # What is wrong with what was given is said before torch is loaded.
    refuse_method("--method", method, "--estimator")
    settings = RunConfig.load(_config_file(config), joined(overrides, sets), estimator)
    settings.check_files()
    folder = out or Path("runs") / settings.name
    if not (settings.is_ensemble or resume or overwrite or "WORLD_SIZE" in os.environ):
        check_not_trained(folder)

    from foveate.devices import is_first_process
    from foveate.processes import stopping
    from foveate.runs.folder import RunFolder
    from foveate.runs.train import trainings
    from foveate.training.processes import Processes

    processes = Processes.of(devices or 1, nodes, accelerator)
    processes.check_share(settings.training.images_per_step)
    places: dict[str, Any] = {"devices": devices or 1, "nodes": nodes, "accelerator": accelerator}
    run = RunFolder(folder)

    def on_signal() -> None:
        errors.say("stopping after this step; press Ctrl-C again to stop at once")

    with speaking(is_first_process()), stopping(on_signal, show_cursor) as stop:
        try:
            with trainings(settings, run, resume=resume, overwrite=overwrite) as parts:
                for part in parts:
                    _train(part, overwrite, stop, str(processes), **places)
                if settings.is_ensemble:
                    run.mark_trained()
        except StoppedError as error:
            say_how_to_resume(error, resume=settings.is_ensemble or not isinstance(error, _NothingWrittenError))
            raise typer.Exit(stop.exit_code) from None
        _say_next(settings, run)


_NOT_BEGUN = "stopped before the first step"


class _NothingWrittenError(StoppedError):
    """Stopped before the folder of the run was made."""


def _train(part: TrainingPart, overwrite: bool, stop: Stop, where: str, **places: Any) -> None:
    """Train a part of the run to its last step."""
    from foveate.reporting.passes import note_of_training
    from foveate.reporting.tables import facts_table, labels_table, percent
    from foveate.runs.train import prepare_training
    from foveate.training.history import read_history

    stop.at_once = True
    try:
        with progress_bar("checking and indexing labels") as bar:
            prepared = prepare_training(
                part.config, part.run, resume=part.resume, overwrite=overwrite, on_progress=bar.to
            )
    except StoppedAtOnce:
        raise _NothingWrittenError(_NOT_BEGUN) from None
    errors.print(labels_table(prepared.data.class_table))
    for note in prepared.data.notes:
        errors.say(note, "note")
    errors.say(f"training {part.config.name} for {part.config.training.steps} steps on {where}, into {part.run.path}")
    try:
        result = prepared.fit(**places, should_stop=stop)
    except StoppedAtOnce:
        raise StoppedError(_NOT_BEGUN) from None
    part.run.mark_trained(result.seconds)
    facts = {
        "run": part.run.path,
        "steps": result.steps,
        "seconds": f"{result.seconds:.1f}",
        "best validation mIoU %": percent(result.best_miou),
        "best checkpoint": result.best_path,
    }
    output.print(facts_table("Trained", facts))
    one_view = note_of_training(read_history(part.run.path / "metrics.csv"), part.config.foveation)
    if one_view:
        errors.say(one_view, "note", "yellow")


def _say_next(settings: RunConfig, run: RunFolder) -> None:
    """The next command: tune where the estimator spends a budget of passes, else evaluate."""
    tunes = settings.foveation.estimator.walk.planner == "pyramid" and run.checkpoint("best").exists()
    output.say(f"next: foveate {'tune' if tunes else 'evaluate'} {run.path}")


def _config_file(given: Path) -> Path:
    """The configuration: as given, or that of a folder, which is written where it is not there yet."""
    if not given.is_dir():
        return given
    from foveate.runs.init import init as write
    from foveate.runs.init import name_of

    path = Path(f"{name_of(given)}.yaml")
    if path.exists():
        errors.say(f"using the existing {path}; foveate init {given} --overwrite writes it again")
    else:
        _say_found(given, write(given, path))
    return path


def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs, predictions and pictures.")] = Path("demo-output"),
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Configuration values to change.")
    ] = None,
    compare: Annotated[bool, typer.Option(help="Also train and evaluate every fixed field of view.")] = True,
    minutes: Annotated[float, typer.Option(help="Time limit; comparisons that would exceed it are left out.")] = 6.0,
    overwrite: Overwrite = False,
) -> None:
    """Segment the whole Earth into sea, land and lakes, with data that pip installs (`foveate[demo]`).

    The demonstration trains on the Americas, evaluates on the rest of the world, and predicts all 14.6 megapixels.
    Every fixed field of view is trained for as many steps and evaluated too, as far as --minutes allows. This takes
    a few minutes on two cores. It writes a table, pictures and all figures.

    Examples:

        foveate demo

        foveate demo --out earth --no-compare
    """
    import time

    from foveate.demo import run_demo
    from foveate.files import refuse_existing
    from foveate.reporting.tables import comparison_table

    refuse_existing(out / "results.json", overwrite)
    start = time.monotonic()
    result = run_demo(out, errors.say, overrides=change, compare=compare, minutes=minutes)
    output.print(comparison_table("Everything outside the Americas, never seen in training", result.evaluations))
    for path in (*result.pictures, result.results):
        output.say(f"written: {path}")
    output.say(f"done in {time.monotonic() - start:.0f} s")


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds images/ and masks/.")],
    out: Annotated[Path | None, typer.Option(help="Configuration to write (default: NAME.yaml).")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Examine a folder of images and labels and write a configuration to train on them.

    FOLDER holds images/ and masks/ (or labels/ or annotations/). Labels are masks of class ids, masks in colours,
    or polygons (GeoJSON from QuPath or QGIS, GeoPackage, shapefile, COCO). They have the names of their images.

    The configuration holds classes, patch size, fields of view, sampling, augmentation, validation images, and the
    steps and batch size for this computer. A comment gives the reason for each choice. A single image is divided
    into regions for training and validation.

    Class names come from FOLDER/classes.txt (one per line) or, for colours, from FOLDER/class_dict.csv (name, r, g,
    b), if these files exist.

    Examples:

        foveate init data/mine

        foveate init data/mine --out configs/mine.yaml
    """
    check_folder(folder)

    from foveate.runs.init import init as write

    result = write(folder, out, overwrite=overwrite)
    _say_found(folder, result)
    output.say(f"next: foveate train {result.path}")


def _say_found(folder: Path, result: object) -> None:
    """What was found in a folder, and what was written."""
    from foveate.reporting.tables import facts_table
    from foveate.runs.init import Initialised

    assert isinstance(result, Initialised)
    output.print(facts_table(f"{folder}", result.found))
    for problem in result.problems:
        errors.say(problem, "note", "bold yellow")
    output.say(f"written to {', '.join(map(str, result.files))}")

"""Commands that make a model, and hand it on: `foveate init`, `train`, `export` and `push`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import foveate
from foveate import reporting, runs
from foveate.cli import terminal
from foveate.cli.terminal import errors, output, progress_bar, say_how_to_resume, show_cursor, speaking
from foveate.errors import DatasetError, OutputExistsError, StoppedError
from foveate.processes import Stop, StoppedAtOnce, is_first_process, stopping
from foveate.texts import metres, percent

if TYPE_CHECKING:
    from foveate.training.processes import Processes


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, or a folder with images/ and masks/.")],
    overrides: terminal.Overrides = None,
    sets: terminal.Sets = None,
    estimator: Annotated[
        str | None,
        typer.Option(help="Replaces the estimator of CONFIG: fixed_1, mean, ... (see foveate compare --help)."),
    ] = None,
    method: Annotated[str | None, typer.Option(hidden=True)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue exactly from the last checkpoint.")] = False,
    overwrite: terminal.Overwrite = False,
    devices: Annotated[
        str | None,
        typer.Option(
            help="Devices of each computer, one process each: auto (every GPU), cpu, cpu:2, or GPUs: 0, 0,2, 0-3."
        ),
    ] = None,
    nodes: Annotated[int, typer.Option(help="Number of computers that train together.")] = 1,
    accelerator: Annotated[str, typer.Option(hidden=True)] = "auto",
    code: terminal.Code = None,
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
    # What is wrong with what was given is said before torch is loaded.
    terminal.refuse_method("--method", method, "--estimator")
    settings = foveate.RunConfig.load(_config_file(config), terminal.joined(overrides, sets), estimator)
    settings.check_files()
    folder = out or Path("runs") / settings.name
    if not (settings.is_ensemble or resume or overwrite or "WORLD_SIZE" in os.environ):
        _check_not_trained(folder)

    # Torch warns that all parameters are in use, though they need not be; it reads this as it is loaded.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from foveate.training.processes import Processes

    processes = Processes.of(devices or 1, nodes, accelerator)
    processes.check_share(settings.training.images_per_step)
    run = runs.RunFolder(folder)

    stopping_note = "stopping after this step; press Ctrl-C again to stop at once"
    with speaking(is_first_process()), stopping(lambda: errors.say(stopping_note), show_cursor) as stop:
        try:
            with runs.train.trainings(settings, run, resume=resume, overwrite=overwrite) as parts:
                for part in parts:
                    _train(part, overwrite, stop, processes)
        except StoppedError as error:
            say_how_to_resume(error, resume=settings.is_ensemble or not isinstance(error, _NothingWrittenError))
            raise typer.Exit(stop.exit_code) from None
        tunes = settings.foveation.estimator.walk.planner == "pyramid" and run.checkpoint("best").exists()
        output.say(f"next: foveate {'tune' if tunes else 'evaluate'} {run.path}")


_NOT_BEGUN = "stopped before the first step"


class _NothingWrittenError(StoppedError):
    """Stopped before the folder of the run was made."""


def _train(part: runs.train.TrainingPart, overwrite: bool, stop: Stop, processes: Processes) -> None:
    from foveate.training.history import read_history

    stop.at_once = True
    try:
        with progress_bar("checking and indexing labels") as bar:
            how = {"resume": part.resume, "overwrite": overwrite}
            prepared = runs.prepare_training(part.config, part.run, **how, on_progress=bar.to)
    except StoppedAtOnce:
        raise _NothingWrittenError(_NOT_BEGUN) from None
    errors.print(reporting.tables.labels_table(prepared.data.class_table))
    for note in prepared.data.notes:
        errors.say(note, "note")
    errors.say(
        f"training {part.config.name} for {part.config.training.steps} steps on {processes}, into {part.run.path}"
    )
    try:
        result = prepared.fit(processes=processes, should_stop=stop)
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
    output.print(reporting.tables.facts_table("Trained", facts))
    if one_view := reporting.passes.note_of_training(
        read_history(part.run.path / "metrics.csv"), part.config.foveation
    ):
        errors.say(one_view, "note", "yellow")


def _check_not_trained(run: Path) -> None:
    """Refuse a folder with weights of an earlier training at once, before its labels are read."""
    found = [name for name in ("best.ckpt", "last.ckpt") if (run / "checkpoints" / name).exists()]
    if found:
        raise OutputExistsError(
            f"{run / 'checkpoints'} holds {' and '.join(found)} of an earlier run; pass --resume to continue it, "
            "--overwrite to start again, or choose another folder with --out"
        )


def _config_file(given: Path) -> Path:
    """The configuration: as given, or that of a folder, which is written where it is not there yet."""
    if not given.is_dir():
        return given
    path, written = runs.init.config_for(given)
    if written is None:
        errors.say(f"using the existing {path}; foveate init {given} --overwrite writes it again")
    else:
        _say_found(given, written)
    return path


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds images/ and masks/.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="How files are read: data.vectors..., plane, nodata."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Configuration to write (default: NAME.yaml).")] = None,
    overwrite: terminal.Overwrite = False,
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

        foveate init data/mine data.vectors.attribute=landuse
    """
    if not folder.is_dir():
        raise DatasetError(f"no folder {folder}; give a folder with images/ and masks/ (or labels/) in it")

    result = runs.init.init(folder, out, overrides=settings or [], overwrite=overwrite)
    _say_found(folder, result)
    output.say(f"next: foveate train {result.path}")


def _say_found(folder: Path, result: runs.init.Initialised) -> None:
    """What was found in a folder, and what was written."""
    output.print(reporting.tables.facts_table(f"{folder}", result.found))
    for problem in result.problems:
        errors.say(problem, "note", "bold yellow")
    output.say(f"written to {', '.join(map(str, result.files))}")


def export(
    run: terminal.RunFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .onnx or .pt2.")],
    view: Annotated[int | None, typer.Option(help="Write only this field of view, in pixels (default: all).")] = None,
    pixel_size: Annotated[
        str | None, typer.Option(metavar="LENGTH", help='Pixel size of the images, such as "0.3 m", for Deepness.')
    ] = None,
    checkpoint: terminal.Checkpoint = "best",
    overwrite: terminal.Overwrite = False,
    code: terminal.Code = None,
) -> None:
    """Write the network of a trained run as ONNX or as a torch.export program.

    OUT ends in .onnx (needs pip install 'foveate[onnx]') or .pt2. The network takes patches of raw values divided
    by their range (255 for 8 bits), normalises them itself and returns probabilities. Each field of view of the run
    gets its own file, such as model-256px.onnx and model-512px.onnx. Each file is checked against torch on patches
    of the run's images.

    Of a cascade each file but the closest also returns `handed`. The next closer one takes it, with `corners`: the
    top left of its windows in the wider ones, from 0 to 1. --view with the widest look writes that look alone.

    ONNX files hold the metadata that the QGIS plug-in Deepness reads: class names, tile size, overlap and, with
    --pixel-size, the resolution.

    Examples:

        foveate export runs/mine model.onnx --view 256

        foveate export runs/map model.onnx --view 512 --pixel-size "0.3 m"

        foveate export runs/mine model.pt2
    """
    terminal.check_run(run)
    size = metres(pixel_size) if pixel_size else None

    runs.share.check_format(out)
    trained = foveate.load(run, checkpoint=checkpoint, device="cpu")
    for done in runs.share.export(trained, out, view=view, pixel_size=size, overwrite=overwrite):
        output.say(
            f"written to {done.path}: field of view {done.view} px; probabilities differ from torch by at most "
            f"{done.apart:.1e} on {done.compared}"
        )


def push(
    run: terminal.RunFolder,
    name: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Name of the model on the hub; created if it is new.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    checkpoint: terminal.Checkpoint = "best",
    code: terminal.Code = None,
) -> None:
    """Upload a trained run to the Hugging Face Hub.

    The upload holds the weights (safetensors), the configuration without paths of this computer, the result of
    `foveate tune`, and a model card with classes, fields of view and scores. Log in first with `hf auth login`.
    Afterwards, every command that takes a RUN also takes hf://USER/NAME.

    Examples:

        foveate push runs/mine ada/vessels

        foveate predict hf://ada/vessels huge.tif --out predictions
    """
    terminal.check_run(run)
    output.say(f"pushed to {foveate.push(run, name, checkpoint=checkpoint, private=private)}")
    output.say(f"next: foveate predict hf://{name} IMAGE --out DIR")

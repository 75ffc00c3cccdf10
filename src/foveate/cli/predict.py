"""`foveate predict`."""

from __future__ import annotations

import json
import os
import re
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate import data, inference, reporting, runs
from foveate.cli import terminal
from foveate.cli.terminal import errors, output, progress_bar, say_how_to_resume, show_cursor
from foveate.errors import MISTAKES, ConfigError, FoveateError, StoppedError
from foveate.processes import Stop, stopping
from foveate.texts import size_text


def predict(
    run: terminal.RunFolder,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images to segment: files or URLs.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    change: terminal.Changes = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="What to write: classes, foveation, passes, confidence, entropy, probabilities, polygons.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help='Most passes per megapixel; fixed (the cost of one fixed view), or 50% of it; a time, "20 s"; or all.'
        ),
    ] = None,
    roi: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Predict only inside these GeoJSON polygons; or a folder of STEM.geojson files."
        ),
    ] = None,
    roi_coordinates: Annotated[
        str,
        typer.Option(help="Coordinates of the polygons: pixels, crs (of the image), lonlat, or auto (from the file)."),
    ] = "auto",
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory limit, such as 4GB; blocks and batches are reduced to fit."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a part that cannot be read instead of leaving it empty.")
    ] = False,
    checkpoint: terminal.Checkpoint = "best",
    device: terminal.Device = "auto",
    devices: terminal.Devices = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Dask cluster that predicts the blocks: tcp://HOST:8786, or local."),
    ] = None,
    overwrite: terminal.Overwrite = False,
    code: terminal.Code = None,
) -> None:
    """Segment images of any size with a trained run.

    For each image, this writes OUT/STEM.classes.tif (the class map: tiled, with overviews, colours and
    georeference), OUT/STEM.fov.tif (the expected field of view per cell), OUT/STEM.passes.tif (the windows that
    passed through the network), OUT/STEM.preview.png and OUT/STEM.json. --outputs chooses others instead; the
    class map is always among them. The preview needs the output passes or foveation.

    --budget limits the forward passes. Foveate looks widely everywhere, and closer where it expects to gain most,
    until the passes are spent.

    --roi predicts only inside polygons. Pixels without data and the glass of slides are left out too. What is left
    out is 255, nodata, in the class map; STEM.json gives the share that was looked at.

    Finished blocks are stored at once. If the run ends early, the same command with --resume continues, and the
    results are the same bytes. Ctrl-C finishes the current block first; a second Ctrl-C does not wait.

    If an image fails, the others still run, and the exit code is 1; it is 2 if nothing could begin. If parts of an
    image cannot be read, they stay empty, a warning gives their share, and the exit code is 3. An image that cannot
    be read at all fails.

    Examples:

        foveate predict runs/idrid fundus.jpg --out predictions

        foveate predict runs/dubai scene1.tif scene2.tif --out predictions --set inference.block_size=4096

        foveate predict runs/idrid fundus.jpg --out predictions --budget 30

        foveate predict runs/dubai scene1.tif --out half --budget 50%

        foveate predict runs/map scene.tif --out predictions --roi fields.geojson

        foveate predict runs/slides slide.svs --out predictions --devices 0,1 --memory 16GB --resume
    """
    if dask:
        inference.executor.require_dask()
    terminal.check_run(run, change)
    refuse_settings(images)

    from foveate.devices import device_named, devices_of
    from foveate.geometry import Coordinates

    if budget is not None:
        change = [*(change or []), f"inference.budget={json.dumps(budget)}", "inference.planner=pyramid"]
    if outputs is not None:
        change = [*(change or []), f"inference.outputs={json.dumps([name.strip() for name in outputs.split(',')])}"]
    limit = None if memory is None else inference.memory.parse_memory(memory)
    area = data.Roi(roi, terminal.one_of(Coordinates, roi_coordinates, "--roi-coordinates")) if roi else None
    request = runs.predict.PredictionRequest(
        run, tuple(images), out, checkpoint, tuple(change or ()), overwrite, resume, strict, limit, area
    )
    if devices is None and device == "auto" and "WORLD_SIZE" in os.environ:
        devices = "auto"  # the processes that a launcher started take one each
    places = devices_of(devices) if devices else [str(device_named(device))]
    with stopping(_say_stopping, show_cursor) as stop:
        exit_code = _on_dask(request, places, dask, stop) if dask else _here(request, places, stop)
    if exit_code:
        raise typer.Exit(exit_code)


def refuse_settings(images: list[str]) -> None:
    """Refuse what looks like a setting among images: other commands take it there."""
    setting = re.compile(rf"({'|'.join(runs.RunConfig.model_fields)})\.[\w.]+=")
    for image in images:
        if setting.match(image) and not Path(image).exists():
            raise ConfigError(f"{image} is a setting, not an image; write --set {image}")


UNREADABLE = 3  # exit code: all images are done, but parts of some could not be read


def _here(request: runs.predict.PredictionRequest, devices: list[str], stop: Stop) -> int:
    """The exit code; the processes of this computer predict, or those that a launcher started."""
    with runs.predict.predicting(request, devices) as team:
        if team.leads:
            return _lead(request, team, stop)
        runs.predict.help_predict(request, team, _warn, stop)
        return stop.exit_code if stop() else 0


def _on_dask(request: runs.predict.PredictionRequest, devices: list[str], address: str, stop: Stop) -> int:
    """The exit code; the workers of a cluster predict, this process writes the results."""
    with inference.executor.dask_executor(address, len(devices) if len(devices) > 1 else None) as executor:
        return _lead(
            request, inference.team.Team(devices[0]), stop, runs.predict.shared_by(executor, request, devices[0])
        )


def _lead(
    request: runs.predict.PredictionRequest,
    team: inference.team.Team,
    stop: Stop,
    share: inference.session.Share | None = None,
) -> int:
    trained = request.load(team.device)
    if note := runs.RunFolder(request.run).note_of_tuning(trained.config):
        errors.say(note, "note", "yellow")
    done: dict[Path, dict[str, Any]] = {}
    failed: dict[Path, Exception] = {}
    for number, image in enumerate(request.images):
        try:
            done[Path(image)] = _predict(request, trained, number, team, stop, share)
        except StoppedError as error:
            say_how_to_resume(error)
            return stop.exit_code
        except Exception as error:  # whatever it is, it must not cost the other images
            failed[Path(image)] = error
            errors.say(_reason(error), "failed", "bold red")
    if done:
        output.print(
            reporting.tables.predictions_table(done, {image: _reason(error) for image, error in failed.items()})
        )
        output.say(f"written to {request.out}")
    torn = {image: summary for image, summary in done.items() if summary["failed_blocks"]}
    for path, summary in torn.items():
        unread, count = summary["share_unreadable"], len(summary["failed_blocks"])
        _warn(f"{unread:.2%} of {path} could not be read: {count} blocks are left empty; STEM.json names them")
    if failed:
        wrong = not done and all(isinstance(error, MISTAKES) for error in failed.values())
        return 2 if wrong else 1
    return UNREADABLE if torn else 0


def _predict(
    request: runs.predict.PredictionRequest,
    trained: runs.TrainedRun,
    number: int,
    team: inference.team.Team,
    stop: Stop,
    share: inference.session.Share | None,
) -> dict[str, Any]:
    image, limit = request.images[number], None if request.memory is None else request.memory // team.local
    with progress_bar(Path(image).name) as bar:

        def on_start(start: inference.session.Start) -> None:
            bar.of(start.megapixels, "MP")
            _say_memory(start, team.local)

        summary = runs.predict.predict(
            trained,
            image,
            request.out,
            overwrite=request.overwrite,
            resume=request.resume,
            strict=request.strict,
            roi=request.roi,
            session=inference.session.Session(team, number, limit, on_start, _warn, stop, share),
            on_progress=bar.by,
        )
    _preview(request, image, trained)
    return summary


def _preview(request: runs.predict.PredictionRequest, image: str, trained: runs.TrainedRun) -> None:
    """Draw the preview, where what it shows is there, and say what the passes were; no failure costs a result."""
    files = runs.predict.files_of(image, request.out)
    try:
        note = reporting.passes.note_of_prediction(files.passes, trained.config.foveation)
        if note:
            errors.say(f"{Path(image).name}: {note}", "note", "yellow")
        if files.classes.exists() and (files.passes.exists() or files.fov.exists()):
            reporting.save_preview(image, files, trained.config, overwrite=request.overwrite or request.resume)
    except Exception as error:
        _warn(f"the preview of {image} was not drawn: {_reason(error)}")


def _reason(error: Exception) -> str:
    """What an error says; of one that nobody foresaw also what it is and where it came from."""
    if isinstance(error, FoveateError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {place.filename}, line {place.lineno}; please report it)"


def _say_memory(start: inference.session.Start, processes: int) -> None:
    parts = [f"{size_text(start.memory.main)} of memory"]
    if start.memory.device:
        parts.append(f"{size_text(start.memory.device)} on the device")
    each = " in each process" if processes > 1 else ""
    errors.say(
        f"at most about {' and '.join(parts)}{each}: blocks of {start.block_size} px, {start.batch_size} patches at a "
        "time"
    )


def _warn(text: str) -> None:
    errors.say(text, "warning", "bold yellow")


def _say_stopping() -> None:
    errors.say("stopping after this block; press Ctrl-C again to stop at once")

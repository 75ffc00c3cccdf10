"""`foveate predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Checkpoint, Device, Overwrite, RunFolder, torch_device

HELP = """Segment images of any size with a trained run.

Writes for every image OUT/STEM.classes.tif (class ids, tiled, with overviews, colour table and georeference),
OUT/STEM.fov.tif (expected field of view per cell), OUT/STEM.preview.png and OUT/STEM.json.

With --budget the image is looked at widely everywhere, and closer where that is expected to bring most, until so many
passes through the network are spent.

A failing image is reported and the others go on; the exit code is then 1.

Examples:

    foveate predict runs/idrid fundus.jpg --out predictions

    foveate predict runs/dubai scene1.tif scene2.tif --out predictions --set inference.block_size=4096

    foveate predict runs/idrid fundus.jpg --out predictions --budget 30
"""


def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images to segment.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Configuration values to change.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Most passes per megapixel, or fixed: as many as one fixed field of view costs."),
    ] = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Segment images."""
    from foveate.cli.console import errors, output, progress_bar
    from foveate.errors import FoveateError
    from foveate.inference.predict import PredictionFiles
    from foveate.reporting.preview import save_preview
    from foveate.reporting.tables import predictions_table
    from foveate.runs.folder import RunFolder
    from foveate.runs.predict import check_stems
    from foveate.runs.predict import predict as predict_image

    check_stems(images)
    change = [*(change or []), *([f"inference.budget={budget}", "inference.planner=pyramid"] if budget else [])]
    trained = RunFolder(run).load(checkpoint, torch_device(device), change)
    done, failed = {}, {}
    for image in images:
        try:
            with progress_bar(image.name) as bar:
                done[image] = predict_image(trained, image, out, overwrite=overwrite, on_progress=bar.by)
            files = PredictionFiles.in_folder(out, image.stem)
            save_preview(image, files, trained.config, overwrite=overwrite)
        except FoveateError as error:
            failed[image] = str(error)
            errors.print(f"[bold red]failed:[/] {error}", highlight=False, soft_wrap=True)
    output.print(predictions_table(done, failed))
    if failed:
        raise typer.Exit(1 if done else 2)

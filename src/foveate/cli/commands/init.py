"""`foveate init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Overwrite

HELP = """Look at a folder of images and labels, and write a configuration to train on it.

FOLDER holds images/ and masks/ (or labels/, annotations/): masks of class ids or of colours, or polygons (GeoJSON of
QuPath or QGIS, GeoPackage, shapefile, COCO), under the names of the images. The configuration says why each choice was
made: classes, patch size and fields of view, sampling, augmentation, validation images, steps and batch for this
computer. Of a single image, regions are made to train and to validate.

Names of classes are taken from FOLDER/classes.txt (one a line), or for colours from FOLDER/class_dict.csv (name, r, g,
b), where they are there.

Examples:

    foveate init data/mine

    foveate init data/mine --out configs/mine.yaml
"""


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds images/ and masks/.")],
    out: Annotated[Path | None, typer.Option(help="The configuration; NAME.yaml by default.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a configuration for a folder."""
    from foveate.cli.console import output
    from foveate.runs.init import init as write

    result = write(folder, out, overwrite=overwrite)
    say_found(folder, result)
    output.say(f"next: foveate train {result.path}")


def say_found(folder: Path, result: object) -> None:
    """What was found in a folder, and what was written."""
    from foveate.cli.console import errors, output
    from foveate.reporting.tables import facts_table
    from foveate.runs.init import Initialised

    assert isinstance(result, Initialised)
    output.print(facts_table(f"{folder}", result.found))
    for problem in result.problems:
        errors.say(problem, "note", "bold yellow")
    output.say(f"written to {', '.join(map(str, result.files))}")

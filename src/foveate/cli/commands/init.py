"""`foveate init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Overwrite

HELP = """Examine a folder of images and labels and write a configuration to train on them.

FOLDER holds images/ and masks/ (or labels/ or annotations/). Labels are masks of class ids, masks in colours, or
polygons (GeoJSON from QuPath or QGIS, GeoPackage, shapefile, COCO). They have the names of their images.

The configuration holds classes, patch size, fields of view, sampling, augmentation, validation images, and the steps
and batch size for this computer. A comment gives the reason for each choice. A single image is divided into regions for
training and validation.

Class names come from FOLDER/classes.txt (one per line) or, for colours, from FOLDER/class_dict.csv (name, r, g, b), if
these files exist.

Examples:

    foveate init data/mine

    foveate init data/mine --out configs/mine.yaml
"""


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds images/ and masks/.")],
    out: Annotated[Path | None, typer.Option(help="Configuration to write (default: NAME.yaml).")] = None,
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

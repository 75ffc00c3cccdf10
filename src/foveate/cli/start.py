"""Commands to start with: `foveate demo` and `foveate init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Overwrite, check_folder


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

    from foveate.cli.console import errors, output
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

"""`foveate convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from foveate.cli.arguments import Overwrite, Plane, check_image

HELP = """Write an image as a cloud-optimised TIFF with a pyramid, in bounded memory.

Convert a PNG or JPEG if you use it more than a few times, or if it does not fit into memory. Convert a TIFF, slide,
Zarr or NumPy file if it has no pyramid. Georeference, pixel size, bands, types and masks are kept. Large files become
BigTIFF.

Examples:

    foveate convert scene.png scene.tif

    foveate convert mask.png mask.tif --labels

    foveate convert slide.svs slide.tif --compression jpeg

    foveate convert stack.ome.tif plane.tif --plane z=3
"""


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="Any image: a file, a folder (Zarr) or a URL.")],
    destination: Annotated[Path, typer.Argument(metavar="OUT.tif", help="The TIFF to write.")],
    compression: Annotated[str, typer.Option(help="deflate, zstd, lzw, jpeg (lossy) or none.")] = "deflate",
    tile: Annotated[int, typer.Option(help="Side of a tile, a power of two from 64 to 4096.")] = 512,
    labels: Annotated[
        bool, typer.Option("--labels", help="The image holds class ids, which must not be blended.")
    ] = False,
    plane: Plane = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert an image to a tiled pyramid."""
    check_image(source)

    import typing

    from foveate.cli.console import output, progress_bar
    from foveate.data.convert import Compression
    from foveate.data.convert import convert as convert_image
    from foveate.data.readers import open_image
    from foveate.data.readers.base import plane_of
    from foveate.errors import ConfigError
    from foveate.reporting.image_facts import image_facts
    from foveate.reporting.tables import facts_table

    allowed = typing.get_args(Compression)
    if compression not in allowed:
        raise ConfigError(f"--compression {compression}; allowed are {', '.join(allowed)}")
    with progress_bar(f"converting {Path(source).name}") as bar:
        convert_image(
            source,
            destination,
            overwrite=overwrite,
            tile=tile,
            compression=cast("Compression", compression),
            labels=labels,
            plane=plane_of(plane),
            progress=bar.to,
        )
    with open_image(destination) as reader:
        output.print(facts_table(str(destination), image_facts(reader)))
    output.say(f"written to {destination}")

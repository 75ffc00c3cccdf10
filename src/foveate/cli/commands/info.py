"""`foveate info`."""

from __future__ import annotations

from typing import Annotated

import typer

from foveate.cli.arguments import Plane, check_image

HELP = """Describe an image: its size, bands, pyramid and pixel size, and what it costs to read.

Examples:

    foveate info slide.svs

    foveate info https://example.org/scene.tif
"""


def info(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image: a file, a Zarr folder or a URL.")],
    plane: Plane = None,
) -> None:
    """Describe an image."""
    check_image(image)

    from foveate.cli.console import output
    from foveate.data.readers import open_image
    from foveate.data.readers.base import plane_of
    from foveate.reporting.image_facts import image_facts
    from foveate.reporting.tables import facts_table

    with open_image(image, plane=plane_of(plane)) as reader:
        output.print(facts_table(reader.location, image_facts(reader)))

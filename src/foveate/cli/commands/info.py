"""`foveate info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HELP = """Say what an image is and what it costs to read.

Examples:

    foveate info slide.tif
"""


def info(image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")]) -> None:
    """Describe an image."""
    from foveate.cli.console import output
    from foveate.data.readers import open_image
    from foveate.reporting.image_facts import image_facts
    from foveate.reporting.tables import facts_table

    with open_image(image) as reader:
        output.print(facts_table(str(image), image_facts(reader)))

"""`foveate config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Overrides, Sets, joined

HELP = """Print a configuration with every setting: those of the file, the changes given here, and the defaults.

Examples:

    foveate config configs/idrid.yaml

    foveate config configs/idrid.yaml training.steps=200
"""


def config(
    path: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")],
    overrides: Overrides = None,
    sets: Sets = None,
) -> None:
    """Print the resolved configuration."""
    from foveate.runs.config import RunConfig

    typer.echo(RunConfig.load(path, joined(overrides, sets)).to_yaml(), nl=False)

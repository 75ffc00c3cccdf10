"""`foveate demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Overwrite

HELP = """Segment the whole Earth into sea, land and lakes, with data that pip installs (`foveate[demo]`).

The demonstration trains on the Americas, evaluates on the rest of the world, and predicts all 14.6 megapixels. Every
fixed field of view is trained for as many steps and evaluated too, as far as --minutes allows. This takes a few minutes
on two cores. It writes a table, pictures and all figures.

Examples:

    foveate demo

    foveate demo --out earth --no-compare
"""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs, predictions and pictures.")] = Path("demo-output"),
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Configuration values to change.")
    ] = None,
    compare: Annotated[bool, typer.Option(help="Also train and evaluate every fixed field of view.")] = True,
    minutes: Annotated[float, typer.Option(help="Time limit; comparisons that would exceed it are left out.")] = 6.0,
    overwrite: Overwrite = False,
) -> None:
    """Run the demonstration."""
    import time

    from foveate.cli.console import errors, output
    from foveate.demo.run import run_demo
    from foveate.files import refuse_existing
    from foveate.reporting.tables import comparison_table

    refuse_existing(out / "results.json", overwrite)
    start = time.monotonic()
    result = run_demo(out, errors.say, overrides=change, compare=compare, minutes=minutes)
    output.print(comparison_table("Everything outside the Americas, never seen in training", result.evaluations))
    for path in (*result.pictures, result.results):
        output.say(f"written: {path}")
    output.say(f"done in {time.monotonic() - start:.0f} s")

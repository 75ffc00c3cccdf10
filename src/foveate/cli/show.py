"""Commands that show and change nothing: `foveate config`, `foveate info` and `foveate networks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveate.cli.arguments import Overrides, Plane, Sets, check_image, joined

if TYPE_CHECKING:
    from rich.table import Table

    from foveate.networks.build import NetworkCost

    Costs = dict[tuple[str, str], NetworkCost]

OWN = """\
In a configuration:  network: {architecture: NAME, encoder: NAME, weights: imagenet | PATH | none}
Your own network:    network: package.module:callable (takes classes and in_channels, returns a torch.nn.Module)"""


def config(
    path: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")],
    overrides: Overrides = None,
    sets: Sets = None,
) -> None:
    """Print a configuration with every setting: those of the file, the changes given here, and the defaults.

    Examples:

        foveate config configs/idrid.yaml

        foveate config configs/idrid.yaml training.steps=200
    """
    from foveate.runs.config import RunConfig

    typer.echo(RunConfig.load(path, joined(overrides, sets)).to_yaml(), nl=False)


def info(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image: a file, a Zarr folder or a URL.")],
    plane: Plane = None,
) -> None:
    """Describe an image: its size, bands, pyramid and pixel size, and what it costs to read.

    Examples:

        foveate info slide.svs

        foveate info https://example.org/scene.tif
    """
    check_image(image)

    from foveate.cli.console import output
    from foveate.data.readers import open_image
    from foveate.data.readers.base import plane_of
    from foveate.reporting.tables import facts_table, image_facts

    with open_image(image, plane=plane_of(plane)) as reader:
        output.print(facts_table(reader.location, image_facts(reader)))


def networks(
    architecture: Annotated[str | None, typer.Option(help="Only this architecture.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Only this encoder.")] = None,
    patch: Annotated[int, typer.Option(min=1, help="Side of a patch.")] = 256,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 19,
    in_channels: Annotated[int, typer.Option(min=1, help="Number of image bands.")] = 3,
    every: Annotated[
        bool, typer.Option("--all", help="Also print the name of every architecture and encoder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List networks by name, with their parameters and multiply-adds per patch.

    By default this lists the original's encoders and decoders in all pairs, and some common networks. Any
    architecture works with any encoder of segmentation_models_pytorch and timm, with a few exceptions; the error
    message names them.

    Examples:

        foveate networks

        foveate networks --encoder resnet50dilated --patch 512

        foveate networks --architecture unet --encoder convnext_tiny --json
    """
    import json

    from foveate.cli.console import output, progress_bar
    from foveate.networks.build import network_cost
    from foveate.networks.menu import ARCHITECTURES, encoder_names, pairs

    costs: Costs = {}
    chosen = pairs(architecture, encoder)
    with progress_bar("counting") as bar:
        for pair in chosen:
            costs[pair] = network_cost(*pair, patch_size=patch, classes=classes, in_channels=in_channels)
            bar.by(1 / len(chosen))
    names = {"architectures": list(ARCHITECTURES), "encoders": encoder_names()} if every else {}
    if as_json:
        rows = [{"architecture": pair[0], "encoder": pair[1], **cost._asdict()} for pair, cost in costs.items()]
        tree = {"patch_size": patch, "classes": classes, "in_channels": in_channels, "networks": rows, **names}
        typer.echo(json.dumps(tree, indent=2))
        return
    output.print(_table(f"One patch of {patch} px, {in_channels} bands, {classes} classes", costs))
    for kind, known in names.items():
        output.print(f"{kind}: {', '.join(known)}")
    output.say(OWN)


def _table(title: str, costs: Costs) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in ("encoder", "architecture"):
        table.add_column(name, overflow="fold")
    for name in ("parameters", "multiply-adds"):
        table.add_column(name, justify="right", no_wrap=True)
    for (architecture, encoder), cost in costs.items():
        table.add_row(encoder, architecture, f"{cost.parameters / 1e6:.1f} M", f"{cost.multiply_adds / 1e9:.1f} G")
    return table

"""`foveate networks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from foveate.networks.cost import NetworkCost

    Costs = dict[tuple[str, str], NetworkCost]

HELP = """List networks by name, with their parameters and multiply-adds per patch.

By default this lists the original's encoders and decoders in all pairs, and some common networks. Any architecture
works with any encoder of segmentation_models_pytorch and timm, with a few exceptions; the error message names them.

Examples:

    foveate networks

    foveate networks --encoder resnet50dilated --patch 512

    foveate networks --architecture unet --encoder convnext_tiny --json
"""
OWN = """\
In a configuration:  network: {architecture: NAME, encoder: NAME, weights: imagenet | PATH | none}
Your own network:    network: package.module:callable (takes classes and in_channels, returns a torch.nn.Module)"""


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
    """List networks."""
    import json

    from foveate.cli.console import output, progress_bar
    from foveate.networks.cost import network_cost
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

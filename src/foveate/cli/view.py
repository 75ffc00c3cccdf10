"""Commands that show: `foveate view`, `report`, `info`, `networks` and `config`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import foveate
from foveate import reporting, runs
from foveate.cli import terminal
from foveate.cli.terminal import errors, output, progress_bar
from foveate.errors import ConfigError

if TYPE_CHECKING:
    from foveate.viewer.scene import Options


OWN = """\
In a configuration:  network: {architecture: NAME, encoder: NAME, weights: imagenet | PATH | none}
Your own network:    network: package.module:callable (takes classes and in_channels, returns a torch.nn.Module)"""


def view(
    paths: Annotated[
        list[Path], typer.Argument(metavar="IMAGE_OR_PREDICTION...", help="An image, predictions on it, polygons.")
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels, to show errors: a mask, polygons, or a file per class with {class} in the path."),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Use the class names, colours and label values of this run.")] = None,
    name: Annotated[str | None, typer.Option(help="Image to show, if the folder has predictions of several.")] = None,
    bands: Annotated[str | None, typer.Option(help="Bands shown as red, green and blue, for example 4,3,2.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    export: Annotated[Path | None, typer.Option(metavar="DIR", help="Write static files instead of serving.")] = None,
    tile: Annotated[int, typer.Option(help="Side of the tiles in pixels.")] = 256,
    overwrite: terminal.Overwrite = False,
) -> None:
    """View an image of any size, and predictions on it, in the browser.

    Give an image, a folder of predictions, one of its files, or several of these. Two predictions can be compared
    side by side. The summary of a prediction says where its image is.

    Only this computer can see the page, unless you set --host. --export writes the page as static files, which open
    without a server.

    Examples:

        foveate view slide.svs

        foveate view https://example.org/scene.tif predictions

        foveate view predictions --name scene1 --labels scene1-mask.tif

        foveate view scene.tif first/scene.classes.tif second/scene.classes.tif

        foveate view scene.tif predictions --export page
    """
    terminal.check_there(*paths, *([labels] if labels else []), says=terminal.NOTHING)

    from foveate.viewer.build import build_scene
    from foveate.viewer.inputs import find_inputs

    scene = build_scene(find_inputs(paths, labels, name), _options(run, bands, tile))
    for notice in scene.notices:
        errors.say(notice, "note", "yellow")
    if export is not None:
        from foveate.viewer.page import export as write

        with progress_bar(f"writing {export.name}") as bar:
            tiles = write(scene, export, overwrite=overwrite, progress=bar.to)
        output.say(f"written to {export / 'index.html'}, with {tiles} tiles")
        return
    try:
        from foveate.viewer.app import is_loopback, serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"the viewer's server is not installed ({error}); pip install 'foveate[viewer]'") from None

    def say(address: str) -> None:
        if not is_loopback(host):
            errors.say("everyone who can reach this computer can see the page", "note", "yellow")
        output.say(f"{scene.title} is shown at {address} (Ctrl+C ends it)")

    signal.signal(signal.SIGINT, signal.default_int_handler)  # the usual way to end it, which is no failure
    serve(scene, host, port, browser=browser, on_ready=say)


def _options(run: Path | None, bands: str | None, tile: int) -> Options:
    from foveate.viewer.scene import Options

    try:
        chosen = tuple(int(band) for band in bands.split(",")) if bands else None
    except ValueError:
        raise ConfigError(f"--bands {bands}; give one or three numbers, for example 4,3,2") from None
    if run is None:
        return Options(bands=chosen, tile=tile)
    data = foveate.RunConfig.load(runs.RunFolder(run).config_file).data
    bands_of_run = tuple(data.bands[:3]) if data.bands and len(data.bands) >= 3 else None
    return Options(
        bands=chosen or bands_of_run,
        classes=data.classes,
        overlapping=data.overlapping,
        label_map=data.mask_values,
        vectors=data.vectors,
        tile=tile,
    )


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or of a comparison.")],
    overrides: terminal.Overrides = None,
    sets: terminal.Sets = None,
    out: Annotated[Path | None, typer.Option(help="HTML file (default: RUN/report/index.html).")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test (default: val if it has images, else test).")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate/--no-evaluate", help="Evaluate the split if no evaluation exists.")
    ] = True,
    runs: Annotated[bool, typer.Option("--runs", help="For a comparison: also write the reports of its runs.")] = False,
    devices: terminal.Devices = None,
    processes: terminal.ProcessCount = 1,
    device: terminal.Device = "auto",
    overwrite: terminal.Overwrite = False,
    code: terminal.Code = None,
) -> None:
    """Write one self-contained page about a run, or about a comparison of runs.

    The page of a run shows training curves, scores of each class, the confusion matrix, the best, median and worst
    image, the fields of view and the scores there, cost, and the configuration. It also works for a run that is
    still training or was stopped. If the split was not evaluated with the current weights, it is evaluated first.
    Figures are also written to RUN/report/figures, as PNG and SVG.

    The page of a comparison shows its table and plot, with links to the reports of its runs.

    Examples:

        foveate report runs/idrid

        foveate report runs/idrid --split test --out idrid.html --devices cpu:4

        foveate report runs/idrid inference.overlap=0.5 --out half-overlap.html

        foveate report comparisons/idrid --runs
    """
    overrides = terminal.joined(overrides, sets)
    if not (run / "comparison.json").is_file() and not (run / "runs").is_dir():  # before torch is loaded
        foveate.RunConfig.load(run / "config.yaml", overrides)
    elif overrides:
        raise ConfigError(f"{run} is a comparison, whose runs keep their settings; leave out {overrides[0]}")

    from foveate.reporting.report.comparison_report import is_comparison, run_folders

    place = terminal.places(devices, device, processes)
    options = reporting.ReportOptions(split, evaluate, *place, overwrite, tuple(overrides))

    def one(folder: Path, page: Path | None) -> None:
        with progress_bar(f"report of {folder.name}") as bar:
            done = reporting.write_report(folder, page, options, say=errors.say, on_progress=bar.by)
        for reason in done.missing:
            errors.say(reason, "missing", "yellow")
        output.say(f"written to {done.path}")

    if not is_comparison(run):
        one(run, out)
        return
    for folder in run_folders(run) if runs else []:
        one(folder, None)
    output.say(f"written to {reporting.write_comparison_report(run, out, overwrite=overwrite).path}")


def config(
    path: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")],
    overrides: terminal.Overrides = None,
    sets: terminal.Sets = None,
) -> None:
    """Print a configuration with every setting: those of the file, the changes given here, and the defaults.

    Examples:

        foveate config configs/idrid.yaml

        foveate config configs/idrid.yaml training.steps=200
    """
    typer.echo(foveate.RunConfig.load(path, terminal.joined(overrides, sets)).to_yaml(), nl=False)


def info(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image: a file, a Zarr folder or a URL.")],
    plane: terminal.Plane = None,
) -> None:
    """Describe an image: its size, bands, pyramid and pixel size, and what it costs to read.

    Examples:

        foveate info slide.svs

        foveate info https://example.org/scene.tif
    """
    terminal.check_there(image)
    terminal.show_image(image, plane)


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
    from foveate.networks.build import NetworkCost, network_cost
    from foveate.networks.menu import ARCHITECTURES, encoder_names, pairs

    costs: dict[tuple[str, str], NetworkCost] = {}
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
    title = f"One patch of {patch} px, {in_channels} bands, {classes} classes"
    table = reporting.tables.table_of(title, "encoder", "architecture", ">parameters", ">multiply-adds")
    for column in table.columns[2:]:
        column.no_wrap = True
    for pair, cost in costs.items():
        table.add_row(*pair[::-1], f"{cost.parameters / 1e6:.1f} M", f"{cost.multiply_adds / 1e9:.1f} G")
    output.print(table)
    for kind, known in names.items():
        output.print(f"{kind}: {', '.join(known)}")
    output.say(OWN)

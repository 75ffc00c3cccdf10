"""`foveate view`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveate.cli.arguments import Overwrite, check_all_there

if TYPE_CHECKING:
    from foveate.viewer.build import Options
    from foveate.viewer.scene import Scene

HELP = """View an image of any size, and predictions on it, in the browser.

Give an image, a folder of predictions, one of its files, or several of these. Two predictions can be compared side by
side. The summary of a prediction says where its image is.

Only this computer can see the page, unless you set --host. --export writes the page as static files, which open without
a server.

Examples:

    foveate view slide.svs

    foveate view https://example.org/scene.tif predictions

    foveate view predictions --name scene1 --labels scene1-mask.tif

    foveate view scene.tif first/scene.classes.tif second/scene.classes.tif

    foveate view scene.tif predictions --export page
"""


def view(
    paths: Annotated[
        list[Path], typer.Argument(metavar="IMAGE_OR_PREDICTION...", help="An image, predictions on it, polygons.")
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Labels of the image, a mask or polygons, to show the errors.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Use the class names, colours and label values of this run.")] = None,
    name: Annotated[str | None, typer.Option(help="Image to show, if the folder has predictions of several.")] = None,
    bands: Annotated[str | None, typer.Option(help="Bands shown as red, green and blue, for example 4,3,2.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    export: Annotated[Path | None, typer.Option(metavar="DIR", help="Write static files instead of serving.")] = None,
    tile: Annotated[int, typer.Option(help="Side of the tiles in pixels.")] = 256,
    overwrite: Overwrite = False,
) -> None:
    """Look at images and predictions."""
    check_all_there([*paths, *([labels] if labels else [])])

    from foveate.cli.console import errors, output
    from foveate.viewer.build import build_scene
    from foveate.viewer.inputs import find_inputs

    scene = build_scene(find_inputs(paths, labels, name), _options(run, bands, tile))
    for notice in scene.notices:
        errors.say(notice, "note", "yellow")
    if export is not None:
        _export(scene, export, overwrite)
        return
    serve = _server()

    def say(address: str) -> None:
        from foveate.viewer.app import is_loopback

        if not is_loopback(host):
            errors.say("everyone who can reach this computer can see the page", "note", "yellow")
        output.say(f"{scene.title} is shown at {address} (Ctrl+C ends it)")

    signal.signal(signal.SIGINT, signal.default_int_handler)  # the usual way to end it, which is no failure
    serve(scene, host, port, browser=browser, on_ready=say)


def _options(run: Path | None, bands: str | None, tile: int) -> Options:
    from foveate.errors import ConfigError
    from foveate.runs.config import RunConfig
    from foveate.runs.folder import RunFolder
    from foveate.viewer.build import Options

    try:
        chosen = tuple(int(band) for band in bands.split(",")) if bands else None
    except ValueError:
        raise ConfigError(f"--bands {bands}; give one or three numbers, for example 4,3,2") from None
    if run is None:
        return Options(bands=chosen, tile=tile)
    data = RunConfig.load(RunFolder(run).config_file).data
    bands_of_run = tuple(data.bands[:3]) if data.bands and len(data.bands) >= 3 else None
    return Options(
        bands=chosen or bands_of_run,
        classes=data.classes,
        label_map=data.label_map,
        vectors=data.vectors,
        tile=tile,
    )


def _server() -> Callable[..., None]:
    from foveate.errors import ConfigError

    try:
        from foveate.viewer.app import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"the viewer's server is not installed ({error}); pip install 'foveate[viewer]'") from None
    return serve


def _export(scene: Scene, folder: Path, overwrite: bool) -> None:
    from foveate.cli.console import output, progress_bar
    from foveate.viewer.export import export

    with progress_bar(f"writing {folder.name}") as bar:
        tiles = export(scene, folder, overwrite=overwrite, progress=bar.to)
    output.say(f"written to {folder / 'index.html'}, with {tiles} tiles")

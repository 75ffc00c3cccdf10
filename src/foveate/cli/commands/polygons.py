"""`foveate polygons`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Overwrite

HELP = """Write the regions of a class map as polygons, in bounded memory.

CLASSMAP is a class map of `foveate predict`, or any raster with one uint8 band. The GeoJSON opens in QuPath (in pixels
of a slide) and in QGIS (in coordinates of a map). Connected pixels of one class form one polygon with its holes, class
and area. Pixels are connected if they share a side.

Examples:

    foveate polygons predictions/slide.classes.tif --out slide.geojson --leave-out background --min-area 50

    foveate polygons predictions/scene.classes.tif --out scene.geojson --simplify 1.5

    foveate polygons predictions/town.classes.tif --out houses.geojson --leave-out ground --regular
"""


def polygons(
    class_map: Annotated[Path, typer.Argument(metavar="CLASSMAP", help="A class map.")],
    out: Annotated[Path, typer.Option(help="The GeoJSON file to write.")],
    leave_out: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="A class without polygons; may be repeated.")
    ] = None,
    min_area: Annotated[float, typer.Option(help="Leave out polygons smaller than this, in pixels.")] = 0,
    simplify: Annotated[float, typer.Option(help="Simplify outlines; borders move by at most this many pixels.")] = 0,
    regular: Annotated[
        bool, typer.Option("--regular", help="Right angles where the border allows, for buildings.")
    ] = False,
    coordinates: Annotated[
        str,
        typer.Option(
            help="pixels (of the image), crs (of the class map), lonlat, or auto (crs if there is one, else pixels)."
        ),
    ] = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Write the polygons of a class map."""
    from foveate.cli.console import output, progress_bar
    from foveate.writers import PolygonsConfig
    from foveate.writers.polygons import write_polygons

    options = {
        "leave_out": leave_out or [],
        "min_area": min_area,
        "simplify": simplify,
        "regular": regular,
        "coordinates": coordinates,
    }
    config = PolygonsConfig.parse(options, "foveate polygons")
    with progress_bar(class_map.name) as bar:
        count = write_polygons(class_map, out, config, overwrite=overwrite, on_progress=bar.by)
    output.say(f"{count} polygons in {out}")

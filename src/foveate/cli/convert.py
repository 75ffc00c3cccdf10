"""Commands from file to file: `foveate convert` and `foveate polygons`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from foveate.cli.arguments import Overwrite, Plane, check_all_there, check_image


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
    """Write an image as a cloud-optimised TIFF with a pyramid, in bounded memory.

    Convert a PNG or JPEG if you use it more than a few times, or if it does not fit into memory. Convert a TIFF,
    slide, Zarr or NumPy file if it has no pyramid. Georeference, pixel size, bands, types and masks are kept. Large
    files become BigTIFF.

    Examples:

        foveate convert scene.png scene.tif

        foveate convert mask.png mask.tif --labels

        foveate convert slide.svs slide.tif --compression jpeg

        foveate convert stack.ome.tif plane.tif --plane z=3
    """
    check_image(source)

    import typing

    from foveate.cli.console import output, progress_bar
    from foveate.data.convert import Compression
    from foveate.data.convert import convert as convert_image
    from foveate.data.readers import open_image
    from foveate.data.readers.base import plane_of
    from foveate.errors import ConfigError
    from foveate.reporting.tables import facts_table, image_facts

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
    """Write the regions of a class map as polygons, in bounded memory.

    CLASSMAP is a class map of `foveate predict`, or any raster with one uint8 band. The GeoJSON opens in QuPath (in
    pixels of a slide) and in QGIS (in coordinates of a map). Connected pixels of one class form one polygon with
    its holes, class and area. Pixels are connected if they share a side.

    Examples:

        foveate polygons predictions/slide.classes.tif --out slide.geojson --leave-out background --min-area 50

        foveate polygons predictions/scene.classes.tif --out scene.geojson --simplify 1.5

        foveate polygons predictions/town.classes.tif --out houses.geojson --leave-out ground --regular
    """
    check_all_there([class_map])

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

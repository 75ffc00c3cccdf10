"""Commands from file to file: `foveate convert`, `foveate polygons` and `foveate prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveate import data, reporting
from foveate.cli import terminal
from foveate.cli.terminal import errors, output, progress_bar
from foveate.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from foveate.paper.preparation import Recipe, Summary


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="Any image: a file, a folder (Zarr) or a URL.")],
    destination: Annotated[Path, typer.Argument(metavar="OUT.tif", help="The TIFF to write.")],
    compression: Annotated[str, typer.Option(help="deflate, zstd, lzw, jpeg (lossy) or none.")] = "deflate",
    tile: Annotated[int, typer.Option(help="Side of a tile, a power of two from 64 to 4096.")] = 512,
    labels: Annotated[
        bool, typer.Option("--labels", help="The values are class ids, not to be blended (as with any colour table).")
    ] = False,
    plane: terminal.Plane = None,
    overwrite: terminal.Overwrite = False,
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
    terminal.check_there(source)

    from foveate.data.pyramids import convert as convert_image
    from foveate.tiff.raster import Compression

    compressed = terminal.one_of(Compression, compression, "--compression")
    with progress_bar(f"converting {Path(source).name}") as bar:
        convert_image(
            source,
            destination,
            overwrite=overwrite,
            tile=tile,
            compression=compressed,
            labels=labels,
            plane=data.plane_of(plane),
            progress=bar.to,
        )
    terminal.show_image(destination)
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
    overwrite: terminal.Overwrite = False,
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
    terminal.check_there(class_map, says=terminal.NOTHING)

    from foveate.geometry import Coordinates
    from foveate.writers import PolygonsConfig
    from foveate.writers.polygons import write_polygons

    options = {"leave_out": leave_out or [], "min_area": min_area, "simplify": simplify, "regular": regular}
    config = PolygonsConfig.parse(options, "foveate polygons")
    with progress_bar(class_map.name) as bar:
        count = write_polygons(
            class_map,
            out,
            config,
            coordinates=terminal.one_of(Coordinates, coordinates, "--coordinates"),
            overwrite=overwrite,
            on_progress=bar.by,
        )
    output.say(f"{count} polygons in {out}")


_MOST_ODDITIES = 20
_MOST_NAMES = 3


def prepare(
    data_set: Annotated[str, typer.Argument(metavar="DATA_SET", help="cityscapes, deepglobe or gleason2019.")],
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder with the unpacked download.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the manifest and the masks.")],
    split_list: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPLIT=FILE",
            help="List of the images of a split: names, or an .odgt file. Other images are left out.",
        ),
    ] = None,
    pyramid: Annotated[bool, typer.Option("--pyramid", help="Convert images and masks to tiled pyramids.")] = False,
    fusion: Annotated[str | None, typer.Option(help="gleason2019: majority (the default) or staple.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="gleason2019: 4 (the default), 3, or 3-, 4-, 5- or benign-vs-rest.")
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(metavar="PX", help="gleason2019: keep the central square of this side (4400 in the paper)."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of images to work on at a time (default: one per core).")
    ] = None,
    overwrite: terminal.Overwrite = False,
) -> None:
    """Turn the official download of one of the paper's data sets into a manifest for training.

    DATA_SET is cityscapes, deepglobe or gleason2019; docs/how-to/data-sets.md says what to download. This writes
    OUT/manifest.csv and OUT/masks/. The images stay where they are, unless --pyramid converts them. To continue an
    interrupted preparation, repeat the command.

    The final tables show the images of each split, the pixels of each class and everything unusual. The exit code
    is 1 if files could not be read.

    Examples:

        foveate prepare cityscapes downloads/cityscapes data/cityscapes

        foveate prepare deepglobe downloads/deepglobe globe --split-list train=train.txt --split-list val=crossvali.txt

        foveate prepare gleason2019 downloads/gleason data/gleason2019 --fusion staple --crop 4400 --pyramid
    """
    from foveate.devices import available_cores
    from foveate.paper.preparation import prepare as prepare_data

    recipe = _recipe(data_set, fusion, classes, crop)
    lists = _split_lists(split_list or [])
    with progress_bar(f"preparing {data_set}") as bar:
        summary = prepare_data(
            recipe,
            source,
            out,
            split_lists=lists,
            pyramid=pyramid,
            jobs=jobs or available_cores(),
            overwrite=overwrite,
            progress=bar.to,
        )
    for table in (_contents(data_set, summary), _oddities(summary)):
        if table.row_count:
            output.print(table)
    for image, reason in summary.failed.items():
        errors.say(f"{image}: {reason}", "failed", "bold red")
    output.say(f"written: {summary.manifest}")
    if summary.failed:
        raise typer.Exit(1)


def _recipe(name: str, fusion: str | None, classes: str | None, crop: int | None) -> Recipe:
    from foveate.paper.preparation import Cityscapes, DeepGlobe, Gleason2019
    from foveate.paper.preparation.data_sets import Fusion, Scheme

    if name == Gleason2019.name:
        given = (("fusion", Fusion, fusion, "--fusion"), ("scheme", Scheme, classes, "--classes"))
        options = {
            key: terminal.one_of(allowed, value, name) for key, allowed, value, name in given if value is not None
        }
        return Gleason2019(**options, crop=crop)
    if fusion or classes or crop is not None:
        raise ConfigError(f"--fusion, --classes and --crop are for {Gleason2019.name}, not for {name}")
    others: dict[str, Recipe] = {recipe.name: recipe for recipe in (Cityscapes(), DeepGlobe())}
    if name not in others:
        raise ConfigError(f"no data set {name!r}; there are {', '.join([*others, Gleason2019.name])}")
    return others[name]


def _split_lists(texts: list[str]) -> dict[data.Split, Path]:

    lists: dict[data.Split, Path] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        split = next((each for each in data.SPLITS if each == name), None)
        if split is None or not separator or split in lists:
            raise ConfigError(f"--split-list {text}; give SPLIT=FILE, once for each of {', '.join(data.SPLITS)}")
        lists[split] = Path(path)
    return lists


def _contents(name: str, summary: Summary) -> Table:

    images = ", ".join(f"{summary.images.get(split, 0)} {split}" for split in data.SPLITS)
    table = reporting.tables.table_of(f"{name}: {images}", "class", ">pixels", ">share %")
    pixels = {**summary.pixels, "(ignored)": summary.ignored}
    for label, count in pixels.items():
        table.add_row(label, f"{count:,}", f"{100 * count / max(1, sum(pixels.values())):.2f}")
    return table


def _oddities(summary: Summary) -> Table:

    table = reporting.tables.table_of("Odd", "what", ">images", ">pixels", "such as")
    for kind, oddity in list(summary.odd.items())[:_MOST_ODDITIES]:
        table.add_row(kind, f"{oddity.images:,}", f"{oddity.pixels:,}" if oddity.pixels else "", oddity.example)
    if len(summary.odd) > _MOST_ODDITIES:
        table.add_row(f"{len(summary.odd) - _MOST_ODDITIES} kinds more, in preparation.jsonl", "", "", "")
    if summary.drawn:
        table.add_row("no split is given: drawn by a hash of the name", f"{summary.drawn:,}", "", "")
    for reason, names in summary.left_out.items():
        table.add_row(f"left out: {reason}", f"{len(names):,}", "", _some(names))
    if summary.unknown:
        table.add_row("in a split list, but no usable image", f"{len(summary.unknown):,}", "", _some(summary.unknown))
    return table


def _some(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")

"""Write everything that was asked for of one image, from its finished blocks."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, get_args
from xml.etree import ElementTree

from foveate import writers  # whose polygons are slow to load, and asked for by few
from foveate.data.sections import ClassConfig
from foveate.errors import ConfigError, FoveateError, OutputWriteError
from foveate.files import refuse_existing, sync, sync_folder, written
from foveate.geometry import CellGrid, Georeference, Resolution, Size, Window
from foveate.looks.passes import PassMap
from foveate.tiff.cog import TiledWriter, open_tiled
from foveate.tiff.raster import FULL, NODATA, Layers, RasterSpec, RasterWriter, open_raster
from foveate.tiff.tiles import Tiling
from foveate.types import Format, Output
from foveate.writers.class_map import LabelsWriter, check_installed, open_labels

LayerWriter: TypeAlias = TiledWriter | RasterWriter | LabelsWriter
# Of GDAL's attribute tables: name of a column, type (0 integer, 2 text) and use (5 value, 2 name, 6 to 8 colour).
_COLUMNS = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))


def table_path(class_map: Path) -> Path:
    """Where the table of a class map lies."""
    return class_map.with_name(f"{class_map.name}.aux.xml")


def write_class_table(class_map: Path, classes: Sequence[ClassConfig]) -> None:
    """Write category names and a raster attribute table beside a class map; a TIFF has no place for them."""
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    names = ElementTree.SubElement(band, "CategoryNames")
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_COLUMNS):
        column = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        _texts(column, Name=name, Type=kind, Usage=usage)
    for value, item in enumerate(classes):
        _texts(names, Category=item.name)
        row = ElementTree.SubElement(table, "Row", index=str(value))
        for entry in (value, item.name, *item.rgb):
            _texts(row, F=entry)
    with written(table_path(class_map)) as partial:
        ElementTree.ElementTree(root).write(partial, encoding="utf-8")


def _texts(parent: ElementTree.Element, **values: object) -> None:
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = str(value)


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What is written for one image, and where.

    Attributes:
        folder: of the results.
        stem: their names start with it.
        size: of the image, level-0 pixels.
        classes: names and colours, in the order of the class ids.
        overlapping: whether the class map has a band of 0 and 1 for each class, instead of one of ids.
        georeference: of the image.
        resolution: of a level-0 pixel, where known.
        cell: side of a cell of the foveation map, level-0 pixels.
        fields_of_view: of the scales, level-0 pixels; written into the foveation map's metadata.
        outputs: which of them, as `InferenceConfig.outputs`.
        format: of the class map.
        polygons: how the class map becomes polygons.
        overwrite: replace existing results.
        scratch: folder for what is not complete, on the same file system; emptied before and removed after. Hidden
            beside the results by default.
        passes: the grid of the map of passes; needed where that is an output.
        stored_size: of the image in its file, where it was read as if its pixels had another size; polygons in pixels
            are in those of the file.

    Raises:
        ConfigError: when something of it cannot be made, so that it is known before any work.
    """

    folder: Path
    stem: str
    size: Size
    classes: Sequence[ClassConfig]
    georeference: Georeference | None
    cell: int
    fields_of_view: Sequence[int]
    resolution: Resolution | None = None
    outputs: tuple[Output, ...] = ("classes", "foveation")
    format: Format = "geotiff"
    polygons: writers.PolygonsConfig = field(default_factory=writers.PolygonsConfig)
    overwrite: bool = False
    scratch: Path | None = None
    passes: PassMap | None = None
    stored_size: Size | None = None
    overlapping: bool = False

    def __post_init__(self) -> None:
        if self.format == "ome-zarr":
            if self.overlapping:
                raise ConfigError(
                    "OME-Zarr labels hold one class per pixel; write overlapping classes with inference.format=geotiff"
                )
            check_installed()
        if "polygons" in self.outputs:
            writers.check_polygons(self.polygons, [c.name for c in self.classes])

    def paths(self) -> dict[Output, Path]:
        """Where each output goes, in the order of `outputs`."""
        return {name: self._path(name, self.format) for name in self.outputs}

    def others(self) -> list[Path]:
        """Results that are there and not asked for: an earlier run left them, and they do not belong to this one."""
        every = {self._path(name, form) for name in get_args(Output) for form in get_args(Format)}
        there = set(self.folder.iterdir()) if self.folder.is_dir() else set()
        return sorted(every & there - set(self.paths().values()))

    def _path(self, name: Output, form: Format) -> Path:
        classes = "classes.tif" if form == "geotiff" else "classes.ome.zarr"
        names = {"classes": classes, "foveation": "fov.tif", "polygons": "polygons.geojson"}
        return self.folder / f"{self.stem}.{names.get(name, f'{name}.tif')}"


def write_outputs(blocks: Iterable[tuple[Window, Layers]], spec: OutputSpec) -> list[Path]:
    """Write the finished blocks of an image into its final files, which appear together once all are complete.

    Args:
        blocks: every block of the image once, row by row: its window and its layers, of which "foveation" is there
            where it is an output, float32 (rows, cols) of the cells that the block holds (its sides are then multiples
            of the cell), and "passes" of the pixels that `PassMap` says.
        spec: what to write and where.

    Returns:
        What was written, in the order of `spec.outputs`.

    Raises:
        OutputExistsError: when a result exists and may not be replaced.
        OutputWriteError: when writing fails; nothing is left under the final names then.
    """
    paths = spec.paths()
    for path in paths.values():
        refuse_existing(path, spec.overwrite)
    with _scratch(spec) as folder:
        drafts = {name: folder / path.name for name, path in paths.items()}
        with ExitStack() as stack:
            files: list[Output] = [name for name in paths if name != "polygons"]
            opened = {name: stack.enter_context(_open(name, drafts[name], spec)) for name in files}
            _write_blocks(blocks, opened, spec)
        if "polygons" in paths:
            writers.write_polygons(drafts["classes"], drafts["polygons"], spec.polygons)
        _publish(folder, spec.folder)
    return list(paths.values())


@contextmanager
def _scratch(spec: OutputSpec) -> Iterator[Path]:
    """An empty folder; one that a killed process left is emptied."""
    folder = spec.scratch or spec.folder / f".{spec.stem}.writing"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
    except FoveateError:
        raise
    except OSError as error:
        raise OutputWriteError(f"could not write the results of {spec.stem} into {spec.folder}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open(name: Output, path: Path, spec: OutputSpec) -> AbstractContextManager[LayerWriter]:
    if name == "classes":
        return open_class_map(path, spec)
    return (open_tiled if name in TILED else open_raster)(path, _quantity(name, spec))


# What has a byte for every pixel of the image, and so is worth compressing by many.
TILED: tuple[Output, ...] = ("classes", "probabilities", "confidence", "entropy")


def tilings_of(spec: OutputSpec) -> dict[str, Tiling]:
    """How the outputs are tiled that blocks may be cut for, by name."""
    several = ("probabilities", "classes") if spec.overlapping else ("probabilities",)
    tiled = [name for name in TILED if name in spec.outputs and (name != "classes" or spec.format == "geotiff")]
    return {name: Tiling(spec.size, len(spec.classes) if name in several else 1, name == "classes") for name in tiled}


@contextmanager
def open_class_map(path: Path, spec: OutputSpec) -> Iterator[LayerWriter]:
    """Open the class map for writing, in the format asked for, with the classes' names and colours."""
    if spec.format == "ome-zarr":
        with open_labels(path, spec.size, spec.classes, spec.resolution, _stored_size(spec)) as labels:
            yield labels
        return
    tags = {f"class_{i}": c.name for i, c in enumerate(spec.classes)}
    tags |= {"overlapping": "true"} if spec.overlapping else {}
    tags |= {name: str(side) for name, side in _stored_size(spec).items()}
    raster = RasterSpec(
        spec.size, "uint8", spec.georeference, spec.resolution,
        [c.name for c in spec.classes] if spec.overlapping else ("class",),
        colors=() if spec.overlapping else [c.rgb for c in spec.classes],
        tags=tags,
        nodata=NODATA, overviews="mode",
    )  # fmt: skip
    with open_tiled(path, raster) as writer:
        yield writer
    if not spec.overlapping:
        write_class_table(path, spec.classes)


def _stored_size(spec: OutputSpec) -> dict[str, int]:
    """For polygons: the sides of the image in its file, where it was read as if its pixels had another size."""
    stored = spec.stored_size
    return {} if stored in (None, spec.size) else {"image_height": stored.height, "image_width": stored.width}


def _quantity(name: Output, spec: OutputSpec) -> RasterSpec:
    if name == "foveation":
        tags = {"fields_of_view": str(list(spec.fields_of_view)), "cell": str(spec.cell)}
        grid, place, resolution = _coarser(spec.size, spec.georeference, spec.resolution, spec.cell)
        return RasterSpec(grid, "float32", place, resolution, ("expected field of view",), tags=tags)
    if name == "passes" and spec.passes is not None:
        return passes_raster(spec.size, spec.georeference, spec.resolution, spec.passes)
    bands = [c.name for c in spec.classes] if name == "probabilities" else [name]
    return RasterSpec(spec.size, "uint8", spec.georeference, spec.resolution, bands, nodata=NODATA, scale=1 / FULL)


def passes_raster(size: Size, place: Georeference | None, resolution: Resolution | None, passes: PassMap) -> RasterSpec:
    """The raster of a map of passes of an image: its size, where it lies, how large its pixels are."""
    grid, coarse, resolution = _coarser(size, place, resolution, passes.step)
    return RasterSpec(
        grid, "uint8", coarse, resolution,
        [f"field of view {look.view}, used {look.side}" for look in passes.looks],
        tags={"looks": str([list(look) for look in passes.looks]), "cell": str(passes.step)},
        nodata=0, scale=1 / FULL, overviews="nearest",
    )  # fmt: skip


def _coarser(
    size: Size, place: Georeference | None, resolution: Resolution | None, cell: int
) -> tuple[Size, Georeference | None, Resolution | None]:
    """Size, georeference and resolution of a raster of one value for each cell of so many pixels."""
    grid = CellGrid(size, cell)
    return Size(grid.rows, grid.cols), place and place.coarser(cell), resolution and resolution.scaled(cell, cell)


def _write_blocks(blocks: Iterable[tuple[Window, Layers]], opened: dict[Output, LayerWriter], spec: OutputSpec) -> None:
    for window, layers in blocks:
        for name, writer in opened.items():
            values: Any = layers.get(name)
            if values is None:
                continue
            place: Window | None = window
            if name == "passes" and spec.passes is not None:
                place = spec.passes.pixels_of(window)  # None where the block fills none
            elif name == "foveation":  # what a cell has beyond the block's border belongs to it too
                place = Window(window.top // spec.cell, window.left // spec.cell, *values.shape)
            if place is not None:
                writer.write(place, values)


def _publish(scratch: Path, folder: Path) -> None:
    """Give everything its final name, once it is on the disk; what may be replaced was asked before."""
    sync(scratch)
    for draft in sorted(scratch.iterdir()):
        target = folder / draft.name
        if target.is_dir():
            shutil.rmtree(target)
        if not table_path(draft).exists():  # statistics that GDAL or QGIS keep are those of the raster before
            table_path(target).unlink(missing_ok=True)
        draft.replace(target)
    sync_folder(folder)


def remove_result(path: Path) -> None:
    """Remove a result, where it is there, and what GDAL and QGIS keep of it in a file beside it."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    table_path(path).unlink(missing_ok=True)

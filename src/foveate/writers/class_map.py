"""Class maps: OME-Zarr labels written, and any class map read strip by strip, from a raster or from OME-Zarr labels."""

import colorsys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data import Address, ClassConfig
from foveate.data.readers.gdal import reading, tagged
from foveate.data.readers.ngff import multiscale_of
from foveate.data.readers.rasterio_reader import RasterioReader
from foveate.errors import ConfigError, ImageReadError, UnsupportedImageError, translated
from foveate.geometry import Georeference, LabelArray, Resolution, Size, Window, halvings, windows_over
from foveate.tiff.raster import NODATA, writing

CHUNK = 1024
_VERSION = "0.4"  # the newest that QuPath and OMERO read too
Rgb = tuple[int, int, int]
_STRIP_BYTES = 2**27


class LabelsWriter:
    """The finest level of open labels; made by `open_labels`."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array = array
        self._path = path

    def write(self, window: Window, values: LabelArray) -> None:
        """Write (h, w) into a window."""
        rows, cols = window.within(Window(0, 0, *self._array.shape))
        with writing(self._path):
            self._array[rows, cols] = values


@contextmanager
def open_labels(
    path: Path,
    size: Size,
    classes: Sequence[ClassConfig],
    resolution: Resolution | None,
    facts: Mapping[str, int] | None = None,
) -> Iterator[LabelsWriter]:
    """Open labels in a new folder for writing; coarser levels are added when the block ends well.

    The caller removes the folder when anything fails. The resolution is that of a pixel, where known; `facts` are kept
    as attributes of Foveate's own, which other programs pass over.
    """
    sizes = halvings(size, CHUNK)
    with writing(path):
        check_installed()
        import zarr  # noqa: PLC0415 - an extra

        group = zarr.open_group(str(path), mode="w-", zarr_format=2)
        arrays: list[Any] = [
            group.create_array(
                str(level),
                shape=(one.height, one.width),
                chunks=(min(CHUNK, one.height), min(CHUNK, one.width)),
                dtype="uint8",
                fill_value=NODATA,
                chunk_key_encoding={"name": "v2", "separator": "/"},
            )
            for level, one in enumerate(sizes)
        ]
    yield LabelsWriter(arrays[0], path)
    with writing(path):
        for finer, coarser in pairwise(arrays):
            for part in windows_over(Size(*coarser.shape), CHUNK, CHUNK):
                values = np.asarray(finer[2 * part.top : 2 * part.bottom, 2 * part.left : 2 * part.right])
                coarser[part.top : part.bottom, part.left : part.right] = majority(values)
        # Last, so that what is not complete does not look like labels.
        group.attrs.update(_attributes(path.name.partition(".")[0], len(sizes), classes, resolution))
        if facts:
            group.attrs["foveate"] = dict(facts)


def check_installed() -> None:
    """Raise `ConfigError` when the extra `zarr` is not installed."""
    if find_spec("zarr") is None:
        raise ConfigError("inference.format 'ome-zarr' needs pip install 'foveate[zarr]'; or use 'geotiff'")


def majority(values: LabelArray) -> LabelArray:
    """The id that most of 2 x 2 pixels have, (h, w) to (ceil(h / 2), ceil(w / 2)); of equals that of the first pixel.

    An odd last row or column counts twice.
    """
    height, width = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2)), mode="edge")
    a, b, c, d = even[::2, ::2], even[::2, 1::2], even[1::2, ::2], even[1::2, 1::2]
    without_a = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    return np.where((a == b) | (a == c) | (a == d), a, without_a)


def _attributes(
    name: str, levels: int, classes: Sequence[ClassConfig], resolution: Resolution | None
) -> dict[str, Any]:
    unit = {"unit": "micrometer"} if resolution else {}
    finest = [resolution.row * 1e6, resolution.col * 1e6] if resolution else [1.0, 1.0]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [side * 2**level for side in finest]}],
        }
        for level in range(levels)
    ]
    axes = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    colors = [{"label-value": i, "rgba": [*item.rgb, 255]} for i, item in enumerate(classes)]
    names = [{"label-value": i, "name": item.name} for i, item in enumerate(classes)]
    return {
        "multiscales": [{"version": _VERSION, "name": name, "axes": axes, "datasets": datasets, "type": "mode"}],
        "image-label": {
            "version": _VERSION,
            "colors": [*colors, {"label-value": NODATA, "rgba": [0, 0, 0, 0]}],
            "properties": names,
        },
    }


@dataclass(frozen=True, slots=True)
class ClassMap:
    """An open class map."""

    size: Size
    image_size: Size  # of its image, where that was read as if its pixels had another size
    georeference: Georeference | None  # place on the ground, when the file knows it
    resolution: Resolution | None  # of a pixel, when the file says so
    names: Mapping[int, str]  # of class ids; those without one get one from `name`, and from `color`
    colors: Mapping[int, Rgb]
    nodata: int | None  # id that stands for "not known"
    read: Callable[[Window], LabelArray]  # (h, w) ids of a window

    def name(self, value: int) -> str:
        """The class's name."""
        return self.names.get(value, f"class {value}")

    def color(self, value: int) -> Rgb:
        """The class's colour; without one its place on the colour circle, neighbours far from each other."""
        if value in self.colors:
            return self.colors[value]
        red, green, blue = colorsys.hsv_to_rgb(value * 0.618 % 1, 0.65, 0.9)
        return round(255 * red), round(255 * green), round(255 * blue)

    def strips(self) -> Iterator[LabelArray]:
        """All rows, at most 512 at a time: a row of tiles, unless that is very wide."""
        rows = 512
        while rows > 16 and rows * self.size.width > _STRIP_BYTES:
            rows //= 2
        for top in range(0, self.size.height, rows):
            yield self.read(Window(top, 0, min(rows, self.size.height - top), self.size.width))


@contextmanager
def open_class_maps(path: Path) -> Iterator[list[ClassMap]]:
    """Open a class map: one of ids; of overlapping classes one for each, with its id and otherwise `nodata`.

    It is a raster of one band of bytes, or with a band for each overlapping class, or OME-Zarr labels.

    Raises:
        ImageReadError: when there is nothing at the path.
    """
    if not path.exists():
        raise ImageReadError(f"no class map at {path}")
    if path.is_dir():
        yield [_labels(path)]
        return
    with RasterioReader(Address.of(path)) as reader:
        yield _rasters(path, reader)


def _rasters(path: Path, reader: RasterioReader) -> list[ClassMap]:
    dataset, tags = reader.dataset, reader.dataset.tags()
    overlapping = tags.get("overlapping") == "true"
    if reader.dtype != np.uint8 or (reader.bands != 1 and not overlapping):
        raise UnsupportedImageError(
            f"{path} is not a class map: it has {reader.bands} bands of {reader.dtype}; a class map has one band of "
            f"uint8, or is one of overlapping classes that foveate predict wrote"
        )
    if dataset.scales[0] != 1:  # of a confidence, for example
        raise UnsupportedImageError(f"{path} is not a class map: its values are numbers, to be scaled, not classes")

    def band(number: int, window: Window) -> LabelArray:
        with reading(path, window):
            ids: LabelArray = dataset.read(reader._indexes[number], window=window.ranges)
        return ids

    def of_class(number: int, window: Window) -> LabelArray:
        return np.where(band(number, window) == 1, np.uint8(number), np.uint8(NODATA))

    if not overlapping:
        return [_class_map(reader, tags, partial(band, 0))]
    return [_class_map(reader, tags, partial(of_class, number)) for number in range(reader.bands)]


def _class_map(reader: RasterioReader, tags: Mapping[str, str], read: Callable[[Window], LabelArray]) -> ClassMap:
    dataset = reader.dataset
    return ClassMap(
        reader.size,
        _image_size(tags) or reader.size,
        reader.georeference,
        tagged(tags),
        {int(key[6:]): value for key, value in tags.items() if key.startswith("class_") and key[6:].isdigit()},
        {i: rgba[:3] for i, rgba in dataset.colormap(1).items()} if reader.palette else {},
        None if dataset.nodata is None else int(dataset.nodata),
        read,
    )


def _image_size(tags: Mapping[str, Any]) -> Size | None:
    sides = tags.get("image_height"), tags.get("image_width")
    return None if None in sides else Size(*(int(side) for side in sides if side is not None))


def _labels(path: Path) -> ClassMap:
    try:
        import zarr  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise ConfigError(f"{path} is a folder; reading OME-Zarr needs pip install 'foveate[zarr]'") from None
    with translated(UnsupportedImageError, f"{path} is a folder but not of OME-Zarr labels"):
        group = zarr.open_group(str(path), mode="r")
        attributes: dict[str, Any] = dict(group.attrs)
        described = multiscale_of(attributes, str(path))
        if described is None:
            raise ValueError("it has no multiscales")
        finest: Any = group[described.paths[0]]
        facts = attributes.get("image-label", {})
    if finest.ndim != 2 or finest.dtype != np.uint8:
        raise UnsupportedImageError(
            f"{path} is not a class map: it has {finest.ndim} axes of {finest.dtype}, not 2 of uint8"
        )

    def read(window: Window) -> LabelArray:
        rows, cols = window.within(Window(0, 0, *finest.shape))
        return np.asarray(finest[rows, cols])

    return ClassMap(
        Size(*finest.shape),
        _image_size(attributes.get("foveate", {})) or Size(*finest.shape),
        None,
        described.resolution,
        {entry["label-value"]: entry["name"] for entry in facts.get("properties", ()) if "name" in entry},
        {entry["label-value"]: tuple(entry["rgba"][:3]) for entry in facts.get("colors", ())},
        None if finest.fill_value is None else int(finest.fill_value),
        read,
    )

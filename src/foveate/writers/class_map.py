"""Class maps to read: pixels strip by strip, names, colours and place, from a raster or from OME-Zarr labels."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.readers.gdal import open_dataset, read_header, reading
from foveate.data.readers.ngff import multiscale_of
from foveate.data.readers.resolution import tagged
from foveate.errors import ConfigError, ImageReadError, UnsupportedImageError
from foveate.geometry import Georeference, Resolution, Size, Window
from foveate.tiff.raster import NODATA
from foveate.types import LabelArray

Rgb = tuple[int, int, int]
_STRIP_BYTES = 2**27


@dataclass(frozen=True, slots=True)
class ClassMap:
    """An open class map.

    Attributes:
        size: in pixels.
        image_size: of the image that it is of, where that was read as if its pixels had another size; else `size`.
        georeference: place on the ground, when the file knows it.
        resolution: height and width of a pixel in metres, when the file says so.
        names, colors: of class ids; those without one get one from `name` and `color`.
        nodata: id that stands for "not known".
        read: (h, w) ids of a window.
    """

    size: Size
    image_size: Size
    georeference: Georeference | None
    resolution: tuple[float, float] | None
    names: Mapping[int, str]
    colors: Mapping[int, Rgb]
    nodata: int | None
    read: Callable[[Window], LabelArray]

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

    Args:
        path: a raster of one band of bytes that GDAL reads, or OME-Zarr labels, as `foveate predict` writes both; of
            overlapping classes a raster with a band for each.

    Raises:
        ImageReadError: when there is nothing at the path.
        UnsupportedImageError: when it is no class map.
        ConfigError: when it is OME-Zarr and the extra `zarr` is not installed.
    """
    if not path.exists():
        raise ImageReadError(f"no class map at {path}")
    if path.is_dir():
        yield [_labels(path)]
        return
    with open_dataset(path) as dataset:
        yield _rasters(path, dataset)


def _rasters(path: Path, dataset: Any) -> list[ClassMap]:
    header, tags = read_header(dataset), dataset.tags()
    overlapping = tags.get("overlapping") == "true"
    if header.dtype != np.uint8 or (len(header.indexes) != 1 and not overlapping):
        found = f"{len(header.indexes)} bands of {header.dtype}"
        raise UnsupportedImageError(
            f"{path} is no class map: it has {found}; a class map has one band of uint8, or is one of overlapping "
            f"classes that foveate predict wrote"
        )

    def band(number: int, window: Window) -> LabelArray:
        with reading(path, window):
            place = ((window.top, window.bottom), (window.left, window.right))
            ids: LabelArray = dataset.read(header.indexes[number], window=place)
        return ids

    def of_class(number: int, window: Window) -> LabelArray:
        return np.where(band(number, window) == 1, np.uint8(number), np.uint8(NODATA))

    if not overlapping:
        return [_class_map(header, tags, dataset, partial(band, 0))]
    return [_class_map(header, tags, dataset, partial(of_class, number)) for number in range(len(header.indexes))]


def _class_map(header: Any, tags: Mapping[str, str], dataset: Any, read: Callable[[Window], LabelArray]) -> ClassMap:
    return ClassMap(
        header.size,
        _image_size(tags) or header.size,
        header.georeference,
        _sides(tagged(tags)),
        {int(key[6:]): value for key, value in tags.items() if key.startswith("class_") and key[6:].isdigit()},
        {i: rgba[:3] for i, rgba in dataset.colormap(1).items()} if header.palette else {},
        None if dataset.nodata is None else int(dataset.nodata),
        read,
    )


def _image_size(tags: Mapping[str, Any]) -> Size | None:
    sides = tags.get("image_height"), tags.get("image_width")
    return None if None in sides else Size(*(int(side) for side in sides if side is not None))


def _sides(resolution: Resolution | None) -> tuple[float, float] | None:
    return None if resolution is None else (resolution.row, resolution.col)


def _labels(path: Path) -> ClassMap:
    try:
        import zarr  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise ConfigError(f"{path} is a folder; reading OME-Zarr needs pip install 'foveate[zarr]'") from None
    try:
        group = zarr.open_group(str(path), mode="r")
        attributes: dict[str, Any] = dict(group.attrs)
        described = multiscale_of(attributes, str(path))
        if described is None:
            raise UnsupportedImageError(f"{path} is a folder but not of OME-Zarr labels: it has no multiscales")
        finest: Any = group[described.paths[0]]
        facts = attributes.get("image-label", {})
    except (FileNotFoundError, KeyError) as error:
        raise UnsupportedImageError(f"{path} is a folder but not of OME-Zarr labels: {error}") from error
    if finest.ndim != 2 or finest.dtype != np.uint8:
        raise UnsupportedImageError(
            f"{path} is no class map: it has {finest.ndim} axes of {finest.dtype}, not 2 of uint8"
        )

    def read(window: Window) -> LabelArray:
        rows, cols = window.within(Window(0, 0, *finest.shape))
        return np.asarray(finest[rows, cols])

    return ClassMap(
        Size(*finest.shape),
        _image_size(attributes.get("foveate", {})) or Size(*finest.shape),
        None,
        _sides(described.resolution),
        {entry["label-value"]: entry["name"] for entry in facts.get("properties", ()) if "name" in entry},
        {entry["label-value"]: tuple(entry["rgba"][:3]) for entry in facts.get("colors", ())},
        None if finest.fill_value is None else int(finest.fill_value),
        read,
    )

"""What a survey counts in labels: pixels, images and sizes of the classes, from masks, bands, folders or polygons."""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage

from foveate.data.config import DataConfig
from foveate.data.images import open_stored
from foveate.data.labels.raster import CLASS, MaskFile
from foveate.data.labels.shapes import VECTORS, read_shapes
from foveate.data.labels.table import packed
from foveate.data.labels.vector import in_pixels
from foveate.data.manifest import data_files
from foveate.data.readers import open_image
from foveate.errors import DatasetError
from foveate.geometry import Size, Window
from foveate.types import IGNORE

# Read in full up to this many pixels in all; of more an even part of the tiles.
_PIXELS = 10**9
_TILE = 2048
_OBJECT_GRID = 1024  # rows and columns of the coarse grid that objects are measured on
_MOST_VALUES = 256
_MANY_VALUES = 10  # that are one connected part each: numbers of objects
_OF_OBJECTS = (
    "If they number the objects of each image, save the class of each object in their place: Foveate does not tell "
    "objects of a class apart"
)


class ImageFacts(NamedTuple):
    """An image: its name, file, labels, size, bands, type, metres a pixel and system where known."""

    name: str
    path: Path
    labels: Path
    size: Size
    bands: int
    dtype: str
    pixel_size: float | None
    crs: str | None

    @property
    def sides(self) -> list[int]:
        """The shorter and the longer one."""
        return sorted((self.size.height, self.size.width))


@dataclass
class ClassFacts:
    """What was counted of one value, colour or name in the labels."""

    pixels: int = 0  # how many were seen; of polygons their area
    halves: dict[str, NDArray[Any]] = field(default_factory=dict)  # by image, shares of its upper and its lower half
    diameters: list[float] = field(default_factory=list)  # of connected parts, level-0 pixels

    @property
    def images(self) -> list[str]:
        """Names of the images that hold it."""
        return [name for name, shares in self.halves.items() if shares.any()]

    @property
    def diameter(self) -> float:
        """Of its parts: half of the area is in larger ones, so that specks do not count. 0 if not measured."""
        ordered = np.sort(self.diameters)
        area = np.cumsum(ordered**2)
        return float(ordered[np.searchsorted(area, area[-1] / 2)]) if len(area) else 0.0

    def add(self, image: str, lower: bool, pixels: float, share: float, diameters: Iterable[float]) -> None:
        """Count pixels in the upper or lower half of an image, of which they are a share, and their parts."""
        self.pixels += round(pixels)
        self.halves.setdefault(image, np.zeros(2))[int(lower)] += share
        self.diameters += diameters


def class_folders(folder: Path) -> list[Path]:
    """Folders below one that hold files: the classes, where each has masks of its own."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and data_files(path))


class Counted:
    """The classes in the labels of some images, counted tile by tile."""

    def __init__(self, images: list[ImageFacts], said: DataConfig) -> None:
        self._said = said
        self._found: dict[Any, ClassFacts] = defaultdict(ClassFacts)
        self._drawn = np.zeros(2, np.int64)  # cells of a coarse grid in polygons of any, and of several classes
        kinds = {_kind(image) for image in images}
        if len(kinds) > 1:
            raise DatasetError(f"the labels are of several kinds, {' and '.join(sorted(kinds))}; convert them to one")
        self.kind = kinds.pop()
        total = sum(image.size.pixels for image in images)
        self.complete = self.kind == "polygons" or total <= _PIXELS
        for image in images:
            if self.kind == "polygons":
                self._count_shapes(image)
            else:
                self._count_masks(image, _PIXELS / total)
        self.classes = dict(sorted(self._found.items()))  # by value
        self.overlap = float(self._drawn[1] / max(1, self._drawn[0]))  # share of the area in several classes

    @property
    def notes(self) -> list[str]:
        """What is odd about the labels."""
        values = [value for value in self.classes if value not in (0, IGNORE)] if self.kind == "ids" else []
        found = [self.classes[value] for value in values]
        parts = sum(len(facts.diameters) for facts in found)  # one at the middle of an image counts twice
        if len(values) < _MANY_VALUES or parts > 1.5 * sum(len(facts.images) for facts in found):
            return []
        return [f"nearly each of the {len(values)} values in the labels is one object in an image. {_OF_OBJECTS}"]

    def _count_masks(self, image: ImageFacts, share: float) -> None:
        step = max(1, image.sides[1] // _OBJECT_GRID)
        for name, path, band in _masks_of(image, self.kind):
            with open_image(path) as mask:
                if MaskFile.of(mask).lossy:
                    raise DatasetError(
                        f"the labels {path} have lossy compression, which changes values; save them as PNG or as "
                        "lossless TIFF. Or write the configuration yourself, with data.round_labels: true and the "
                        "values of the classes in data.label_map, such as {0: 0, 255: 1}"
                    )
                for window in _tiles(mask.size, share, image.name):
                    pixels, lower = mask.read(window), window.top >= mask.size.height // 2
                    for value, yes in [(name, pixels[band] > 0)] if name is not None else self._by_value(pixels, path):
                        count, (parts, _) = int(yes.sum()), ndimage.label(yes[::step, ::step])
                        wide = 2 * np.sqrt(np.bincount(parts.ravel())[1:] / np.pi) * step
                        self._found[value].add(image.name, lower, count, count / mask.size.pixels, wide.tolist())

    def _by_value(self, pixels: NDArray[Any], path: Path) -> Iterator[tuple[Any, NDArray[np.bool_]]]:
        """The values or colours of a mask, and where each is."""
        values = _numbers(pixels, self.kind)
        found = np.unique(values).tolist()
        if len({*self._found, *found}) > _MOST_VALUES:
            raise DatasetError(
                f"{path}: the labels have more than {_MOST_VALUES} different values, so they look like "
                f"pictures or numbers of objects. {_OF_OBJECTS}"
            )
        return ((value, values == value) for value in found)

    def _count_shapes(self, image: ImageFacts) -> None:
        how = self._said.vectors
        shapes = read_shapes(image.labels, image.path.name, how.attribute, how.layer)
        with open_stored(image.path, self._said) as reader:
            placed, _ = in_pixels(shapes, reader, how.coordinates, image.labels)
        # One file may hold the polygons of many images.
        placed = shapely.clip_by_rect(placed, 0, 0, image.size.width, image.size.height)
        for outline, label in zip(placed, shapes.labels, strict=True):
            if not outline.area:
                continue
            lower, area = outline.centroid.y >= image.size.height / 2, outline.area
            facts = self._found["" if label is None else str(label)]
            facts.add(image.name, lower, area, area / image.size.pixels, [2 * (area / np.pi) ** 0.5])
        step = max(1.0, image.sides[1] / _OBJECT_GRID)
        shape = ceil(image.size.height / step), ceil(image.size.width / step)
        several = np.zeros(shape, np.uint8)  # how many classes have a polygon at the cells of a coarse grid
        for name in {label for label in shapes.labels if label is not None}:
            mine = [one for one, label in zip(placed, shapes.labels, strict=True) if label == name and one.area]
            if not mine:
                continue
            several += rasterize(mine, shape, transform=Affine.scale(step), dtype="uint8")
        self._drawn += (several > 0).sum(), (several > 1).sum()


def _masks_of(image: ImageFacts, kind: str) -> list[tuple[Any, Path, int]]:
    """Name, file and band of the mask of each overlapping class; without a name the file of all classes."""
    if kind == "bands":
        with open_image(image.labels) as mask:
            return [(band, image.labels, band) for band in range(mask.bands)]
    if kind != "folders":
        return [(None, image.labels, 0)]
    files = [(one.name, one / image.labels.name, 0) for one in class_folders(image.labels.parent.parent)]
    return [one for one in files if one[1].exists()]


def _kind(image: ImageFacts) -> str:
    if image.labels.suffix.lower() in VECTORS:
        return "polygons"
    if CLASS in str(image.labels):
        return "folders"
    with open_image(image.labels) as mask:
        if mask.bands == 1:
            return "ids"
        pixels = mask.read(Window.of(mask.size), Size(min(512, mask.size.height), min(512, mask.size.width)))
        if (pixels[1:] == pixels[:1]).all():
            return "ids"
        # Three bands of 0 and 255 are pictures in colours.
        largest = pixels.max()
        two = np.isin(pixels, (0, largest)).all() and largest in ((1,) if mask.bands == 3 else (1, 255))
        return "bands" if two else "colours"


def _tiles(size: Size, share: float, name: str) -> Iterator[Window]:
    """Tiles that lie wholly in the upper or in the lower half; where not all are read, some drawn by the name."""
    half, rng = size.height // 2, random.Random(name)
    for top, bottom in ((0, half), (half, size.height)):
        for row in range(top, bottom, _TILE):
            for col in range(0, size.width, _TILE):
                if rng.random() <= share:
                    yield Window(row, col, min(_TILE, bottom - row), min(_TILE, size.width - col))


def _numbers(pixels: NDArray[Any], kind: str) -> NDArray[Any]:
    """One whole number a pixel: its value, or its colour as 0xRRGGBB; NaN counts as -1."""
    if kind == "colours":
        return packed(pixels[:3])
    values: NDArray[Any] = pixels[0]
    if values.dtype.kind != "f":
        return values
    if (values != np.floor(values))[np.isfinite(values)].any():
        raise DatasetError("the labels have fractions; a mask must hold whole numbers")
    whole: NDArray[Any] = np.nan_to_num(values, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
    return whole

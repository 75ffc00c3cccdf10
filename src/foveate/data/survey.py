"""`Survey`: what a folder of images and labels holds, from a sample of its pixels and a count of its labels."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio.features
import shapely
from scipy import ndimage

from foveate.data.channels import Kind, lone_value, select_channels
from foveate.data.config import DataConfig
from foveate.data.images import open_stored
from foveate.data.labels.raster import CLASS, MaskFile
from foveate.data.labels.shapes import VECTORS, read_shapes
from foveate.data.labels.table import packed
from foveate.data.labels.vector import in_pixels
from foveate.data.manifest import data_files
from foveate.data.readers import open_image
from foveate.data.readers.base import BAND, Address, band_files, is_pattern
from foveate.data.readers.pyramid import are_colours, sampled
from foveate.errors import DatasetError, FoveateError
from foveate.geometry import IGNORE, LOWER, Array, BoolArray, Size, Window

_IMAGES = ("images", "image", "imgs", "img")
_LABELS = ("masks", "labels", "annotations", "mask", "label", "gt")
_LOOKED_AT = 24  # images whose values are looked at
_RARE, _APART = 0.002, 1.0  # share of a value, and how many ranges of the others it lies away from them
_PIXELS = 10**9  # of labels that are read in full; of more an even part of the tiles
_TILE = 2048
_OBJECT_GRID = 1024  # rows and columns of the coarse grid that objects are measured on
_MOST_VALUES = 256
_MANY_VALUES = 10  # that are one connected part each: numbers of objects
_OF_OBJECTS = (
    "If they number the objects of each image, save the class of each object in their place: Foveate does not tell "
    "objects of a class apart"
)


class ImageFacts(NamedTuple):
    """An image with labels."""

    name: str  # of its file without the suffix
    path: Path
    labels: Path
    size: Size
    bands: int
    dtype: str
    pixel_size: float | None  # metres, where known
    crs: str | None
    in_colour: bool  # whether its bands are red, green and blue

    @property
    def sides(self) -> list[int]:
        """The shorter and the longer one."""
        return sorted((self.size.height, self.size.width))


@dataclass
class ClassFacts:
    """What was counted of one value, colour or name in the labels."""

    pixels: int = 0  # how many were seen; of polygons their area
    halves: dict[str, Array] = field(default_factory=dict)  # by image, shares of its upper and its lower half
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


class Survey:
    """What a folder holds: images/ and, of the same names, masks/ (or labels/, annotations/, ...).

    Args:
        folder: of the data set; also an attribute.
        said: how its files are read: plane, nodata and vectors; the rest of it is not looked at.

    Attributes:
        images: those with labels, sorted by name; all have as many `bands` of one type.
        band_files: names of the bands, where each lies in a file of its own.
        low, high: least and largest value of the images that was seen, NaN and infinity aside.
        mean, std: of each band.
        kind: of labels: "ids", "colours", "polygons", or of overlapping classes "bands" or "folders" of masks.
        complete: whether every pixel of the labels was read.
        classes: by value, packed colour, name or band, in ascending order.
        overlap: share of the area of polygons that lies in polygons of several classes.
        problems: what was not understood or is left out.
    """

    def __init__(self, folder: Path, said: DataConfig) -> None:
        self.folder, self._said = folder, said
        self.problems: list[str] = []
        self.images = self._with_labels()
        for what in ("bands", "dtype"):
            counts = Counter(getattr(image, what) for image in self.images)
            if len(counts) > 1:
                told = ", ".join(f"{kind} in {count} images" for kind, count in counts.most_common())
                raise DatasetError(f"the images differ in {what}: {told}; convert some, so that all are alike")
        path, self.bands = self.images[0].path, self.images[0].bands
        self.band_files = list(band_files(path)) if is_pattern(path) else []
        self._look_at_values()
        self.kind, *others = sorted({_kind(image) for image in self.images})
        if others:
            kinds = " and ".join([self.kind, *others])
            raise DatasetError(f"the labels are of several kinds, {kinds}; convert them to one")
        total = sum(image.size.pixels for image in self.images)
        self.complete = self.kind == "polygons" or total <= _PIXELS
        self._found: dict[Any, ClassFacts] = defaultdict(ClassFacts)
        self._drawn = np.zeros(2, np.int64)  # cells of a coarse grid in polygons of any, and of several classes
        for image in self.images:
            if self.kind == "polygons":
                self._count_shapes(image)
            else:
                self._count_masks(image, _PIXELS / total)
        self.classes = dict(sorted(self._found.items()))
        self.overlap = float(self._drawn[1] / max(1, self._drawn[0]))
        self._note_objects()

    def _with_labels(self) -> list[ImageFacts]:
        where = _subfolder(self.folder, _IMAGES, "images")
        labels = _label_files(_subfolder(self.folder, _LABELS, "labels"))
        found, bare = [], []
        for path in _with_bands(data_files(where), labels):
            name = Address.of(path).name
            if name not in labels:
                bare.append(name)
                continue
            try:
                found.append(self._facts(name, path, labels.pop(name)))
            except FoveateError as error:
                self.problems.append(f"left out because it cannot be read: {error}")
        if bare:
            self.problems.append(f"{len(bare)} images without labels are left out: {', '.join(bare[:5])}")
        if labels:
            self.problems.append(f"{len(labels)} files of labels without an image: {', '.join(list(labels)[:5])}")
        if not found:
            raise DatasetError(f"no image in {where} has labels of the same name; " + "; ".join(self.problems))
        return sorted(found)

    def _facts(self, name: str, path: Path, labels: Path) -> ImageFacts:
        with open_stored(path, self._said) as image:
            kind, place = Kind.of(image, select_channels(image, None, image.bands)), image.georeference
            crs = place.crs if place is not None and place.crs else None
            in_colour = kind.bands == 3 and are_colours(kind.names, kind.dtype)
            return ImageFacts(
                name, path, labels, image.size, kind.bands, kind.dtype.name, kind.pixel_size, crs, in_colour
            )

    def _look_at_values(self) -> None:
        parts = []
        for facts in self.images[:: ceil(len(self.images) / _LOOKED_AT)]:
            with open_stored(facts.path, self._said) as image:
                pixels = sampled(image, range(image.bands))
                parts.append(pixels[:, np.isfinite(pixels).all(axis=0)])
        values = np.concatenate(parts, axis=1)
        if not values.size:
            raise DatasetError("the images have no finite value, or no pixel that holds data in all bands")
        self.low, self.high = float(values.min()), float(values.max())
        self.mean, self.std = values.mean(axis=1).tolist(), values.std(axis=1).tolist()
        if self.images[0].dtype != "uint8" and (lone := lone_value(values, _RARE, _APART)):
            value, said = lone
            remedy = f"foveate init {self.folder} data.nodata={value:g} --overwrite"
            self.problems.append(f"{said}. If that means no data, run: {remedy}")

    def _note_objects(self) -> None:
        """Tell of values that are likely to number objects."""
        found = [facts for value, facts in self.classes.items() if self.kind == "ids" and value not in (0, IGNORE)]
        parts = sum(len(facts.diameters) for facts in found)  # one at the middle of an image counts twice
        if len(found) >= _MANY_VALUES and parts <= 1.5 * sum(len(facts.images) for facts in found):
            self.problems.append(
                f"nearly each of the {len(found)} values in the labels is one object in an image. {_OF_OBJECTS}"
            )

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

    def _by_value(self, pixels: Array, path: Path) -> Iterator[tuple[Any, BoolArray]]:
        """The values of a mask, or its colours as 0xRRGGBB, and where each is; NaN counts as -1."""
        values = packed(pixels[:3]) if self.kind == "colours" else pixels[0]
        if values.dtype.kind == "f":
            if (values != np.floor(values))[np.isfinite(values)].any():
                raise DatasetError(f"{path}: the labels have fractions; a mask must hold whole numbers")
            values = np.nan_to_num(values, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
        found = np.unique(values).tolist()
        if len({*self._found, *found}) > _MOST_VALUES:
            raise DatasetError(
                f"{path}: the labels have more than {_MOST_VALUES} different values, so they look like pictures or "
                f"numbers of objects. {_OF_OBJECTS}"
            )
        return ((value, values == value) for value in found)

    def _count_shapes(self, image: ImageFacts) -> None:
        how = self._said.vectors
        shapes = read_shapes(image.labels, image.path.name, how.attribute, how.layer)
        with open_stored(image.path, self._said) as reader:
            placed, _ = in_pixels(shapes, reader, how.coordinates, image.labels)
        # One file may hold the polygons of many images.
        placed = shapely.clip_by_rect(placed, 0, 0, image.size.width, image.size.height)
        by_class = defaultdict(list)
        for outline, label in zip(placed, shapes.labels, strict=True):
            if outline.area:
                by_class[label].append(outline)
        step = max(1.0, image.sides[1] / _OBJECT_GRID)
        several = np.zeros((ceil(image.size.height / step), ceil(image.size.width / step)), np.uint8)
        for label, outlines in by_class.items():
            for one in outlines:
                lower = one.centroid.y >= image.size.height / 2
                wide, share = 2 * (one.area / np.pi) ** 0.5, one.area / image.size.pixels
                self._found["" if label is None else str(label)].add(image.name, lower, one.area, share, [wide])
            if label is not None:
                place = rasterio.Affine(step, 0, 0, 0, step, LOWER * step)
                several += rasterio.features.rasterize(outlines, several.shape, transform=place, dtype="uint8")
        self._drawn += (several > 0).sum(), (several > 1).sum()


def _with_bands(files: list[Path], labels: Iterable[str]) -> list[Path]:
    """Images; where those of every name among the labels differ in the same words, paths with `{band}` for these."""
    names, found = list(labels), dict[str, dict[str, Path]]()
    if any(Address.of(path).name in names for path in files):
        return files
    for name in names:
        around = re.compile(rf"{re.escape(name)}[_. -](\w+)|(\w+)[_. -]{re.escape(name)}")
        fits = ((around.fullmatch(path.stem), path) for path in files)
        found[name] = {match[1] or match[2]: path for match, path in fits if match}
    bands = {tuple(sorted(one)) for one in found.values()}
    if len(bands) != 1 or len(next(iter(bands))) < 2:
        return files
    first = next(iter(bands))[0]
    return [one[first].with_name(BAND.join(one[first].name.rsplit(first, 1))) for one in found.values()]


def _label_files(folder: Path) -> dict[str, Path]:
    """Labels by the names of their images; where there are folders of classes instead of files, with `{class}`."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = data_files(folder, polygons=True) or [
        folder / CLASS / path.name for one in classes for path in data_files(one)
    ]
    return {Address.of(path).name: path for path in files}


def _subfolder(folder: Path, names: Iterable[str], what: str) -> Path:
    found = [folder / name for name in names if (folder / name).is_dir()]
    if not found:
        raise DatasetError(
            f"{folder} has no folder of {what}; put images into images/, and labels of the same names into masks/"
        )
    return found[0]


def _masks_of(image: ImageFacts, kind: str) -> list[tuple[Any, Path, int]]:
    """Name, file and band of the mask of each overlapping class; without a name the file of all classes."""
    if kind == "bands":
        with open_image(image.labels) as mask:
            return [(band, image.labels, band) for band in range(mask.bands)]
    if kind != "folders":
        return [(None, image.labels, 0)]
    folders = sorted(image.labels.parent.parent.iterdir())
    return [(one.name, one / image.labels.name, 0) for one in folders if (one / image.labels.name).exists()]


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
        largest = pixels.max()  # three bands of 0 and 255 are pictures in colours
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

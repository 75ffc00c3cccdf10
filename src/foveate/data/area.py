"""`Area`: which pixels of an image are looked at: those in polygons of interest, with data, with tissue."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import rasterio.features
import shapely
from scipy import ndimage

from foveate.config_base import ConfigTree
from foveate.data.place import Ring, named_system, outlines_on
from foveate.data.readers.pyramid import ImageReader
from foveate.errors import ConfigError, translated
from foveate.geometry import LOWER, BoolArray, ByteArray, Coordinates, Size, Window, ceil_div, ceil_to, windows_over
from foveate.texts import read_json
from foveate.types import Tissue

# Tissue is looked for in pixels of about this size, at which cells melt into tissue: 1.25x, as others do.
_PIXEL = 8e-6
_LONGEST = 4096
_FEWEST = 256  # pixels on the longer side of a small image
# Otsu's threshold lies between two heaps; where there is but one, or pale tissue beside dark one, it goes astray.
_LEAST, _MOST = 8, 20
_DARK = 100  # of 255: light passes through glass
_SMOOTHED = 5  # pixels on a side, against noise and dust
_SMALLEST = 64  # pixels: smaller pieces are dust, smaller gaps are gaps in tissue
_MARGIN = 2  # pixels around tissue that count as tissue
_LARGEST_PIXEL = 10e-6  # metres, of a scanner
Outline = tuple[Ring, ...]  # the outer ring of a polygon, then its holes
# Drawn at once, at the same places whatever is asked for, so that a centre on an edge is always in or always out.
_TILE = 512
_SCANNED = 2048  # side of the windows that a scan of a whole image asks for
_MOST_BYTES = 64 << 20  # of a file of regions
LEFT_OUT = ("outside", "no data", "glass")  # why a pixel does not count


class TissueMask(NamedTuple):
    """Where a slide shows tissue."""

    mask: BoolArray  # (h, w) of the whole slide, at low resolution
    size: Size  # of the slide, level-0 pixels

    @classmethod
    def of(cls, slide: ImageReader) -> Self:
        """Find the tissue of a slide from its overview.

        Glass is grey or white, and stains are colours: the saturation is smoothed by a median and parted by Otsu's
        threshold, held between 8 and 20 of 255. Gaps are closed, small pieces and small gaps removed, and a margin of
        about 16 micrometres added. Where it is dark, as in fluorescence, it is no glass, and no tissue is found.

        Source: Otsu, "A threshold selection method from gray-level histograms", 1979; on the saturation as in CLAM (Lu
        et al., 2021).

        Args:
            slide: an image of three bands of bytes.
        """
        longest = max(slide.size.height, slide.size.width)
        pixel = slide.resolution.row if slide.resolution is not None else _PIXEL
        factor = min(1.0, max(pixel / _PIXEL, _FEWEST / longest), _LONGEST / longest)
        pixels = slide.read(Window.of(slide.size), slide.size.scaled(factor, factor))[:3]
        saturation = ndimage.median_filter(saturation_of(pixels), _SMOOTHED)
        tissue = saturation > np.clip(otsu(saturation), _LEAST, _MOST)
        dark = not tissue.all() and np.median(pixels.max(axis=0)[~tissue]) < _DARK
        return cls(np.zeros_like(tissue) if dark else _cleaned(tissue), slide.size)

    @property
    def digest(self) -> str:
        """Name of the mask: equal for equal masks."""
        return hashlib.sha256(f"{self.mask.shape}".encode() + np.packbits(self.mask).tobytes()).hexdigest()[:16]

    def inside(self, window: Window) -> BoolArray:
        """Whether each pixel (h, w) of a window lies under tissue."""
        rows = np.arange(window.top, window.bottom) * self.mask.shape[0] // self.size.height
        cols = np.arange(window.left, window.right) * self.mask.shape[1] // self.size.width
        return self.mask[np.ix_(rows, cols)]


def is_slide(image: ImageReader) -> bool:
    """Whether an image is one of a scanner: in colour, of pixels of at most 10 micrometres, and with no place on Earth.

    Copies of a slide in other formats are slides too, as long as they say how large their pixels are.
    """
    in_colour = image.bands == 3 and image.dtype == np.uint8 and not image.palette
    pixel = image.resolution
    small = pixel is not None and max(pixel.row, pixel.col) <= _LARGEST_PIXEL
    return in_colour and small and image.georeference is None


def saturation_of(pixels: ByteArray) -> ByteArray:
    """Saturation (h, w), 0 to 255, of red, green and blue (3, h, w): (largest - smallest) / largest, 0 of black."""
    largest, smallest = pixels.max(axis=0), pixels.min(axis=0)
    share = (largest - smallest) / np.maximum(largest, 1).astype(np.float32)
    return np.asarray(np.rint(share * 255), np.uint8)


def otsu(values: ByteArray) -> int:
    """The threshold up to which values belong to the lower class, such that the two classes vary least within."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    low, low_sum = counts.cumsum(), (counts * np.arange(256)).cumsum()
    high, high_sum = low[-1] - low, low_sum[-1] - low_sum
    both = (low > 0) & (high > 0)
    apart = np.zeros(256)
    apart[both] = low[both] * high[both] * (low_sum[both] / low[both] - high_sum[both] / high[both]) ** 2
    return int(apart.argmax())


def _cleaned(mask: BoolArray) -> BoolArray:
    closed = ndimage.binary_closing(np.pad(mask, _MARGIN, mode="edge"), iterations=_MARGIN)
    solid = ~_without_small(~_without_small(closed))
    margin: BoolArray = ndimage.binary_dilation(solid, iterations=_MARGIN)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return margin


def _without_small(mask: BoolArray) -> BoolArray:
    """The mask without connected pieces of fewer than `_SMALLEST` pixels."""
    pieces, _ = ndimage.label(mask)
    kept = np.bincount(pieces.ravel()) >= _SMALLEST
    kept[0] = False
    return np.asarray(kept[pieces], np.bool_)


class Polygons:
    """The pixels whose centres lie in any polygon, or on its right or upper edge; the `note` says what was guessed."""

    def __init__(self, outlines: Sequence[Outline], note: str = "") -> None:
        self.note = note
        self._shapes = [{"type": "Polygon", "coordinates": [ring.tolist() for ring in outline]} for outline in outlines]
        bounds = [(*outline[0].min(axis=0), *outline[0].max(axis=0)) for outline in outlines]
        self.bounds = np.array(bounds, np.float64).reshape(-1, 4)  # left, top, right and bottom of each polygon
        total = hashlib.sha256()
        for outline in outlines:
            # To a thousandth of a pixel, as other computers round a transformation otherwise.
            rings = (f"{len(ring)}".encode() + np.round(ring, 3).tobytes() for ring in outline)
            total.update(b"".join(rings) + b"/")
        self.digest = total.hexdigest()[:16]

    def meets(self, window: Window) -> bool:
        """Whether the rectangle around any polygon meets a window."""
        return bool(self._near(window))

    def shared_with(self, other: Self) -> float:
        """The area that lies in both regions, pixels."""
        both = (
            shapely.union_all([shapely.make_valid(shapely.geometry.shape(s)) for s in region._shapes])
            for region in (self, other)
        )
        return float(shapely.intersection(*both).area)

    def inside(self, window: Window) -> BoolArray:
        """Whether each pixel (h, w) of a window is in the region."""
        result = np.zeros((window.height, window.width), np.bool_)
        around = window.aligned(_TILE)
        for top, left in product(range(around.top, around.bottom, _TILE), range(around.left, around.right, _TILE)):
            tile = Window(top, left, _TILE, _TILE)
            part = tile.intersection(window)
            shapes = self._near(tile)
            if part is not None and shapes:
                place = rasterio.Affine(1, 0, left, 0, 1, top + LOWER)
                drawn = rasterio.features.rasterize(shapes, (_TILE, _TILE), transform=place, dtype="uint8")
                result[part.within(window)] = drawn[part.within(tile)] > 0
        return result

    def _near(self, window: Window) -> list[dict[str, Any]]:
        left, top, right, bottom = self.bounds.T
        near = (left < window.right) & (right > window.left) & (top < window.bottom) & (bottom > window.top)
        return [self._shapes[i] for i in np.flatnonzero(near)]


def load_region(path: Path, image: ImageReader, coordinates: Coordinates = "auto") -> Polygons:
    """The polygons of a file, in pixels of an image.

    Args:
        path: a GeoJSON file: features, or bare geometries, of polygons and multipolygons.
        image: the image.
        coordinates: "pixels" of the image as it is stored, those of its coordinate reference system ("crs"), or
            longitude and latitude. "auto" is the system that the file names in its member `crs`; without one, pixels
            where the image has no place on Earth or no corner could be a longitude and latitude, else "lonlat", which
            is what GeoJSON means (RFC 7946).

    Raises:
        ConfigError: when there is no such file, it holds something else, its coordinates cannot be brought to the
            image, or nothing of the image is inside.
    """
    if not path.is_file():
        raise ConfigError(f"no region of interest at {path}")
    tree = read_json(path, ConfigError, "a region of interest is a GeoJSON file", _MOST_BYTES)
    with translated(ConfigError, f"{path} has a polygon whose coordinates are not numbers", "it is damaged"):
        polygons = [tuple(map(_ring, rings)) for rings in _polygons(tree, path) if rings]
    if not polygons:
        raise ConfigError(f"{path} has no polygon; a region of interest needs at least one")
    problem = f"the coordinates in {path} cannot be converted to pixels of {image.location}"
    with translated(ConfigError, problem, "check them, or say which they are with --roi-coordinates"):
        region = Polygons(*outlines_on(image, polygons, named_system(tree, path), coordinates, path))
    if not region.meets(Window.of(image.size)):
        (left, top), (right, bottom) = region.bounds[:, :2].min(axis=0), region.bounds[:, 2:].max(axis=0)
        raise ConfigError(
            f"the region of interest in {path} spans columns {left:.0f} to {right:.0f} and rows {top:.0f} to "
            f"{bottom:.0f}. They do not overlap {image.location}, which has {image.size.width} columns and "
            f"{image.size.height} rows. Set --roi-coordinates to pixels, crs or lonlat"
        )
    return region


def _polygons(tree: Any, path: Path) -> Iterator[Any]:
    """The rings of every polygon."""
    if isinstance(tree, list):  # QuPath writes a bare list of features too
        tree = {"type": "FeatureCollection", "features": tree}
    kind = tree.get("type") if isinstance(tree, dict) else None
    if kind == "Polygon":
        yield tree.get("coordinates", ())
    elif kind == "MultiPolygon":
        yield from tree.get("coordinates", ())
    elif kind == "Feature":
        yield from _polygons(tree.get("geometry"), path)
    elif kind in ("FeatureCollection", "GeometryCollection"):
        for part in tree.get("features", tree.get("geometries", ())):
            yield from _polygons(part, path)
    else:
        found = "a feature without a geometry" if tree is None else kind or repr(tree)
        raise ConfigError(f"{path} holds {found}; a region is made of Polygon and MultiPolygon")


def _ring(points: Any) -> Ring:
    ring = np.array([point[:2] for point in points], np.float64)
    if len(ring) < 4 or not np.isfinite(ring).all():
        raise ValueError("a ring has at least four corners")
    return ring


@dataclass(frozen=True, slots=True)
class Area:
    """The pixels of an image inside a region of interest, that hold data, and that show tissue.

    What is not given limits nothing. Nothing of the image's size is held.
    """

    size: Size  # of the image, level-0 pixels
    region: Polygons | None = None  # of interest
    data: ImageReader | None = None  # the image, whose pixels without data do not count
    tissue: TissueMask | None = None  # where a slide shows tissue

    @property
    def is_everything(self) -> bool:
        """Whether nothing limits it."""
        return self.region is None and self.data is None and self.tissue is None

    def left_out(self, window: Window) -> ByteArray:
        """Of each pixel (h, w) of a window inside the image 0 if it counts, else one more than its place in `LEFT_OUT`.

        Where nothing is of interest the image is not read.
        """
        why = np.zeros((window.height, window.width), np.uint8)
        if self.region is not None:
            why[~self.region.inside(window)] = 1
        if self.data is not None and not why.all():
            why[(why == 0) & ~self.data.valid(window)] = 2
        if self.tissue is not None:
            why[(why == 0) & ~self.tissue.inside(window)] = 3
        return why

    def inside(self, window: Window) -> BoolArray:
        """Whether each pixel (h, w) of a window inside the image is looked at."""
        return np.equal(self.left_out(window), 0)

    def squares(self, side: int) -> BoolArray:
        """Which squares of this side, (rows, cols), hold a pixel of the area; it is asked for window by window."""
        met = np.zeros((ceil_div(self.size.height, side), ceil_div(self.size.width, side)), np.bool_)
        scanned = ceil_to(_SCANNED, side)
        for window in windows_over(self.size, scanned, scanned):
            inside = self.inside(window)
            rows, cols = (np.arange(0, length, side) for length in inside.shape)
            top, left = window.top // side, window.left // side
            met[top : top + len(rows), left : left + len(cols)] = np.logical_or.reduceat(
                np.logical_or.reduceat(inside, rows, axis=0), cols, axis=1
            )
        return met

    def tree(self) -> ConfigTree:
        """What decides it, but not the image itself, as plain values."""
        return {
            "region": self.region and self.region.digest,
            "nodata": self.data is not None,
            "tissue": self.tissue and self.tissue.digest,
        }


class Roi(NamedTuple):
    """Where regions of interest are."""

    place: Path  # a GeoJSON file, or a folder with one of each image's name
    coordinates: Coordinates = "auto"  # see `load_region`

    def file(self, stem: str) -> Path:
        """The file of an image's region."""
        return self.place / f"{stem}.geojson" if self.place.is_dir() else self.place


def area_of(
    image: ImageReader, stem: str, *, roi: Roi | None = None, nodata: bool = True, tissue: Tissue = False
) -> Area:
    """The pixels of an image that are looked at; it stays open for as long as the area is used.

    Pixels that hold no data, by nodata value, mask or alpha, are left out, and glass, where that is asked for and
    tissue is found. A folder of regions has one by the name of the image.
    """
    region = None if roi is None else load_region(roi.file(stem), image, roi.coordinates)
    found = TissueMask.of(image) if tissue_is_sought(image, tissue) else None
    found = found if found is not None and found.mask.any() else None
    return Area(image.size, region, image if nodata and image.masked else None, found)


def tissue_is_sought(image: ImageReader, tissue: Tissue) -> bool:
    """Whether glass of an image is to be left out, where tissue is found on it."""
    return is_slide(image) if tissue == "auto" else tissue

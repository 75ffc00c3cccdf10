"""`Area`: which pixels of an image are looked at: those in polygons of interest, with data, with tissue."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage
from shapely import make_valid
from shapely.geometry import shape
from shapely.ops import unary_union

from foveate.config_base import ConfigTree
from foveate.data.readers.pyramid import ImageReader
from foveate.geometry import Size, Window, ceil_div, ceil_to, windows_over
from foveate.types import BoolArray, Raster

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
# A slide is in colour, and its pixels are a scanner's, at most so large in metres.
_LARGEST_PIXEL = 10e-6
Ring = NDArray[np.float64]  # (n, 2) columns and rows, level-0 pixels; pixel i reaches from i to i + 1
Outline = tuple[Ring, ...]  # the outer ring of a polygon, then its holes
# Drawn at once, at the same places whatever is asked for, so that a centre on an edge is always in or always out.
_TILE = 512
_SCANNED = 2048  # side of the windows that a scan of a whole image asks for


class TissueMask(NamedTuple):
    """Where a slide shows tissue."""

    mask: BoolArray  # (h, w) of the whole slide, at low resolution
    size: Size  # of the slide, level-0 pixels
    threshold: int  # of the saturation, 0 to 255

    @classmethod
    def of(cls, slide: ImageReader) -> TissueMask:
        """Find the tissue of a slide from its overview.

        Glass is grey or white, and stains are colours: the saturation is smoothed by a median and parted by Otsu's
        threshold, held between 8 and 20 of 255. Gaps are closed, small pieces and small gaps removed, and a margin of
        about 16 micrometres added. Where it is dark, as in fluorescence, it is no glass, and no tissue is found.

        Source: Otsu, "A threshold selection method from gray-level histograms", 1979; on the saturation as in CLAM (Lu
        et al., 2021).

        Args:
            slide: an image of three bands of bytes.
        """
        pixels = slide.read(Window.of(slide.size), _overview_size(slide))[:3]
        saturation = ndimage.median_filter(saturation_of(pixels), _SMOOTHED)
        threshold = int(np.clip(otsu(saturation), _LEAST, _MOST))
        tissue = saturation > threshold
        if not tissue.all() and np.median(pixels.max(axis=0)[~tissue]) < _DARK:
            return cls(np.zeros_like(tissue), slide.size, threshold)
        return cls(_cleaned(tissue), slide.size, threshold)

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
    known = image.resolution
    in_colour = image.bands == 3 and image.dtype == np.uint8 and not image.palette
    small = known is not None and max(known.row, known.col) <= _LARGEST_PIXEL
    return in_colour and small and image.georeference is None


def saturation_of(pixels: Raster) -> NDArray[np.uint8]:
    """Saturation (h, w), 0 to 255, of red, green and blue (3, h, w): (largest - smallest) / largest, 0 of black."""
    largest, smallest = pixels.max(axis=0), pixels.min(axis=0)
    share = (largest - smallest) / np.maximum(largest, 1).astype(np.float32)
    saturation: NDArray[np.uint8] = np.rint(share * 255).astype(np.uint8)
    return saturation


def otsu(values: NDArray[np.uint8]) -> int:
    """The threshold up to which values belong to the lower class, such that the two classes vary least within."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    low, low_sum = counts.cumsum(), (counts * np.arange(256)).cumsum()
    high, high_sum = low[-1] - low, low_sum[-1] - low_sum
    both = (low > 0) & (high > 0)
    apart = np.zeros(256)
    apart[both] = low[both] * high[both] * (low_sum[both] / low[both] - high_sum[both] / high[both]) ** 2
    return int(apart.argmax())


def _overview_size(slide: ImageReader) -> Size:
    pixel = slide.resolution.row if slide.resolution is not None else _PIXEL
    longest = max(slide.size.height, slide.size.width)
    factor = min(1.0, max(pixel / _PIXEL, _FEWEST / longest), _LONGEST / longest)
    return slide.size.scaled(factor, factor)


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
    found: BoolArray = kept[pieces]
    return found


class Polygons:
    """The pixels whose centres lie in any of some polygons."""

    def __init__(self, outlines: Sequence[Outline]) -> None:
        self._shapes = [{"type": "Polygon", "coordinates": [ring.tolist() for ring in outline]} for outline in outlines]
        bounds = [np.concatenate([outline[0].min(axis=0), outline[0].max(axis=0)]) for outline in outlines]
        self._bounds = np.array(bounds, np.float64).reshape(-1, 4)
        self.digest = _digest(outlines)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Least column and row, largest column and row."""
        left, top = self._bounds[:, :2].min(axis=0)
        right, bottom = self._bounds[:, 2:].max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    def meets(self, window: Window) -> bool:
        """Whether the rectangle around any polygon meets a window."""
        return bool(self._near(window))

    def shared_with(self, other: Polygons) -> float:
        """The area that lies in both regions, pixels."""
        both = [unary_union([make_valid(shape(part)) for part in region._shapes]) for region in (self, other)]
        return float(both[0].intersection(both[1]).area)

    def inside(self, window: Window) -> BoolArray:
        """Whether each pixel (h, w) of a window is in the region."""
        result = np.zeros((window.height, window.width), np.bool_)
        around = window.aligned(_TILE)
        for top, left in product(range(around.top, around.bottom, _TILE), range(around.left, around.right, _TILE)):
            tile = Window(top, left, _TILE, _TILE)
            part = tile.intersection(window)
            shapes = self._near(tile)
            if part is not None and shapes:
                place = Affine(1, 0, left, 0, 1, top)
                drawn = rasterize(shapes, (_TILE, _TILE), transform=place, dtype="uint8")
                result[part.within(window)] = drawn[part.within(tile)] > 0
        return result

    def _near(self, window: Window) -> list[dict[str, Any]]:
        left, top, right, bottom = self._bounds.T
        near = (left < window.right) & (right > window.left) & (top < window.bottom) & (bottom > window.top)
        return [self._shapes[i] for i in np.flatnonzero(near)]


def _digest(outlines: Sequence[Outline]) -> str:
    total = hashlib.sha256()
    for outline in outlines:
        for ring in outline:
            total.update(f"{len(ring)}".encode())
            # To a thousandth of a pixel, as other computers round a transformation otherwise.
            total.update(np.round(ring, 3).tobytes())
        total.update(b"/")
    return total.hexdigest()[:16]


class AreaPart(NamedTuple):
    """A window of an area."""

    inside: BoolArray  # (h, w) whether each pixel is looked at
    glass: BoolArray  # (h, w) whether it is not, for the only reason that it is no tissue


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

    def part(self, window: Window) -> AreaPart:
        """The area in a window inside the image."""
        everything = np.ones((window.height, window.width), np.bool_)
        inside = everything if self.region is None else self.region.inside(window)
        # Where nothing is of interest the image need not be read.
        if self.data is not None and inside.any():
            inside &= self.data.valid(window)
        if self.tissue is None:
            return AreaPart(inside, np.zeros_like(inside))
        tissue = self.tissue.inside(window)
        return AreaPart(inside & tissue, inside & ~tissue)

    def squares(self, side: int) -> BoolArray:
        """Which squares of this side, (rows, cols), hold a pixel of the area; it is asked for window by window."""
        met = np.zeros((ceil_div(self.size.height, side), ceil_div(self.size.width, side)), np.bool_)
        scanned = ceil_to(_SCANNED, side)
        for window in windows_over(self.size, scanned, scanned):
            inside = self.part(window).inside
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

"""`TissueMask`: where a slide shows tissue and not the empty glass around it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foveate.data.readers.base import ImageReader
from foveate.geometry import Size, Window
from foveate.types import BoolArray, Raster

# Looked at in pixels of about this size, at which cells melt into tissue: 1.25x, as others do.
_PIXEL = 8e-6
_LONGEST = 4096
_FEWEST = 256  # pixels on the longer side of a small image
# Otsu's threshold lies between two heaps; where there is but one, or pale tissue beside dark one, it goes astray.
_LEAST, _MOST = 8, 20
_SMOOTHED = 5  # pixels on a side, against noise and dust
_SMALLEST = 64  # pixels: smaller pieces are dust, smaller gaps are gaps in tissue
_MARGIN = 2  # pixels around tissue that count as tissue
# A slide is in colour, and its pixels are a scanner's, at most so large in metres.
_LARGEST_PIXEL = 10e-6


class TissueMask(NamedTuple):
    """Where a slide shows tissue.

    Attributes:
        mask: (h, w) of the whole slide, at low resolution.
        size: of the slide, level-0 pixels.
        threshold: of the saturation, 0 to 255.
    """

    mask: BoolArray
    size: Size
    threshold: int

    @classmethod
    def of(cls, slide: ImageReader) -> TissueMask:
        """Find the tissue of a slide from its overview.

        Glass is grey or white, and stains are colours: the saturation is smoothed by a median and parted by Otsu's
        threshold, held between 8 and 20 of 255. Gaps are closed, small pieces and small gaps removed, and a margin of
        about 16 micrometres added.

        Source: Otsu, "A threshold selection method from gray-level histograms", 1979; on the saturation as in CLAM (Lu
        et al., 2021).

        Args:
            slide: an image of three bands of bytes.

        Raises:
            ImageReadError: when it is damaged.
        """
        pixels = slide.read(Window.of(slide.size), _overview_size(slide))
        saturation = ndimage.median_filter(saturation_of(pixels[:3]), _SMOOTHED)
        threshold = int(np.clip(otsu(saturation), _LEAST, _MOST))
        return cls(_cleaned(saturation > threshold), slide.size, threshold)

    @property
    def digest(self) -> str:
        """Name of the mask: equal for equal masks."""
        return hashlib.sha256(f"{self.mask.shape}".encode() + np.packbits(self.mask).tobytes()).hexdigest()[:16]

    def inside(self, window: Window) -> BoolArray:
        """Whether each pixel (h, w) of a window lies under tissue."""
        rows = np.arange(window.top, window.bottom) * self.mask.shape[0] // self.size.height
        cols = np.arange(window.left, window.right) * self.mask.shape[1] // self.size.width
        picked: BoolArray = self.mask[np.ix_(rows, cols)]
        return picked


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
    return Size(max(1, round(slide.size.height * factor)), max(1, round(slide.size.width * factor)))


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

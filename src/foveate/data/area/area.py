"""`Area`: which pixels of an image are looked at, asked window by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from foveate.config_base import ConfigTree
from foveate.data.area.region import Region
from foveate.data.area.tissue import TissueMask
from foveate.data.readers.base import ImageReader
from foveate.geometry import Size, Window, ceil_div, ceil_to, windows_over
from foveate.types import BoolArray

_SCANNED = 2048  # side of the windows that a scan of a whole image asks for


class AreaPart(NamedTuple):
    """A window of an area.

    Attributes:
        inside: (h, w) whether each pixel is looked at.
        glass: (h, w) whether it is not, for the only reason that it is no tissue.
    """

    inside: BoolArray
    glass: BoolArray


@dataclass(frozen=True, slots=True)
class Area:
    """The pixels of an image inside a region of interest, that hold data, and that show tissue.

    What is not given limits nothing. Nothing of the image's size is held.

    Attributes:
        size: of the image, level-0 pixels.
        region: of interest.
        data: the image, whose pixels without data do not count.
        tissue: where a slide shows tissue.
    """

    size: Size
    region: Region | None = None
    data: ImageReader | None = None
    tissue: TissueMask | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing limits it."""
        return self.region is None and self.data is None and self.tissue is None

    def part(self, window: Window) -> AreaPart:
        """The area in a window inside the image.

        Raises:
            ImageReadError: when the image is damaged there.
        """
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

"""Files with random access that GDAL reads: TIFF, BigTIFF, COG, JPEG 2000, VRT and many more."""

from __future__ import annotations

from typing import Any

from foveate.data.readers.gdal import describe, open_dataset, open_level, read_header, read_valid, reading
from foveate.data.readers.location import Location
from foveate.data.readers.options import PLAIN, OpenOptions
from foveate.data.readers.pages import Stack, open_stack, stack_in
from foveate.data.readers.pyramid import PyramidReader
from foveate.geometry import Size, Window
from foveate.types import BoolArray, Raster


class RasterioReader(PyramidReader):
    """Reads windows from a file and from its overviews.

    The overviews are trusted to be means (or wavelet averages, as in JPEG 2000): those made by
    `foveate.data.convert.convert` are; overviews that another program made by picking pixels do alias.

    Args:
        location: the file, URL or GDAL virtual path.
        options: which bands count, and what is believed to be no data.

    Raises:
        ImageReadError: when a server has no such file.
        UnsupportedImageError: when GDAL cannot open it.
    """

    def __init__(self, location: Location, options: OpenOptions = PLAIN) -> None:
        self.path, self._location = location.path, location
        self._datasets = [open_dataset(location)]
        try:
            stack = stack_in(self._datasets[0], location, options.plane)
            self._datasets = _pyramid(_levels(self._datasets[0], location) if stack is None else self._of_pages(stack))
            header = read_header(self._datasets[0], options)
        except Exception:
            self.close()
            raise
        self._indexes = list(header.indexes)
        self._by_mask = describe(self, header)
        self.format = header.format if stack is None else stack.format
        self.handles = sum(1 if stack is None else level.count for level in self._datasets)
        self.levels = tuple(Size(*level.shape) for level in self._datasets)

    def _of_pages(self, stack: Stack) -> list[Any]:
        self.close()
        return open_stack(stack, self._location)

    @property
    def dataset(self) -> Any:
        """The image as rasterio has it, at full resolution; closed with the reader."""
        return self._datasets[0]

    @property
    def location(self) -> str:
        """The path or URL."""
        return str(self._location)

    def _read_level(self, level: int, window: Window) -> Raster:
        place = ((window.top, window.bottom), (window.left, window.right))
        with reading(self.location, window):
            raster: Raster = self._datasets[level].read(self._indexes, window=place, out_dtype=self.dtype)
        return raster

    def _marked(self, level: int, window: Window) -> BoolArray | None:
        if not self._by_mask:
            return None
        with reading(self.location, window):
            return read_valid(self._datasets[level], window)

    def close(self) -> None:
        """Close the handles of all levels."""
        for dataset in self._datasets:
            dataset.close()


def _levels(dataset: Any, location: Location) -> list[Any]:
    """A file and its overviews. All are opened now: only the opened level knows its exact size."""
    levels = range(_overview_count(dataset))
    return [dataset, *(open_level(location, dataset.driver, level) for level in levels)]


def _overview_count(dataset: Any) -> int:
    """Number of overviews that every band has."""
    return min(len(dataset.overviews(index)) for index in dataset.indexes)


def _pyramid(datasets: list[Any]) -> list[Any]:
    """The levels that show the whole image, finest first; others are closed.

    GDAL counts every further image of a slide's TIFF as an overview, its label and the photograph of the glass too.
    """
    levels, full = [datasets[0]], datasets[0]
    for level in datasets[1:]:
        # The shorter side's rounding to whole pixels is what the downsamples of the sides may differ by.
        down, across = full.height / level.height, full.width / level.width
        same_shape = abs(down - across) <= 1.01 * max(down / level.height, across / level.width)
        if same_shape and level.height < levels[-1].height and level.width < levels[-1].width:
            levels.append(level)
        else:
            level.close()
    return levels


def open_rasterio(location: Location, options: OpenOptions) -> RasterioReader:
    """The registry's entry."""
    return RasterioReader(location, options)

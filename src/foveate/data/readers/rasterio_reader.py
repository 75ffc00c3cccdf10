"""Files with random access that GDAL reads: TIFF, BigTIFF, COG, JPEG 2000, VRT and many more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foveate.data.readers.gdal import open_dataset, read_header, reading
from foveate.data.readers.pyramid import PyramidReader
from foveate.geometry import Size, Window
from foveate.types import Raster


class RasterioReader(PyramidReader):
    """Reads windows from a file and from its overviews.

    The overviews are trusted to be means (or wavelet averages, as in JPEG 2000): those made by
    `foveate.data.convert.convert` are; overviews that another program made by picking pixels do alias.

    Args:
        path: the file.
        keep_alpha: count an alpha band as a band.

    Raises:
        UnsupportedImageError: when GDAL cannot open it.
    """

    def __init__(self, path: Path, *, keep_alpha: bool = False) -> None:
        self.path = path
        dataset = open_dataset(path)
        self._datasets = [dataset]
        try:
            header = read_header(dataset, keep_alpha)
            self._indexes = list(header.indexes)
            # All levels are opened now: only the opened level knows its exact size.
            self._datasets += [open_dataset(path, overview_level=i) for i in range(_overview_count(dataset))]
        except Exception:
            self.close()
            raise
        self.format, self.size, self.bands = header.format, header.size, len(header.indexes)
        self.alpha, self.palette, self.dtype = header.alpha, header.palette, header.dtype
        self.georeference = header.georeference
        self.levels = tuple(Size(*level.shape) for level in self._datasets)

    def _read_level(self, level: int, window: Window) -> Raster:
        place = ((window.top, window.bottom), (window.left, window.right))
        with reading(self.path, window):
            raster: Raster = self._datasets[level].read(self._indexes, window=place, out_dtype=self.dtype)
        return raster

    def close(self) -> None:
        """Close the handles of all levels."""
        for dataset in self._datasets:
            dataset.close()


def _overview_count(dataset: Any) -> int:
    """Number of overviews that every band has."""
    return min(len(dataset.overviews(index)) for index in dataset.indexes)


def open_rasterio(path: Path, *, keep_alpha: bool, decode_limit_bytes: int) -> RasterioReader:
    """The registry's entry; `decode_limit_bytes` means nothing here, as nothing is decoded whole."""
    return RasterioReader(path, keep_alpha=keep_alpha)

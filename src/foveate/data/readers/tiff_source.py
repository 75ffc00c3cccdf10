"""What is written of a source as a tiled TIFF: pixels by window, and what is said about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from foveate.data.readers.base import ImageReader, OpenOptions
from foveate.data.readers.gdal import open_dataset, read_header, read_valid, reading
from foveate.data.readers.location import Location
from foveate.data.readers.resolution import resolution_of
from foveate.files import written
from foveate.geometry import Size, Window
from foveate.tiff.pyramid import TiffSource, write_plain_pyramid
from foveate.types import Raster

# Formats that decode from the first row on: reading part of a row and coming back would decode it all again.
_SEQUENTIAL = ("PNG", "JPEG")


def source_of_dataset(dataset: Any, name: str) -> TiffSource:
    """All that an open rasterio dataset holds: bands, colours, mask, place.

    Args:
        dataset: stays open as long as the source is used.
        name: of the file, for errors.
    """

    def read(window: Window) -> Raster:
        place = ((window.top, window.bottom), (window.left, window.right))
        with reading(name, window):
            pixels: Raster = dataset.read(window=place)
        return pixels

    place = read_header(dataset, OpenOptions(keep_alpha=True)).georeference
    flags = dataset.mask_flag_enums[0]
    masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    return TiffSource(
        Size(dataset.height, dataset.width),
        dataset.count,
        np.result_type(*dataset.dtypes),
        read,
        dataset.driver in _SEQUENTIAL,
        (lambda window: read_valid(dataset, window)) if masked else None,
        dataset.nodata,
        place.crs if place else None,
        rasterio.Affine(*place.transform) if place else None,
        resolution_of(dataset, place),
        lambda output: _copy_colours(dataset, output),
    )


def source_of_reader(reader: ImageReader) -> TiffSource:
    """The bands of any open image, which stays open as long as the source is used."""
    place = reader.georeference
    return TiffSource(
        reader.size,
        reader.bands,
        reader.dtype,
        reader.read,
        valid=reader.valid if reader.masked and reader.dtype.kind != "f" else None,  # floats are not finite there
        crs=place.crs if place else None,
        transform=rasterio.Affine(*place.transform) if place else None,
        resolution=reader.resolution,
    )


def write_plain(location: Location, destination: Path) -> None:
    """Decode a file that GDAL reads into a tiled TIFF that is fast to read, and is not kept.

    Raises:
        ImageReadError: when the source is damaged.
        UnsupportedImageError: when GDAL cannot open it.
        OutputWriteError: when writing failed.
    """
    with reading(str(location)), open_dataset(location) as image, written(destination) as partial:
        write_plain_pyramid(source_of_dataset(image, str(location)), partial)


def _copy_colours(image: Any, output: Any) -> None:
    output.descriptions = image.descriptions
    output.scales, output.offsets = image.scales, image.offsets
    if image.colorinterp[0] == rasterio.enums.ColorInterp.palette:
        output.write_colormap(1, image.colormap(1))
    elif image.count > 1:
        output.colorinterp = image.colorinterp

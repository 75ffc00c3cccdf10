"""Convert any image that `open_image` reads to a cloud-optimised TIFF, in bounded memory."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import rasterio

from foveate.data.readers import open_image
from foveate.data.readers.base import Address, Plane
from foveate.data.readers.decoded import DecodedReader, source_of_dataset
from foveate.data.readers.derived import OrientedReader
from foveate.data.readers.gdal import open_dataset, reading
from foveate.data.readers.pyramid import ImageReader
from foveate.data.readers.rasterio_reader import RasterioReader
from foveate.tiff.pyramid import Compression, Progress, TiffSource, write_pyramid

__all__ = ["Compression", "convert"]


def convert(
    source: Path | str,
    destination: Path,
    *,
    overwrite: bool = False,
    tile: int = 512,
    compression: Compression = "deflate",
    labels: bool = False,
    plane: Plane | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a cloud-optimised TIFF with overviews: all bands, colours, mask, georeference and size of the pixels.

    Args:
        source: a file, folder or URL of an image: slides, Zarr and NumPy too. PNG and JPEG are decoded row by row,
            never whole.
        destination: the TIFF to write; it appears under its name only when complete.
        overwrite: replace an existing file.
        tile: side of a stored tile in pixels, a power of two from 64 to 4096.
        compression: "jpeg" loses detail and takes 8-bit images of 1 or 3 bands only; the others are lossless.
        labels: overviews pick one pixel instead of the mean, as class ids must not be blended.
        plane: which plane of a file with several, see `open_image`.
        progress: called with the share done, from 0 to 1.

    Raises:
        ImageReadError: when the source is missing or damaged.
        UnsupportedImageError: when no reader can open the source.
        ConfigError: when tile or compression are not possible.
        OutputExistsError: when the destination exists and `overwrite` is false.
        OutputWriteError: when writing failed.
    """
    with reading(str(source)), ExitStack() as opened:
        write_pyramid(
            _source(source, opened, plane), destination,
            overwrite=overwrite, tile=tile, compression=compression, labels=labels, progress=progress,
        )  # fmt: skip


def _source(place: Path | str, opened: ExitStack, plane: Plane | None) -> TiffSource:
    """Of what GDAL reads all that the file holds, also what a reader leaves out; of others what their reader gives."""
    reader = opened.enter_context(open_image(place, keep_alpha=True, plane=plane))
    stored = reader._inner if isinstance(reader, OrientedReader) else reader
    if isinstance(stored, RasterioReader):
        source = source_of_dataset(stored.dataset, reader.location)
    elif isinstance(stored, DecodedReader):
        location = Address.of(place)
        source = source_of_dataset(opened.enter_context(open_dataset(location)), str(location))
    else:
        return _source_of_reader(reader)
    if stored is reader:
        return source
    valid = reader.valid if source.valid else None
    return replace(source, size=reader.size, read=reader.read, by_rows=False, valid=valid, resolution=reader.resolution)


def _source_of_reader(reader: ImageReader) -> TiffSource:
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

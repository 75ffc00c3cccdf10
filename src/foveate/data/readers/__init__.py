"""Readers: windows of images of any size, from any supported file, through one contract.

Which reader opens which file is an ordered list, the first match wins. A new format is one file and one line here.
`convert` copies whatever opens to a cloud-optimised TIFF.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import rasterio

from foveate.data.readers.array import ArrayReader, open_numpy
from foveate.data.readers.bands import is_pattern, open_bands
from foveate.data.readers.base import DECODE_LIMIT_BYTES, Address, ImageReader, OpenOptions, Plane, check_size, redacted
from foveate.data.readers.decoded import DecodedReader, open_decoded, source_of_dataset
from foveate.data.readers.derived import OrientedReader, as_shown
from foveate.data.readers.gdal import open_dataset, reading
from foveate.data.readers.ngff import open_zarr
from foveate.data.readers.openslide_reader import open_openslide
from foveate.data.readers.pyramid import PyramidReader
from foveate.data.readers.rasterio_reader import RasterioReader
from foveate.errors import FoveateError, ImageReadError, SeveralPlanesError, UnsupportedImageError, reason_of
from foveate.geometry import Georeference, Resolution
from foveate.tiff.pyramid import Compression, Progress, TiffSource, write_pyramid

__all__ = ["ArrayReader", "Georeference", "ImageReader", "Resolution", "open_image"]


class OpenReader(Protocol):
    """Opens a file, or returns None or raises `UnsupportedImageError` when it is not of this family."""

    def __call__(self, location: Address, options: OpenOptions) -> ImageReader | None:
        """The reader, or None; `ModuleNotFoundError` when the family's package is not installed."""
        ...


_NOT_OURS = "not of this format"


@dataclass(frozen=True, slots=True)
class Family:
    """A family of formats.

    Attributes:
        name: shown in errors.
        open: see `OpenReader`; imports of optional packages belong inside it.
        extra: the extra of this package that installs what `open` needs, None when nothing.
        final: whether no other family is tried when this one raises: it is sure of its files, others misread them.
        own: suffixes of files for which it is final.
    """

    name: str
    open: OpenReader
    extra: str | None = None
    final: bool = False
    own: tuple[str, ...] = ()


FAMILIES: tuple[Family, ...] = (
    Family("zarr (OME-Zarr, Zarr)", open_zarr, "zarr", final=True),
    Family("numpy (NPY)", open_numpy, final=True),
    # Before those who see no more of a slide than its TIFF, or than the small JPEG that an .mrxs file is.
    Family("openslide (SVS, NDPI, MRXS, SCN, DICOM, ...)", open_openslide, "wsi", own=(".mrxs",)),
    Family("decoded (PNG, JPEG)", open_decoded),
    Family("rasterio (TIFF, COG, JPEG 2000, VRT, ...)", RasterioReader),
)


def open_image(  # noqa: PLR0913 - the doors of all formats
    path: Path | str,
    *,
    keep_alpha: bool = False,
    bands: Sequence[int] | None = None,
    plane: Plane | None = None,
    nodata: float | None = None,
    band_files: Sequence[str] | None = None,
    use_nodata: bool = True,
    decode_limit_bytes: int = DECODE_LIMIT_BYTES,
    max_pixels: int | None = None,
) -> ImageReader:
    """Open an image with the first reader that knows its format.

    Args:
        path: a file, a folder (Zarr; DICOM of one slide), a URL (http, https, s3, gs, az), a GDAL virtual path
            (`/vsizip/...`), or with `{band}` in its name one file for each band.
        keep_alpha: count an alpha band as a band; otherwise it is left out.
        bands: 1-based numbers of the bands that will be used, which does not change what `read` gives but for this: an
            alpha band counts as a band, and one that is named is pixels and no mask.
        plane: which plane of a file with several along z or t, counted from 1: a number, or {"z": 3, "t": 1}.
        nodata: a value that means that there is none, besides what the file says.
        band_files: what `{band}` stands for, in order; all that is there when None.
        use_nodata: whether nodata values, masks and alpha bands are believed.
        decode_limit_bytes: PNG and JPEG decoding to more bytes than this go to a temporary file, not to memory.
        max_pixels: most rows times columns of an image; of the environment variable FOVEATE_MAX_PIXELS, else 10**12,
            when None.

    Raises:
        ImageReadError: when there is no such file.
        UnsupportedImageError: when no reader can open it, naming those tried, or it has more pixels than allowed.
        SeveralPlanesError: when it holds several planes and none, or one that is not there, was chosen.
    """
    location = Address.of(path)
    if is_pattern(location.text):
        one = partial(open_image, plane=plane, nodata=nodata, use_nodata=use_nodata, max_pixels=max_pixels)
        return open_bands(location.path, band_files, one)
    if not location.text or (location.is_local and not location.path.exists()):
        raise ImageReadError(f"no image at {location}")
    chosen = None if bands is None else tuple(bands)
    reader = _first(location, OpenOptions(keep_alpha, chosen, plane, use_nodata, decode_limit_bytes))
    if nodata is not None and isinstance(reader, PyramidReader):
        reader.also_nodata(nodata)
    reader = as_shown(reader, location)
    try:
        check_size(reader, max_pixels)
    except Exception:
        reader.close()
        raise
    return reader


def _first(location: Address, options: OpenOptions) -> ImageReader:
    reasons = []
    for family in FAMILIES:
        found = _tried(family, location, options)
        if not isinstance(found, str):
            return found
        reasons.append(f"{family.name}: {found}")
        if found != _NOT_OURS and (family.final or location.path.suffix.lower() in family.own):
            break
    raise UnsupportedImageError(f"no reader can open {location}. Tried " + "; ".join(reasons))


def _tried(family: Family, location: Address, options: OpenOptions) -> ImageReader | str:
    """The reader, or why there is none."""
    try:
        return family.open(location, options) or _NOT_OURS
    except SeveralPlanesError:
        raise
    except UnsupportedImageError as error:
        return str(error)
    except ModuleNotFoundError as error:
        return f"not installed ({error}); pip install 'foveate[{family.extra}]'"
    except FoveateError:
        raise
    except Exception as error:  # a library that stumbles over what is in a file
        return f"the file is damaged: {redacted(reason_of(error))}"


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
    stored = reader.inner if isinstance(reader, OrientedReader) else reader
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

"""Readers: windows of images of any size, from any supported file, through one contract.

Which reader opens which file is an ordered list, the first match wins. A new format is one file and one line here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from foveate.data.readers.array import ArrayReader, open_numpy
from foveate.data.readers.base import DECODE_LIMIT_BYTES, Address, OpenOptions, Plane, check_size, is_pattern, redacted
from foveate.data.readers.derived import as_shown, open_bands
from foveate.data.readers.ngff import open_zarr
from foveate.data.readers.openslide_reader import open_openslide
from foveate.data.readers.pyramid import ImageReader
from foveate.data.readers.rasterio_reader import RasterioReader, open_decoded
from foveate.errors import FoveateError, MissingImageError, SeveralPlanesError, UnsupportedImageError, reason_of
from foveate.geometry import Georeference, Resolution

__all__ = ["ArrayReader", "Georeference", "ImageReader", "Resolution", "open_image"]


_NOT_OURS = "not of this format"


@dataclass(frozen=True, slots=True)
class Family:
    """A family of formats."""

    name: str  # shown in errors
    # Opens a file; returns None or raises `UnsupportedImageError` when it is not of this family. Imports of optional
    # packages belong inside it.
    open: Callable[[Address, OpenOptions], ImageReader | None]
    extra: str | None = None  # of this package, that installs what `open` needs
    final: bool = False  # whether no other family is tried when this one raises: others misread its files
    own: tuple[str, ...] = ()  # suffixes of files for which it is final


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
        MissingImageError: when there is no such file.
        UnsupportedImageError: when no reader can open it, naming those tried, or it has more pixels than allowed.
        SeveralPlanesError: when it holds several planes and none, or one that is not there, was chosen.
    """
    location = Address.of(path)
    if is_pattern(location.text):
        one = partial(open_image, plane=plane, nodata=nodata, use_nodata=use_nodata, max_pixels=max_pixels)
        return open_bands(location.path, band_files, one)
    if not location.text or (location.is_local and not location.path.exists()):
        raise MissingImageError(f"no image at {location}")
    chosen = None if bands is None else tuple(bands)
    reader = _first(location, OpenOptions(keep_alpha, chosen, plane, use_nodata, decode_limit_bytes))
    if nodata is not None:
        reader.also_nodata(nodata)
    reader = as_shown(reader, location)
    try:
        check_size(reader.location, reader.size, max_pixels)
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
    folder = location.is_local and location.path.is_dir() and len(reasons) == len(FAMILIES)
    hint = " It is a folder, but no Zarr and no DICOM slide; give the images in it." if folder else ""
    raise UnsupportedImageError(f"no reader can open {location}.{hint} Tried " + "; ".join(reasons))


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

"""What the readers and the converter share about GDAL: opening, the header, and errors that name the file."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from foveate.data.readers.base import Georeference
from foveate.errors import ImageReadError, UnsupportedImageError
from foveate.geometry import Size, Window

# Megabytes. By default GDAL keeps decoded tiles of up to 5 % of the machine's memory, in every process: memory must be
# bounded by what is worked on, not by the machine. Read by GDAL when it first caches; the user's own value is kept.
os.environ.setdefault("GDAL_CACHEMAX", "256")

# `catch_warnings` swaps a list of the whole process; two threads that open files must not interleave.
_QUIET = threading.Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warning that an image has no georeference: most images have none."""
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def open_dataset(path: Path, mode: str = "r", **options: Any) -> Any:
    """A rasterio dataset.

    Raises:
        UnsupportedImageError: when GDAL cannot open the file.
    """
    try:
        with quiet():
            return rasterio.open(path, mode, **options)
    except RasterioError as error:
        raise UnsupportedImageError(f"GDAL cannot open {path}: {error}") from None


@contextmanager
def reading(path: Path, window: Window | None = None) -> Iterator[None]:
    """Turn GDAL's errors into `ImageReadError` naming the file and the window.

    By default libjpeg only warns about a truncated file, and GDAL's fast way of decoding a whole PNG does not even do
    that: both return what is missing as grey or zero. PNG and JPEG must be opened within this context too.
    """
    try:
        with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True, GDAL_PNG_WHOLE_IMAGE_OPTIM=False):
            yield
    except RasterioError as error:
        place = f" at {window}" if window else ""
        reason = error.__cause__ or error
        raise ImageReadError(f"could not read {path}{place}: {reason}; the file is damaged or incomplete") from error


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about itself; see `ImageReader` for the fields.

    `indexes` are the 1-based numbers of the bands that are read.
    """

    format: str
    size: Size
    indexes: tuple[int, ...]
    alpha: bool
    palette: bool
    dtype: np.dtype[Any]
    georeference: Georeference | None


def read_header(dataset: Any, keep_alpha: bool = False) -> Header:
    """The header of an open dataset.

    Args:
        dataset: an open rasterio dataset.
        keep_alpha: count an alpha band as a band.

    Raises:
        UnsupportedImageError: when there is no band, or the pixels are complex numbers.
    """
    colours = dataset.colorinterp
    dtype = np.result_type(*dataset.dtypes) if dataset.dtypes else np.dtype(np.complex64)
    indexes = tuple(i + 1 for i, colour in enumerate(colours) if keep_alpha or colour != ColorInterp.alpha)
    if not indexes or dtype.kind == "c":
        found = ", ".join(dataset.dtypes) or "none"
        raise UnsupportedImageError(f"{dataset.name} has no band of real numbers (bands found: {found})")
    return Header(
        format=dataset.driver,
        size=Size(*dataset.shape),
        indexes=indexes,
        alpha=ColorInterp.alpha in colours,
        palette=ColorInterp.palette in colours,
        dtype=dtype,
        georeference=_georeference(dataset),
    )


def _georeference(dataset: Any) -> Georeference | None:
    if dataset.crs is None and dataset.transform.is_identity:
        return None
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    return Georeference(dataset.crs.to_wkt() if dataset.crs else "", (a, b, c, d, e, f))

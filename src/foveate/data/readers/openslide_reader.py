"""Whole-slide images of scanners, read by OpenSlide: SVS, NDPI, MRXS, SCN, DICOM and others."""

from __future__ import annotations

import logging
import os
import re
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveate.data.readers.base import Address, OpenOptions
from foveate.data.readers.pyramid import ImageReader
from foveate.errors import ImageReadError, UnsupportedImageError, reason_of
from foveate.geometry import Raster, Resolution, Size, Window

if TYPE_CHECKING:
    from openslide import OpenSlide, OpenSlideCache

_log = logging.getLogger(__name__)
_MOST_BYTES = 16 << 20  # of a list of files
# For all slides of a process together: decoded tiles, which neighbouring windows share.
_CACHE_BYTES = 64 << 20
_TILE = 512
_WHITE = (255, 255, 255)


class OpenSlideReader(ImageReader):
    """Reads windows of a slide: three bands, red, green and blue.

    Where nothing was scanned a slide is transparent; its background colour, white unless the file says another, is put
    there.
    """

    bands = 3
    dtype = np.dtype(np.uint8)

    def __init__(self, location: Address) -> None:
        self.path = location.path
        self._slide: OpenSlide | None = None
        self._closed = False
        slide = self._open()
        properties = slide.properties
        self.format = properties.get("openslide.vendor", "slide")
        self.resolution = _resolution(properties.get("openslide.mpp-y"), properties.get("openslide.mpp-x"))
        self._background = _background(properties.get("openslide.background-color"))
        sizes = [Size(height, width) for width, height in slide.level_dimensions]
        self._factors = tuple(slide.level_downsamples[: len(sizes)])
        self.levels = tuple(sizes)
        self.size = sizes[0]

    def _read_level(self, level: int, window: Window) -> Raster:
        if self._factors[level].is_integer():
            return self._read_region(level, window)
        # A corner is given in whole level-0 pixels, so that here a level's pixels are met a little off, by each corner
        # in another way: every pixel is always read as part of the same tile.
        result = np.empty((3, window.height, window.width), np.uint8)
        around = window.aligned(_TILE)
        for top, left in product(range(around.top, around.bottom, _TILE), range(around.left, around.right, _TILE)):
            tile = Window(top, left, _TILE, _TILE).intersection(Window.of(self.levels[level]))
            part = tile and tile.intersection(window)
            if tile and part:
                rows, cols = part.within(tile)
                result[:, *part.within(window)] = self._read_region(level, tile)[:, rows, cols]
        return result

    def _read_region(self, level: int, window: Window) -> Raster:
        factor, slide = self._factors[level], self._open()
        corner = (round(window.left * factor), round(window.top * factor))
        try:
            pixels = slide.read_region(corner, level, (window.width, window.height))
        except Exception as error:
            self._drop()
            raise ImageReadError(
                f"could not read {self.path} at {window}: {reason_of(error)}; the file is damaged or incomplete"
            ) from error
        return _opaque(np.asarray(pixels), self._background)

    def _open(self) -> OpenSlide:
        """The slide. After an error OpenSlide refuses all further reads, so that it is opened again."""
        from openslide import OpenSlide, OpenSlideError  # noqa: PLC0415 - an extra

        if self._closed:
            raise ValueError(f"{self.path} is closed")
        if self._slide is None:
            try:
                self._slide = OpenSlide(self.path)
            except OpenSlideError as error:
                raise UnsupportedImageError(f"OpenSlide cannot open {self.path}: {error}") from None
            self._slide.set_cache(_shared_cache(os.getpid()))
        return self._slide

    def _drop(self) -> None:
        if self._slide is not None:
            self._slide.close()
            self._slide = None

    def close(self) -> None:
        """Close the slide."""
        self._drop()
        self._closed = True


@lru_cache(maxsize=1)
def _shared_cache(process: int) -> OpenSlideCache:
    """Of one process: after a fork the other's could be locked for ever."""
    from openslide import OpenSlideCache  # noqa: PLC0415 - an extra

    return OpenSlideCache(_CACHE_BYTES)


def _resolution(row: str | None, col: str | None) -> Resolution | None:
    """From micrometres per pixel."""
    try:
        return Resolution.known(float(row or 0) * 1e-6, float(col or 0) * 1e-6)
    except ValueError:
        return None


def _background(text: str | None) -> tuple[int, int, int]:
    """From six hexadecimal digits."""
    try:
        red, green, blue = bytes.fromhex(text or "")
    except ValueError:
        return _WHITE
    return red, green, blue


def _opaque(pixels: Raster, background: tuple[int, int, int]) -> Raster:
    """(h, w, 4) colours and opacity as (3, h, w) colours before the background."""
    colours, alpha = pixels[..., :3].transpose(2, 0, 1), pixels[..., 3]
    if alpha.min() == 255:
        return np.ascontiguousarray(colours)
    share = alpha.astype(np.float32) / 255
    behind = np.array(background, np.float32)[:, None, None]
    return np.rint(behind + (colours - behind) * share).astype(np.uint8)


def open_openslide(location: Address, options: OpenOptions) -> OpenSlideReader | None:
    """The registry's entry: None for all but the files of scanners; any TIFF would be read as RGB.

    A slide in DICOM may be given by its folder: it is one file a level, any of which leads to the others.
    """
    from openslide import OpenSlide  # noqa: PLC0415 - an extra

    if not location.is_local:
        return None
    path = min(dicom_files(location.path), default=location.path)
    if not path.is_file():
        return None
    vendor = OpenSlide.detect_format(path)
    if vendor in (None, "generic-tiff"):
        return None
    _check_names(path)
    try:
        return OpenSlideReader(Address.of(path))
    except UnsupportedImageError as error:
        _log.warning("%s; opened as an ordinary file, it may show other pixels. Is it complete?", error)
        raise


def _check_names(path: Path) -> None:
    """Refuse a slide whose list of files leads out of its folder."""
    lists = {".mrxs": path.with_suffix("") / "Slidedat.ini", ".vms": path, ".vmu": path}
    listed = lists.get(path.suffix.lower())
    if listed is not None and listed.is_file():
        with listed.open("rb") as file:
            if re.search(rb"=[^\r\n]*\.\.[/\\]", file.read(_MOST_BYTES)):
                raise UnsupportedImageError(
                    f"{listed} refers to files outside the folder of the slide, which are not read"
                )


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files in a folder; none where it is not one."""
    return [path for path in folder.glob("*") if path.suffix.lower() == ".dcm"] if folder.is_dir() else []

"""The reader contract: where an image is, what it looks like to the rest of the library, what may be asked of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeAlias, cast, runtime_checkable
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from rasterio.enums import Interleaving

from foveate.errors import ConfigError, UnsupportedImageError
from foveate.geometry import Georeference, Resolution, Size, Window
from foveate.types import BoolArray, Raster

# What GDAL calls files on servers and in object stores. Credentials come from the usual environment variables.
_VIRTUAL = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_SECRETS = re.compile(r"""(?<=://)[^\s/@]+@|(?<=\S)\?[^\s'",]+""")
_URL = re.compile(rf"({'|'.join([*_VIRTUAL, 'file'])}):/+(.*)", re.DOTALL)
DECODE_LIMIT_BYTES = 1 << 30
# Which of several planes: a number for the only axis there is, or one by the name of each.
Plane: TypeAlias = int | Mapping[str, int] | Literal["bands"]
MAX_PIXELS = 10**12
MOST_BLOCK_BYTES = 512 << 20
VARIABLE = "FOVEATE_MAX_PIXELS"


def redacted(text: str) -> str:
    """What another program says, without queries and passwords of URLs, even where it cut these to their last part."""
    return _SECRETS.sub("", text)


BAND = "{band}"
SEPARATORS = "_-. "


def without_band(name: str) -> str:
    """What an image is called whose files have this name, with `{band}`: what is around that, without separators."""
    before, _, after = name.partition(BAND)
    return "_".join(part for part in (before.rstrip(SEPARATORS), after.lstrip(SEPARATORS)) if part) or "image"


@dataclass(frozen=True, slots=True)
class Address:
    """Where an image is. `str` of it is for messages: a URL without query and password, as these may be secret.

    Attributes:
        text: a path, a GDAL virtual path (`/vsizip/...`) or a URL (http, https, s3, gs, az).
    """

    text: str

    @classmethod
    def of(cls, place: Path | str | Address) -> Address:
        """The location that a path or text means; a URL that went through `Path` gets its second slash back."""
        if isinstance(place, Address):
            return place
        found = _URL.fullmatch(str(place))
        if found is None:
            return cls(str(Path(place)) if str(place) else "")
        scheme, rest = found.groups()
        return cls(unquote(f"/{rest}")) if scheme == "file" else cls(f"{scheme}://{rest}")

    @property
    def is_remote(self) -> bool:
        """Whether it is a URL."""
        return "://" in self.text

    @property
    def is_virtual(self) -> bool:
        """Whether only GDAL knows what the text means."""
        return self.text.startswith("/vsi")

    @property
    def is_local(self) -> bool:
        """Whether it is a file or folder of this computer."""
        return not (self.is_remote or self.is_virtual)

    @property
    def path(self) -> Path:
        """The file. Of a URL a path that names no file, whose name and stem are those of the URL."""
        return Path("{}:/{}{}".format(*self._bare)) if self.is_remote else Path(self.text)

    @property
    def name(self) -> str:
        """What the image is called: its file's name without suffix, also ".ome"; of a folder, but Zarr, all of it."""
        path = self.path
        if BAND in path.name:
            return without_band(path.stem)
        whole = self.is_local and path.suffix.lower() != ".zarr" and path.is_dir()
        return path.name if whole else re.sub(r"(?<=.)\.ome$", "", path.stem, flags=re.IGNORECASE)

    @property
    def gdal(self) -> str:
        """What GDAL opens."""
        if not self.is_remote:
            return self.text
        scheme, _, rest = self.text.partition("://")
        return _VIRTUAL[scheme] + rest

    def __str__(self) -> str:
        return urlunsplit((*self._bare[:2], self._bare[2], "", "")) if self.is_remote else self.text

    @property
    def _bare(self) -> tuple[str, str, str]:
        """Scheme, host and path of a URL."""
        parts = urlsplit(self.text)
        return parts.scheme, parts.netloc.rpartition("@")[2], parts.path


class Known(NamedTuple):
    """Pixels, and which of them mean something.

    Attributes:
        pixels: (bands, h, w); where `known` is false they hold anything.
        known: (bands, h, w); None when all values mean something.
    """

    pixels: Raster
    known: BoolArray | None


@runtime_checkable
class ImageReader(Protocol):
    """Reads windows of an image that is too large to load.

    A reader belongs to one process and one thread: file handles are neither shared nor locked. Every implementation
    passes the tests in `tests/data/test_reader_contract.py`.

    Attributes:
        path: the file. Of an image in memory or of a URL a path that names no file; its stem names results.
        location: what messages call it: the path or URL it was opened from.
        format: short name of the file format, for example "GTiff" or "PNG".
        size: size of level 0.
        stored_size: that of the file, where it is read as if its pixels had another size; else `size`.
        bands: number of bands that `read` returns; an alpha band is left out unless it was asked for.
        alpha: whether the file has an alpha band.
        masked: whether pixels may hold no data: by a nodata value, a mask, an alpha band, or as floats that are not
            finite.
        palette: whether the pixels are indices into a colour table.
        dtype: type of the pixels in the file, and of what `read` returns.
        levels: sizes of the stored pyramid, finest first; `levels[0] == size`.
        band_names: what the file says of each band, such as "red" or "NIR"; "" where it says nothing.
        scaling: per band a gain and an offset from stored values to what they mean, as the file says; `read` gives
            stored values.
        remarks: what else a user should know of how the file is read, in sentences.
        georeference: place on the ground, when the file knows it.
        resolution: size of a pixel of level 0 in metres, when the file knows it.
        random_access: whether a window is read without decoding the whole file.
        resident_bytes: bytes the reader holds in memory once it was read from.
        handles: files it keeps open.
    """

    path: Path
    format: str
    size: Size
    bands: int
    alpha: bool
    masked: bool
    palette: bool
    dtype: np.dtype[Any]
    levels: tuple[Size, ...]
    band_names: tuple[str, ...]
    scaling: tuple[tuple[float, float], ...]
    remarks: tuple[str, ...]
    georeference: Georeference | None
    resolution: Resolution | None
    random_access: bool
    resident_bytes: int
    handles: int

    @property
    def location(self) -> str:
        """What messages call it; see the attributes."""
        ...

    @property
    def stored_size(self) -> Size:
        """Size of level 0 in the file; see the attributes."""
        ...

    def read(self, window: Window, size: Size | None = None) -> Raster:
        """The pixels of a window, each the mean of the image over its own footprint.

        Args:
            window: level-0 pixels; it may reach outside the image, where the image is mirrored at its edges (the edge
                pixel is repeated).
            size: height and width of the result; the window's own size when None.

        Returns:
            (bands, height, width) in the file's dtype; means of integers are rounded. The caller owns the array.

        Raises:
            ImageReadError: when the file is damaged.
        """
        ...

    def read_known(self, window: Window, size: Size | None = None) -> Known:
        """As `read`, but each mean is taken over the values that mean something, and which pixels have one is told.

        Raises:
            ImageReadError: when the file is damaged.
        """
        ...

    def valid(self, window: Window) -> BoolArray:
        """Whether the pixels of a window inside the image hold data, (height, width); all do where not `masked`.

        Raises:
            ImageReadError: when the file is damaged.
        """
        ...

    def close(self) -> None:
        """Release handles and memory; may be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How an image is opened.

    Attributes:
        keep_alpha: count an alpha band as a band.
        bands: 1-based numbers of the bands that will be used, where they are chosen: an alpha band then counts as a
            band, and one that is named is pixels and no mask.
        plane: which plane of a file that holds several, counted from 1; see `foveate.data.readers.rasterio_reader`.
        use_nodata: whether nodata values, masks and alpha bands are believed.
        decode_limit_bytes: PNG and JPEG decoding to more bytes than this go to a temporary file, not to memory.
    """

    keep_alpha: bool = False
    bands: tuple[int, ...] | None = None
    plane: Plane | None = None
    use_nodata: bool = True
    decode_limit_bytes: int = DECODE_LIMIT_BYTES


def plane_of(text: str | None) -> Plane | None:
    """A plane from text: "3", "z=3,t=1" or "bands".

    Raises:
        ConfigError: when it is none of these.
    """
    if text is None or text == "bands":
        return cast("Plane | None", text)
    parts = [part.partition("=") for part in text.split(",")]
    if not all(number.isdecimal() if name else False for name, _, number in parts) and not text.isdecimal():
        raise ConfigError(f"plane {text!r}; give a number from 1, such as 3, or z=3,t=1, or bands")
    return int(text) if text.isdecimal() else {name.strip(): int(number) for name, _, number in parts}


PLAIN = OpenOptions()


def check_size(reader: ImageReader, max_pixels: int | None = None) -> None:
    """Refuse an image of more pixels than allowed.

    Args:
        reader: the opened image, of which only the header was read.
        max_pixels: most rows times columns; of the environment variable, else `MAX_PIXELS`, when None.

    Raises:
        ConfigError: when the variable holds no positive number.
        UnsupportedImageError: naming the size and how to allow more.
    """
    limit = _from_environment() if max_pixels is None else max_pixels
    if reader.size.pixels > limit:
        raise UnsupportedImageError(
            f"{reader.location} claims {reader.size.height} x {reader.size.width} pixels, but {limit:.3g} pixels are "
            f"allowed; the header may be damaged. If it is right, set the environment variable {VARIABLE} to a larger "
            "number, or pass max_pixels to open_image"
        )


def check_blocks(dataset: Any) -> None:
    """Refuse a file whose strips or tiles are too large to be decoded, which is done whole.

    Raises:
        UnsupportedImageError: naming the size and what to do.
    """
    for (height, width), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        together = dataset.count if dataset.interleaving == Interleaving.pixel else 1
        size = height * width * np.dtype(dtype).itemsize * together
        if size > MOST_BLOCK_BYTES:
            raise UnsupportedImageError(
                f"{dataset.name} is stored in blocks of {height} x {width} pixels, {size / 2**20:.0f} MiB each, "
                f"which must be read whole; at most {MOST_BLOCK_BYTES >> 20} MiB are allowed. Store it in tiles, for "
                "example with gdal_translate -co TILED=YES"
            )


def _from_environment() -> int:
    text = os.environ.get(VARIABLE) or str(MAX_PIXELS)
    try:
        limit = int(float(text))
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise ConfigError(f"{VARIABLE} is {text!r}; it must be a positive number of pixels, for example 1e12")
    return limit

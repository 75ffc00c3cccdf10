"""What readers share: where an image is, how it is opened, which of its values mean something, and limits."""

import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np

from foveate.errors import ConfigError, MissingImageError, UnsupportedImageError
from foveate.geometry import BoolArray, Raster, Size, Window

# What GDAL calls files on servers and in object stores. Credentials come from the usual environment variables.
_VIRTUAL = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_SECRETS = re.compile(r"""(?<=://)[^\s/@]+@|(?<=\S)\?[^\s'",]+""")
_URL = re.compile(rf"({'|'.join([*_VIRTUAL, 'file'])}):/+(.*)", re.DOTALL)
DECODE_LIMIT_BYTES = 1 << 30
# Which of several planes: a number for the only axis there is, or one by the name of each.
Plane: TypeAlias = int | Mapping[str, int] | Literal["bands"]
MAX_PIXELS = 10**12
VARIABLE = "FOVEATE_MAX_PIXELS"
NoData: TypeAlias = tuple[tuple[float, ...], ...]  # per band the values that mean that there is none
# Floats this large mean that there is no value, as infinity does: what programs write for "none" begins at 1e36.
_NO_VALUE = 1e30


def redacted(text: str) -> str:
    """What another program says, without queries and passwords of URLs, even where it cut these to their last part."""
    return _SECRETS.sub("", text)


def first_bytes(path: Path, count: int = 16) -> bytes:
    """What a file begins with."""
    with path.open("rb") as file:
        return file.read(count)


BAND = "{band}"
SEPARATORS = "_-. "


def without_band(name: str) -> str:
    """What an image is called whose files have this name, with `{band}`: what is around that, without separators."""
    before, _, after = name.partition(BAND)
    return "_".join(part for part in (before.rstrip(SEPARATORS), after.lstrip(SEPARATORS)) if part) or "image"


def is_pattern(path: Path | str) -> bool:
    """Whether a path stands for several files, one for each band."""
    return BAND in str(path)


def band_files(path: Path | str, names: Sequence[str] | None = None) -> dict[str, Path]:
    """The files of a path with `{band}` by the names of their bands: those given, or all that are there, sorted.

    Raises:
        MissingImageError: naming a file that is not there.
    """
    text = str(path)
    if names is None:
        before, _, after = Path(text).name.partition(BAND)
        files = sorted(Path(text).parent.iterdir()) if Path(text).parent.is_dir() else []
        fits = re.compile(f"{re.escape(before)}([^{re.escape(SEPARATORS)}]+){re.escape(after)}")
        found = {match[1]: file for file in files if (match := fits.fullmatch(file.name))}
        if not found:
            raise MissingImageError(f"no image at {text}: no file has this name with something for {BAND}")
        return found
    found = {name: Path(text.replace(BAND, name)) for name in names}
    missing = [str(file) for file in found.values() if not file.exists()]
    if missing:
        raise MissingImageError(f"{text} lacks {', '.join(missing)}; data.band_files names {', '.join(names)}")
    return found


def pattern_of(path: Path, names: Sequence[str]) -> Path:
    """The pattern of a file's name that holds the name of a band, the last one; the path itself where it holds none."""
    fits = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(map(re.escape, names))})(?![A-Za-z0-9])")
    places = list(fits.finditer(path.name))
    if is_pattern(path) or not places:
        return path
    start, end = places[-1].span()
    return path.with_name(path.name[:start] + BAND + path.name[end:])


@dataclass(frozen=True, slots=True)
class Address:
    """Where an image is. `str` of it is for messages: a URL without query and password, as these may be secret."""

    text: str  # a path, a GDAL virtual path (`/vsizip/...`) or a URL (http, https, s3, gs, az)

    @classmethod
    def of(cls, place: Path | str | Self) -> Self:
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
        return urlunsplit((*self._bare, "", "")) if self.is_remote else self.text

    @property
    def _bare(self) -> tuple[str, str, str]:
        """Scheme, host and path of a URL."""
        parts = urlsplit(self.text)
        return parts.scheme, parts.netloc.rpartition("@")[2], parts.path


class Known(NamedTuple):
    """Pixels, and which of them mean something."""

    pixels: Raster  # (bands, h, w); where `known` is false they hold anything
    known: BoolArray | None  # (bands, h, w); None when all values mean something


def known_values(pixels: Raster, marked: BoolArray | None, nodata: NoData) -> BoolArray | None:
    """Which values (bands, h, w) mean something; None when all do."""
    known = None if marked is None else np.broadcast_to(marked, pixels.shape).copy()
    if pixels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            finite = np.abs(pixels) < _NO_VALUE
        known = finite if known is None else known & finite
    for band, values in enumerate(nodata):
        for value in values:
            known = np.ones(pixels.shape, np.bool_) if known is None else known
            known[band] &= pixels[band] != value
    return None if known is None or known.all() else known


def any_band(known: BoolArray | None, window: Window) -> BoolArray:
    """Whether any band of the pixels of a window has a value, (h, w)."""
    if known is None:
        return np.ones((window.height, window.width), np.bool_)
    there: BoolArray = np.logical_or.reduce(known, axis=0)
    return there


def representable(value: float | None, dtype: np.dtype[Any]) -> tuple[float, ...]:
    """A value as pixels of a type have it; nothing where they cannot, and of NaN, which no pixel equals."""
    if value is None or not np.isfinite(value):
        return ()
    if dtype.kind == "f":
        return (float(value),)
    limits = np.iinfo(dtype)
    return (int(value),) if float(value).is_integer() and limits.min <= value <= limits.max else ()


_said = threading.local()


def damage_said() -> str:
    """What libjpeg said of tiles of a TIFF in this thread since this was asked last; empty for nothing.

    It makes up the rest of a tile that breaks off, or is garbled in a way that it sees. GDAL only warns of that, and
    rasterio only logs it.
    """
    text: str = _said.__dict__.pop("text", "")
    return text


def _listen(record: logging.LogRecord) -> bool:
    """Other warnings of libjpeg, and of bytes that it skips, are about files that are whole."""
    _, _, text = record.getMessage().rpartition("JPEGLib:")
    damage = text.startswith(("Premature end", "Corrupt JPEG data")) and "extraneous bytes" not in text
    if damage:
        _said.text = text
    return not damage


for _logger in ("rasterio._err", "rasterio._env"):
    logging.getLogger(_logger).addFilter(_listen)


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How an image is opened; see `open_image`."""

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
    if text.isdecimal():
        return int(text)
    parts = [re.fullmatch(r"\s*(\w+)\s*=(\d+)", part) for part in text.split(",")]
    if not all(parts):
        raise ConfigError(f"plane {text!r}; give a number from 1, such as 3, or z=3,t=1, or bands")
    return {part[1]: int(part[2]) for part in parts if part}


PLAIN = OpenOptions()


def check_size(location: str, size: Size, max_pixels: int | None = None) -> None:
    """Refuse an image of more pixels than allowed: by the environment variable, else `MAX_PIXELS`, when None."""
    limit = _from_environment() if max_pixels is None else max_pixels
    if size.pixels > limit:
        raise UnsupportedImageError(
            f"{location} claims {size.height} x {size.width} pixels, but {limit:.3g} pixels are "
            f"allowed; the header may be damaged. If it is right, set the environment variable {VARIABLE} to a larger "
            "number, or pass max_pixels to open_image"
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

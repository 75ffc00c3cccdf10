"""Which reader opens which file: an ordered list, first match wins. A new format is one file and one line here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from foveate.data.readers.base import ImageReader
from foveate.data.readers.decoded import DECODE_LIMIT_BYTES, open_decoded
from foveate.data.readers.rasterio_reader import open_rasterio
from foveate.errors import ImageReadError, UnsupportedImageError


class OpenReader(Protocol):
    """Opens a file, or returns None or raises `UnsupportedImageError` when it is not of this family."""

    def __call__(self, path: Path, *, keep_alpha: bool, decode_limit_bytes: int) -> ImageReader | None:
        """The reader, or None; `ModuleNotFoundError` when the family's package is not installed."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """A family of formats.

    Attributes:
        name: shown in errors.
        open: see `OpenReader`; imports of optional packages belong inside it.
        extra: the extra of this package that installs what `open` needs, None when nothing.
    """

    name: str
    open: OpenReader
    extra: str | None = None


FAMILIES: tuple[Family, ...] = (
    Family("decoded (PNG, JPEG)", open_decoded),
    Family("rasterio (TIFF, COG, JPEG 2000, VRT, ...)", open_rasterio),
)


def open_image(
    path: Path | str, *, keep_alpha: bool = False, decode_limit_bytes: int = DECODE_LIMIT_BYTES
) -> ImageReader:
    """Open an image with the first reader that knows its format.

    Args:
        path: the file, or a GDAL virtual path (`/vsizip/...`).
        keep_alpha: count an alpha band as a band; otherwise it is left out.
        decode_limit_bytes: PNG and JPEG decoding to more bytes than this go to a temporary file, not to memory.

    Raises:
        ImageReadError: when there is no such file.
        UnsupportedImageError: when no reader can open it, naming those tried.
    """
    path = Path(path)
    if not path.exists() and not str(path).startswith("/vsi"):
        raise ImageReadError(f"no image at {path}")
    reasons = []
    for family in FAMILIES:
        try:
            reader = family.open(path, keep_alpha=keep_alpha, decode_limit_bytes=decode_limit_bytes)
        except UnsupportedImageError as error:
            reasons.append(f"{family.name}: {error}")
        except ModuleNotFoundError as error:
            reasons.append(f"{family.name}: not installed ({error}); pip install 'foveate[{family.extra}]'")
        else:
            if reader is not None:
                return reader
            reasons.append(f"{family.name}: not of this format")
    raise UnsupportedImageError(f"no reader can open {path}. Tried " + "; ".join(reasons))

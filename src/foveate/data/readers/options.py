"""`OpenOptions`: what a caller wants of any reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from foveate.errors import ConfigError

DECODE_LIMIT_BYTES = 1 << 30
# Which of several planes: a number for the only axis there is, or one by the name of each.
Plane: TypeAlias = int | Mapping[str, int] | Literal["bands"]


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How an image is opened.

    Attributes:
        keep_alpha: count an alpha band as a band.
        bands: 1-based numbers of the bands that will be used, where they are chosen: an alpha band then counts as a
            band, and one that is named is pixels and no mask.
        plane: which plane of a file that holds several, counted from 1; see `foveate.data.readers.pages`.
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

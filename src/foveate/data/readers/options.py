"""`OpenOptions`: what a caller wants of any reader."""

from __future__ import annotations

from dataclasses import dataclass

DECODE_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How an image is opened.

    Attributes:
        keep_alpha: count an alpha band as a band.
        decode_limit_bytes: PNG and JPEG decoding to more bytes than this go to a temporary file, not to memory.
    """

    keep_alpha: bool = False
    decode_limit_bytes: int = DECODE_LIMIT_BYTES

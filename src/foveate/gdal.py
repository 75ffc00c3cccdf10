"""What GDAL is told whoever opens a file: little cache, patience with servers, and no needless warning."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio
from rasterio.env import get_gdal_config
from rasterio.errors import NotGeoreferencedWarning

# Megabytes. By default GDAL keeps decoded tiles of up to 5 % of the machine's memory, in every process: memory must be
# bounded by what is worked on, not by the machine. Read by GDAL when it first caches; the user's own value is kept,
# but for `small_cache`, whose bytes are never more than these.
os.environ.setdefault("GDAL_CACHEMAX", "128")
_SMALL_CACHE = 32 * 2**20
# A server that is busy is asked again, and one that never answers is given up.
for _name, _value in (("MAX_RETRY", "3"), ("RETRY_DELAY", "0.5"), ("CONNECTTIMEOUT", "10"), ("TIMEOUT", "60")):
    os.environ.setdefault(f"GDAL_HTTP_{_name}", _value)


def quiet() -> None:
    """Ignore rasterio's warning that an image has no georeference, from here on: most images have none.

    Not only while a file is opened: `catch_warnings` swaps a list of the whole process, and what another thread puts
    back in the middle of an opening would turn the warning on again.
    """
    warnings.simplefilter("ignore", NotGeoreferencedWarning)


@contextmanager
def small_cache() -> Iterator[None]:
    """Let GDAL keep few decoded tiles: for a walk over an image, which comes back to its last tiles only."""
    with rasterio.Env(GDAL_CACHEMAX=small_cache_bytes()):
        yield


def small_cache_bytes() -> int:
    """What GDAL keeps within `small_cache`: 32 MiB, or less where that is its usual limit."""
    with rasterio.Env():
        return min(int(get_gdal_config("GDAL_CACHEMAX")), _SMALL_CACHE)

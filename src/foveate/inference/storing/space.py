"""Whether the results can fit on the disk, told before the work."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from foveate.errors import OutputWriteError
from foveate.geometry import Size
from foveate.inference.config import InferenceConfig
from foveate.inference.storing.store import BlockStore

# What is written is compressed: rasters of large areas of one class shrink a hundred times, noise not at all. Blocks,
# plain and optimised rasters are there together for a moment, and overviews add a third.
_LEAST, _MOST = 0.01, 3.4


def check_space(
    store: BlockStore, size: Size, classes: int, config: InferenceConfig, tell: Callable[[str], None]
) -> None:
    """Refuse where even the least that the results may need is not free; warn where the most is not.

    Raises:
        OutputWriteError: when the disk is too full.
    """
    layers = sum(classes if name == "probabilities" else 1 for name in config.outputs if name != "polygons")
    share = len(store.missing()) / store.total
    raw, free = size.pixels * layers * share, shutil.disk_usage(store.path).free
    if free < _LEAST * raw:
        raise OutputWriteError(
            f"{store.path.parent} has {_gib(free)} free and the results need {_gib(_LEAST * raw)} at the very least; "
            "make room or choose another --out"
        )
    if free < _MOST * raw:
        tell(
            f"{store.path.parent} has {_gib(free)} free; the results may need up to {_gib(_MOST * raw)}. Should the "
            "disk get full, what is finished is kept for --resume"
        )


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"

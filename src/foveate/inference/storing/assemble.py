"""Put the stored blocks of an image together: one pass in a fixed order, whatever the order they were made in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from foveate.errors import OutputWriteError
from foveate.geometry import Window
from foveate.inference.cost import PeakMemory
from foveate.inference.planning.blocks import BlockGrid
from foveate.inference.sinks.outputs import OutputSpec, write_outputs
from foveate.inference.storing.layers import Layers
from foveate.inference.storing.store import BlockStore
from foveate.types import IntArray


class Assembly:
    """Writes the results of one image from its store, and counts what goes by.

    Args:
        store: holds every block.
        grid: the blocks.
        before_each: called before every block; what it raises stops the writing, and no result is there then.

    Attributes:
        class_pixels: (C,) pixels of each class.
        passes: patches that went through the network.
        pixels: that were looked at.
        skipped: passes that were not made outside the area.
        peak: memory of the process that needed most.
        failed: the blocks that could not be read, and why.
    """

    def __init__(self, store: BlockStore, grid: BlockGrid, classes: int, before_each: Callable[[], None]) -> None:
        self._store, self._grid, self._before_each = store, grid, before_each
        self.class_pixels: IntArray = np.zeros(classes, np.int64)
        self.passes, self.pixels, self.skipped = 0, 0, 0
        self.peak = PeakMemory(0.0, 0.0)
        self.failed: list[tuple[Window, str]] = []

    def write(self, spec: OutputSpec) -> None:
        """Write everything that is asked for; it appears under its names once all is complete.

        Raises:
            OutputWriteError: when writing fails; the blocks are kept.
            StoredBlockError: when a block was damaged since it was stored.
        """
        try:
            write_outputs(self._blocks(), spec)
        except OutputWriteError as error:
            raise OutputWriteError(
                f"{error}; all blocks are stored in {self._store.path}: put that right and run the same command with "
                "--resume"
            ) from error

    def _blocks(self) -> Iterator[tuple[Window, Layers]]:
        for number in range(len(self._grid)):
            self._before_each()
            block = self._store.get(number)
            classes = block.layers["classes"]
            # One row of blocks may be wide: counted as bytes, which `bincount` would widen eightfold.
            self.class_pixels += np.array([np.count_nonzero(classes == i) for i in range(len(self.class_pixels))])
            self.passes += block.passes
            self.pixels += block.looked_at
            self.skipped += block.skipped
            self.peak = PeakMemory(*map(max, self.peak, block.peak))
            if block.failure:
                self.failed.append((block.window, block.failure))
            yield block.window, block.layers

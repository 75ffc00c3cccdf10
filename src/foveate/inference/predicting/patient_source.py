"""A source that reads again what could not be read, as a network drive may fail for a moment."""

from __future__ import annotations

import time

from torch import Tensor

from foveate.errors import ImageReadError
from foveate.geometry import Size, Window
from foveate.inference.predicting.pixels import PixelSource

PAUSES = (0.1, 0.5)  # seconds before each further try


class PatientSource(PixelSource):
    """A `PixelSource` that tries a failing read again."""

    @classmethod
    def around(cls, source: PixelSource) -> PatientSource:
        """The same source, with patience."""
        return cls(source.reader, source.channels, source.normalisation, source.device)

    def read(self, window: Window, size: Size) -> Tensor:
        """As `PixelSource.read`, after up to two more tries."""
        for pause in PAUSES:
            try:
                return super().read(window, size)
            except ImageReadError:
                time.sleep(pause)
        return super().read(window, size)

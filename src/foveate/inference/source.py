"""The image as the network wants it: the right bands, on the right device, normalised; a failing read is repeated."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foveate.data.channels import Normalisation, select_channels
from foveate.data.config import DataConfig
from foveate.data.readers.base import ImageReader
from foveate.errors import ImageReadError
from foveate.geometry import Size, Window


@dataclass(frozen=True, slots=True)
class PixelSource:
    """Reads windows of one image as tensors.

    Attributes:
        reader: the image.
        channels: 0-based bands, one per channel of the network.
        normalisation: raw values to network input.
        device: where the tensors go.
    """

    reader: ImageReader
    channels: list[int]
    normalisation: Normalisation
    device: torch.device

    @classmethod
    def of(cls, reader: ImageReader, config: DataConfig, device: torch.device) -> PixelSource:
        """The source as the data section of a configuration describes it.

        Raises:
            DatasetError: when the bands of the image do not fit the network.
        """
        channels = select_channels(reader, config.bands, config.in_channels)
        return cls(reader, channels, Normalisation.of(config, reader.dtype), device)

    @property
    def size(self) -> Size:
        """Size of level 0."""
        return self.reader.size

    def read(self, window: Window, size: Size) -> Tensor:
        """The selected bands (C, h, w) of a window, in the file's range, on the device."""
        pixels = self.reader.read(window, size)
        if self.channels != list(range(len(pixels))):
            pixels = pixels[self.channels]
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.float32)  # torch has few operations for the other types of files
        return torch.from_numpy(pixels).to(self.device)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Float pixels (..., C, h, w) in the network's range."""
        return self.normalisation(pixels)


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

"""The image as the network wants it: the right bands, on the right device, normalised; a failing read is repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor

from foveate.data.channels import Normalisation
from foveate.data.config import DataConfig
from foveate.data.fit import fit
from foveate.data.readers.base import ImageReader
from foveate.devices import available_cores
from foveate.errors import ImageReadError
from foveate.geometry import Size, Window
from foveate.patches.extraction import on_device

_MOST_READERS = 8


@dataclass(frozen=True, slots=True)
class PixelSource:
    """Reads windows of one image as tensors.

    Attributes:
        reader: the image.
        channels: 0-based bands, one per channel of the network.
        normalisation: raw values to network input.
        device: where the tensors go.
        opener: opens the image anew, for another thread to read beside; None where that cannot be done.
        notes: what a user should know of how the image is read, in sentences.
    """

    reader: ImageReader
    channels: list[int]
    normalisation: Normalisation
    device: torch.device
    opener: Callable[[], ImageReader] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        reader: ImageReader,
        config: DataConfig,
        device: torch.device,
        opener: Callable[[], ImageReader] | None = None,
    ) -> PixelSource:
        """The source as the data section of a configuration describes it.

        Raises:
            DatasetError: when the image's bands do not fit the network, or it is unlike those of training.
        """
        channels, normalisation, notes = fit(reader, config)
        return cls(reader, channels, normalisation, device, opener, notes)

    @property
    def size(self) -> Size:
        """Size of level 0."""
        return self.reader.size

    @property
    def threads(self) -> int:
        """How many may read: one where the image cannot be opened anew, or is decoded as a whole."""
        many = self.opener is not None and self.reader.random_access
        return min(_MOST_READERS, available_cores()) if many else 1

    def read(self, window: Window, size: Size) -> Tensor:
        """The selected bands (C, h, w) of a window, in the file's range, on the device."""
        return on_device(self.pixels(window, size), self.device)

    def pixels(self, window: Window, size: Size) -> Tensor:
        """As `read`, in main memory."""
        pixels = self.reader.read(window, size)
        if self.channels != list(range(len(pixels))):
            pixels = pixels[self.channels]
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.float32)  # torch has few operations for the other types of files
        return torch.from_numpy(pixels)

    def normalised(self, pixels: Tensor, out: Tensor | None = None) -> Tensor:
        """Float pixels (..., C, h, w) in the network's range, in new memory or in that of `out`."""
        return self.normalisation(pixels, out)


_STRIP_PIXELS = 2**19  # a strip has at least; smaller ones cost more in starting than they save
PAUSES = (0.1, 0.5)  # seconds before each further try


class PatientSource(PixelSource):
    """A `PixelSource` that tries a failing read again."""

    @classmethod
    def around(cls, source: PixelSource) -> PatientSource:
        """The same source, with patience."""
        return cls(source.reader, source.channels, source.normalisation, source.device, source.opener, source.notes)

    def pixels(self, window: Window, size: Size) -> Tensor:
        """As `PixelSource.pixels`, after up to two more tries."""
        for pause in PAUSES:
            try:
                return PixelSource.pixels(self, window, size)
            except ImageReadError:
                time.sleep(pause)
        return PixelSource.pixels(self, window, size)


@contextmanager
def threaded(source: PixelSource, threads: int | None = None) -> Iterator[PixelSource]:
    """The source, read by several threads, a strip of a window each, with a reader each.

    Where the image cannot be opened anew, or is decoded as a whole, it is read as before by the thread that asks.

    Args:
        source: the image.
        threads: at most how many; one a core, and 8, by default.
    """
    count = min(threads or source.threads, source.threads)
    if count == 1 or source.opener is None:
        yield source
        return
    with ExitStack() as stack:
        readers: SimpleQueue[PixelSource] = SimpleQueue()
        for _ in range(count):
            reader = stack.enter_context(source.opener())
            readers.put(replace(source, reader=reader))
        pool = stack.enter_context(ThreadPoolExecutor(count, thread_name_prefix="read"))
        fields = (source.reader, source.channels, source.normalisation, source.device, source.opener, source.notes)
        yield _ThreadedSource(*fields, pool, readers, count)


@dataclass(frozen=True, slots=True)
class _ThreadedSource(PixelSource):
    pool: Executor | None = None
    readers: SimpleQueue[PixelSource] | None = None
    count: int = 1

    def pixels(self, window: Window, size: Size) -> Tensor:
        """As `PixelSource.pixels`; the first strip that cannot be read is the error."""
        assert self.pool is not None  # see `threaded`
        parts = [self.pool.submit(self._strip, *strip) for strip in _strips(window, size, self.count)]
        found = [part.result() for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _strip(self, window: Window, size: Size) -> Tensor:
        assert self.readers is not None
        source = self.readers.get()  # as many as threads
        try:
            return source.pixels(window, size)
        finally:
            self.readers.put(source)


def _strips(window: Window, size: Size, count: int) -> Iterator[tuple[Window, Size]]:
    """A window cut by rows into at most so many strips, where that pays and no row of pixels is split."""
    step = window.height // size.height if window.height % size.height == 0 else 0
    count = min(count, size.height * size.width // _STRIP_PIXELS) if step else 1
    bounds = [size.height * i // max(1, count) for i in range(max(1, count) + 1)]
    for start, stop in pairwise(bounds):
        if len(bounds) == 2:
            yield window, size
            return
        top, height = window.top + start * step, (stop - start) * step
        yield Window(top, window.left, height, window.width), Size(stop - start, size.width)

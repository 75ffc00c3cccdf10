"""The image as the network wants it: the right bands on the right device, read by threads, and the inputs of passes."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from queue import SimpleQueue
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor

from foveate.data.channels import Normalisation, fit, told_of_lone_value
from foveate.data.config import DataConfig
from foveate.data.readers.pyramid import ImageReader
from foveate.devices import available_cores, on_device
from foveate.errors import ImageReadError
from foveate.foveation.estimator import Estimator, Joint
from foveate.geometry import Size, Window
from foveate.looks.passes import Passes
from foveate.patches import extraction
from foveate.patches.scales import PatchPart, ScaleSet, assembled

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
        readers: of several threads, see `threaded`.
    """

    reader: ImageReader
    channels: list[int]
    normalisation: Normalisation
    device: torch.device
    opener: Callable[[], ImageReader] | None = None
    notes: tuple[str, ...] = ()
    readers: "Readers | None" = None

    @classmethod
    def of(
        cls,
        reader: ImageReader,
        config: DataConfig,
        device: torch.device,
        opener: Callable[[], ImageReader] | None = None,
    ) -> Self:
        """The source as the data section of a configuration describes it.

        Raises:
            DatasetError: when the image's bands do not fit the network, or it is unlike those of training.
        """
        channels, normalisation, notes = fit(reader, config)
        told = told_of_lone_value(reader, channels, config)
        return cls(reader, channels, normalisation, device, opener, (*notes, told) if told else notes)

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
        """As `read`, in main memory. A read that fails is tried again; the first strip that cannot be read raises."""
        if self.readers is None:
            return self._tried(self.reader, window, size)
        parts = [self.readers.pool.submit(self._strip, *strip) for strip in _strips(window, size, self.threads)]
        found = [part.result() for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def normalised(self, pixels: Tensor, out: Tensor | None = None) -> Tensor:
        """Float pixels (..., C, h, w) in the network's range, in new memory or in that of `out`."""
        return self.normalisation(pixels, out)

    def _strip(self, window: Window, size: Size) -> Tensor:
        assert self.readers is not None
        reader = self.readers.free.get()  # as many as threads
        try:
            return self._tried(reader, window, size)
        finally:
            self.readers.free.put(reader)

    def _tried(self, reader: ImageReader, window: Window, size: Size) -> Tensor:
        for pause in PAUSES:
            try:
                return self._read(reader, window, size)
            except ImageReadError:
                time.sleep(pause)
        return self._read(reader, window, size)

    def _read(self, reader: ImageReader, window: Window, size: Size) -> Tensor:
        pixels = reader.read(window, size)
        if self.channels != list(range(len(pixels))):
            pixels = pixels[self.channels]
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.float32)  # torch has few operations for the other types of files
        return torch.from_numpy(pixels)


_STRIP_PIXELS = 2**19  # a strip has at least; smaller ones cost more in starting than they save
PAUSES = (0.1, 0.5)  # seconds before each further try


class Readers(NamedTuple):
    """Threads that read, and as many readers of the same image."""

    pool: Executor
    free: SimpleQueue[ImageReader]


@contextmanager
def threaded(source: PixelSource) -> Iterator[PixelSource]:
    """The source, read by several threads, a strip of a window each, with a reader each.

    Where the image cannot be opened anew, or is decoded as a whole, it is read as before by the thread that asks.
    """
    if source.threads == 1 or source.opener is None:
        yield source
        return
    with ExitStack() as stack:
        free: SimpleQueue[ImageReader] = SimpleQueue()
        for _ in range(source.threads):
            free.put(stack.enter_context(source.opener()))
        pool = stack.enter_context(ThreadPoolExecutor(source.threads, thread_name_prefix="read"))
        yield replace(source, readers=Readers(pool, free))


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


# By scale, one for each part of its patches.
Regions: TypeAlias = dict[int, tuple[extraction.Region, ...]]


class PassGroup(NamedTuple):
    """Passes, and the pixels they look at.

    Attributes:
        passes: N of them, of one side of support.
        regions: for the scales in use.
    """

    passes: Passes
    regions: Regions


def group_of(
    passes: Passes, source: PixelSource, scales: ScaleSet, known: Callable[[Passes], Tensor] | None = None
) -> PassGroup:
    """Passes with what those that are not known look at, read now."""
    unknown = passes if known is None else passes.select(~known(passes))
    return PassGroup(passes, read_regions(unknown, source, scales))


def read_regions(passes: Passes, source: PixelSource, scales: ScaleSet) -> Regions:
    """The parts of the image that the passes look at, by the scales they use."""
    found = {}
    for scale in range(len(scales)):
        used = passes.scale_weights[:, scale] > 0
        if bool(used.any()):
            supports = _supports_of(passes, used)
            found[scale] = tuple(_read_region(supports, part, source) for part in scales.parts(scale))
    return found


def inputs_of(passes: Passes, regions: Regions, scales: ScaleSet, estimator: Estimator) -> Tensor | list[Tensor]:
    """The input of each pass, (C, P, P) in the file's range: its scales' patches times their weights, or joined.

    On a processor what is no mixture is not copied where it is a plain part of a region.
    """
    weights = passes.scale_weights
    if isinstance(estimator, Joint):
        seen = [_patches(passes.supports, regions[scale], scales, scale) for scale in sorted(regions)]
        return estimator.joined(torch.stack([seen[0], seen[-1]], dim=1).float(), scales)
    one_scale = bool(((weights == 0) | (weights == 1)).all())
    on_cpu = all(part.pixels.device.type == "cpu" for parts in regions.values() for part in parts)
    if not one_scale or not on_cpu:
        return mixed_patches(passes, regions, scales)
    found: dict[int, Tensor] = {}
    for scale, parts in regions.items():
        rows = torch.nonzero(weights[:, scale])[:, 0]
        supports = _supports_of(passes, rows)
        windows = supports.centred(scales.fields_of_view[scale])
        plain = extraction.plain_patches(parts[0], windows, scales.patch_size) if len(parts) == 1 else None
        patches = list(_patches(supports, parts, scales, scale)) if plain is None else plain
        found |= dict(zip(rows.tolist(), patches, strict=True))
    return [found[row] for row in range(len(passes))]


def mixed_patches(passes: Passes, regions: Regions, scales: ScaleSet) -> Tensor:
    """As `inputs_of`, in one tensor (N, C, P, P)."""
    mixed: Tensor | None = None
    for scale, parts in regions.items():
        weights = passes.scale_weights[:, scale]
        rows = torch.nonzero(weights > 0)[:, 0]
        if len(rows) == 0:
            continue
        device = parts[0].pixels.device
        patches = _patches(_supports_of(passes, rows), parts, scales, scale)
        if len(rows) == len(passes) and bool((weights == 1).all()):
            return patches  # there is nothing to mix
        if mixed is None:
            mixed = patches.new_zeros(len(passes), *patches.shape[1:], dtype=torch.float32)
        mixed.index_add_(0, on_device(rows, device), patches * on_device(weights[rows], device).view(-1, 1, 1, 1))
    assert mixed is not None  # every pass looks at some scale
    return mixed


def _supports_of(passes: Passes, rows: Tensor) -> extraction.Windows:
    tops, lefts, side = passes.supports
    return extraction.Windows(tops[rows], lefts[rows], side)


def _patches(
    supports: extraction.Windows, regions: Sequence[extraction.Region], scales: ScaleSet, scale: int
) -> Tensor:
    """The patches (n, C, P, P) around supports."""
    parts = zip(regions, scales.parts(scale), strict=True)
    return assembled(
        [extraction.extract_patches(at, supports.centred(part.view), part.pixels) for at, part in parts], scales
    )


def _read_region(supports: extraction.Windows, part: PatchPart, source: PixelSource) -> extraction.Region:
    """What a part of the patches around supports shows."""
    downsample = extraction.region_downsample(part.view / part.pixels)
    window = extraction.region_window(supports.centred(part.view), downsample)
    size = Size(window.height // downsample, window.width // downsample)
    return extraction.Region(source.read(window, size), window.top // downsample, window.left // downsample, downsample)

"""A bound on the memory of a prediction, from what decides it; and blocks and batches that keep it below a limit."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch

from foveate.cascade import CascadeSegmenter
from foveate.data.area import Area
from foveate.data.readers.pyramid import STRIP_BYTES
from foveate.devices import peak_memory_mb
from foveate.errors import ConfigError
from foveate.geometry import ceil_div
from foveate.inference.block import AT_ONCE
from foveate.inference.config import InferenceConfig
from foveate.inference.field import CACHED_TILES, TILE_CELLS
from foveate.inference.plan import LookPlan
from foveate.inference.runner import batches_at_once, bytes_of_a_patch, peak_bytes
from foveate.inference.source import PixelSource
from foveate.inference.stitch import pixels_at_once
from foveate.inference.worker import HANDED_OVER, WRITERS
from foveate.patches.extraction import region_downsample
from foveate.patches.scales import PatchPart
from foveate.segmenter import FoveatedSegmenter
from foveate.texts import size_text
from foveate.tiff.raster import small_cache_bytes

# Kernels use memory of their own, and freed memory is not reused to the last byte.
_SLACK = 1.25
_FIXED = 96 << 20  # threads, buffers of the codecs
_KERNELS = 96 << 20  # what kernels use inside for a batch, which the tensors do not show; 90 MiB were measured
_FLOAT = 4
_SMALLEST = 256
_MASKS = 12  # what is inside and what is glass, of a block and of the one read ahead, while they are put together
_MOST_BYTES = 2.0**60
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


class MemoryBound(NamedTuple):
    """Most memory of one process, bytes.

    Attributes:
        main: main memory, all that the process has included.
        device: memory of the accelerator; 0 without one.
    """

    main: int
    device: int

    @property
    def largest(self) -> int:
        """The larger one, which a limit is compared with."""
        return max(self)


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """What decides the memory of predicting an image.

    Attributes:
        segmenter: in eval mode, on the source's device.
        source: the image.
        config: of inference; its sizes are given to `bound`.
        classes: of the network's output.
        plan: the looks.
        masks: bytes of a pixel of what says which pixels are looked at; 0 where all are.
        base: bytes of the process so far.
        patch: bytes that the network needs for one patch.
        handed: bytes that a cascade's look hands on of one patch; 0 without a cascade.
        policy: bytes that the policy needs for one tile of cells.
    """

    segmenter: FoveatedSegmenter
    source: PixelSource
    config: InferenceConfig
    classes: int
    plan: LookPlan
    masks: int
    base: int
    patch: int
    handed: int
    policy: int

    @classmethod
    def of(
        cls,
        segmenter: FoveatedSegmenter,
        source: PixelSource,
        config: InferenceConfig,
        classes: int,
        area: Area | None = None,
    ) -> Self:
        """The model of an image, of which `area` is looked at (None for all); the network is tried on one patch."""
        return cls(
            segmenter,
            source,
            config,
            classes,
            LookPlan.of(config, segmenter.estimator, segmenter.scales),
            masks=0 if area is None or area.is_everything else _MASKS,
            base=round(peak_memory_mb() * 2**20),
            patch=bytes_of_a_patch(config, segmenter, source.device)[0],
            handed=_handed_bytes(segmenter, source),
            policy=_policy_bytes(segmenter, source),
        )

    def bound(self, side: int, batch: int) -> MemoryBound:
        """Most memory with blocks of this side, level-0 pixels, and this many patches at a time."""
        reading, regions = self._reading(side)
        stitching, finishing = self._stitching(side, batch), self._finishing(side)
        beside = self.classes * side**2 * _FLOAT <= HANDED_OVER  # the next block is worked on meanwhile
        computed = regions + max(stitching + finishing if beside else stitching, finishing, self.policy)
        # What is known of blocks that are being stored, and of the one at hand.
        writing = side**2 * ((4 + WRITERS) * self._layers + self.masks)
        kept_back = self.base + self._kept_of_the_image() + _FIXED
        if self.source.device.type == "cpu":
            return MemoryBound(round(kept_back + _SLACK * (computed + reading + writing)), 0)
        weights = sum(p.numel() * p.element_size() for p in self.segmenter.state_dict().values())
        main, device = kept_back + _SLACK * (reading + writing), weights + _SLACK * (computed + _FIXED)
        return MemoryBound(round(main), round(device))

    @property
    def _layers(self) -> int:
        """Bytes of a pixel in the results."""
        return 1 + sum(self.classes if name == "probabilities" else 1 for name in self._from_probabilities)

    @property
    def _from_probabilities(self) -> set[str]:
        return {"probabilities", "confidence", "entropy"} & set(self.config.outputs)

    def _kept_of_the_image(self) -> int:
        """Decoded tiles of the file, what the reader holds, and the policy's answers."""
        reader, field = self.source.reader, TILE_CELLS * self.segmenter.overview_downsample
        cache = min(small_cache_bytes(), reader.size.pixels * reader.bands * reader.dtype.itemsize)
        tiles = min(CACHED_TILES, ceil_div(reader.size.height, field) * ceil_div(reader.size.width, field))
        answers = tiles * len(self.segmenter.scales) * TILE_CELLS**2 * _FLOAT
        return (cache if reader.random_access else 0) + reader.resident_bytes + answers

    def _reading(self, side: int) -> tuple[int, int]:
        """While the regions of a block are read; and those regions, with what is read ahead."""
        reader, channels = self.source.reader, len(self.source.channels)
        raw = reader.bands * reader.dtype.itemsize
        # Supports may reach over the block on either side.
        reach = side + 2 * self.plan.sides[-1]
        pixels = [sum(self._pixels(part, reach) for part in self.segmenter.scales.parts(k)) for k in self.plan.scales]
        kept = channels * (1 if reader.dtype.name == "uint8" else _FLOAT)
        regions = (sum(pixels) + sum(pixels[-1:] if self.plan.pyramid else pixels)) * kept
        # While a region is read, the file's own pixels are there too, and means are taken strip by strip.
        strips = min(self.source.threads * STRIP_BYTES, max(pixels) * max(raw, channels) * _FLOAT)
        return max(pixels) * raw + 3 * strips, regions

    @staticmethod
    def _pixels(part: PatchPart, reach: int) -> int:
        return ((reach + part.view) // region_downsample(part.view / part.pixels) + 2) ** 2

    def _stitching(self, side: int, batch: int) -> int:
        """While the network runs: sums, patches, its own memory, and its output brought to the image's resolution."""
        supports, device = self.plan.sides, self.source.device
        # And as much as the sums take, once, of what is kept for later blocks: see `SharedPasses`.
        sums = 3 * self.classes * side**2 * _FLOAT + 9 * side**2
        # Weights of the looks may be those of every class.
        weights = (5 * len(supports) + self.classes) * side**2 * _FLOAT if self.plan.pyramid else 0
        at_once = pixels_at_once(device)
        wide = max(min(batch * support**2, max(at_once, support**2)) for support in supports)
        beside = batches_at_once(device)
        passed = batch * beside
        patches = 6 * passed * len(self.source.channels) * self.segmenter.scales.patch_size**2 * _FLOAT
        # What looks hand on is kept for a block, and stacked for a batch of closer ones.
        handed = (passed + sum((side // support + 2) ** 2 for support in supports[1:])) * self.handed
        network = passed * self.patch + beside * _KERNELS
        return sums + weights + 4 * wide * self.classes * _FLOAT + patches + network + handed

    def _finishing(self, side: int) -> int:
        """While the layers are made of a block's logits, strip by strip."""
        strip = max(AT_ONCE, side)
        making = (6 if self._from_probabilities else 1) * self.classes * strip * _FLOAT + 13 * strip
        return self.classes * side**2 * _FLOAT + self._layers * side**2 + making


def fitted(model: MemoryModel, config: InferenceConfig, segmenter: FoveatedSegmenter, limit: int) -> InferenceConfig:
    """The configuration, with blocks and batches made smaller, as little as possible, until they fit a limit.

    Args:
        model: of the image.
        config: of inference; neither its blocks nor its batches become larger.
        segmenter: says what the sides of blocks must be multiples of.
        limit: bytes for this process.

    Raises:
        ConfigError: when even the smallest do not fit, saying what would.
    """
    smallest = None
    for side, batch in _smaller(config, segmenter):
        smallest = model.bound(side, batch)
        if smallest.largest <= limit:
            return config.model_copy(update={"block_size": side, "batch_size": batch})
    assert smallest is not None  # there is at least what was configured
    raise ConfigError(
        f"{size_text(limit)} of memory for each process is too little. With the smallest blocks and one patch at a "
        f"time, about {size_text(smallest.largest)} are needed; the program and its network take "
        f"{size_text(model.base)} of it"
    )


def parse_memory(text: str) -> int:
    """Bytes from a text such as 4GB (10^9), 4GiB (2^30), 500M.

    Raises:
        ConfigError: when it is no such text.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]I?)?B?\s*", text.upper())
    if not match or not 0 < float(match[1]) < _MOST_BYTES:
        raise ConfigError(f"memory {text!r}; give a size such as 4GB, 500MB or 2.5GiB")
    return round(float(match[1]) * _UNITS[match[2] or ""])


def _smaller(config: InferenceConfig, segmenter: FoveatedSegmenter) -> Iterator[tuple[int, int]]:
    """Sides of blocks and sizes of batches, both halved more and more often, the least halved together first."""
    plan, cell = LookPlan.of(config, segmenter.estimator, segmenter.scales), segmenter.overview_downsample
    wanted = [config.block_size]
    while wanted[-1] // 2 >= _SMALLEST:
        wanted.append(wanted[-1] // 2)
    sides = list(dict.fromkeys(plan.block_side(side, cell) for side in wanted))
    batches = [config.batch_size >> i for i in range(config.batch_size.bit_length())]
    pairs = [(i, j) for i in range(len(sides)) for j in range(len(batches))]
    return ((sides[i], batches[j]) for i, j in sorted(pairs, key=lambda pair: (sum(pair), pair[0])))


def _handed_bytes(segmenter: FoveatedSegmenter, source: PixelSource) -> int:
    if not isinstance(segmenter, CascadeSegmenter):
        return 0
    side, widest = segmenter.scales.patch_size, len(segmenter.scales) - 1
    with torch.inference_mode():
        handed = segmenter.look(torch.zeros(1, len(source.channels), side, side, device=source.device), widest).handed
    return handed.nbytes


def _policy_bytes(segmenter: FoveatedSegmenter, source: PixelSource) -> int:
    if not segmenter.has_policy:
        return 0
    side = TILE_CELLS + 2 * segmenter.policy.margin
    overview = torch.zeros(1, len(source.channels), side, side, device=source.device)
    return peak_bytes(lambda: segmenter.scale_logits(overview.clone()))

"""Passes: read what they look at, cut their patches, run the network on a batch, hand what it made to be stitched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.cascade import CascadeSegmenter
from foveate.foveation.estimator import Estimator, Joint
from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.inference.source import PixelSource
from foveate.inference.stitch import Stitcher
from foveate.looks.passes import Begun, BlockArea, Foveation, Passes, Planner, begun_in
from foveate.patches.alignment import Context
from foveate.patches.extraction import (
    Region,
    Windows,
    extract_patches,
    on_device,
    plain_corners,
    plain_patches,
    region_downsample,
    region_window,
)
from foveate.patches.scales import ScaleSet
from foveate.segmenter import FoveatedSegmenter


class PassGroup(NamedTuple):
    """Passes, and the pixels they look at.

    Attributes:
        passes: N of them, of one side of support.
        regions: by scale, for the scales in use.
    """

    passes: Passes
    regions: dict[int, Region]


class PreparedBlock(NamedTuple):
    """A block that is ready to be predicted.

    Attributes:
        window: the block, level-0 pixels.
        groups: its passes.
        begun: passes that begin in it.
        area: what is looked at; None for everything.
        weights: (L, 1, h, w) how much each look of a pyramid counts at each pixel.
    """

    window: Window
    groups: list[PassGroup]
    begun: Begun
    area: BlockArea | None = None
    weights: Tensor | None = None


def prepare_block(
    block: Window,
    planner: Planner,
    foveation: Foveation,
    source: PixelSource,
    scales: ScaleSet,
    area: BlockArea | None = None,
    known: Callable[[Passes], Tensor] | None = None,
) -> PreparedBlock:
    """Plan a block and read its regions: each pixel once per scale in use, however many patches share it.

    Passes that meet no pixel of the block that is looked at (`area`, None for everything) are left out; for those that
    are `known` nothing is read.
    """
    planned = planner.passes(block, foveation)
    kept = planned if area is None else [passes.select(area.meets(passes.supports)) for passes in planned]
    groups = [group_of(passes, source, scales, known) for passes in kept]
    return PreparedBlock(block, groups, begun_in(planned, block, area), area)


def group_of(
    passes: Passes, source: PixelSource, scales: ScaleSet, known: Callable[[Passes], Tensor] | None = None
) -> PassGroup:
    """Passes with what those that are not known look at, read now."""
    unknown = passes if known is None else passes.select(~known(passes))
    return PassGroup(passes, read_regions(unknown, source, scales))


def read_regions(passes: Passes, source: PixelSource, scales: ScaleSet) -> dict[int, Region]:
    """The part of the image that the passes look at, by the scales they use."""
    used = [scale for scale in range(len(scales)) if bool((passes.scale_weights[:, scale] > 0).any())]
    return {scale: _read_region(passes, scale, source, scales) for scale in used}


def patch_windows(supports: Windows, side: int) -> Windows:
    """The windows of this side around the centres of the supports."""
    shift = (supports.side - side) // 2
    return Windows(supports.top + shift, supports.left + shift, side)


def inputs_of(
    passes: Passes, regions: dict[int, Region], scales: ScaleSet, estimator: Estimator
) -> Tensor | list[Tensor]:
    """The input of each pass, (C, P, P) in the file's range: its scales' patches times their weights, or joined.

    On a processor what is no mixture is not copied where it is a plain part of a region.
    """
    weights, every = passes.scale_weights, torch.arange(len(passes))
    if isinstance(estimator, Joint):
        around = {scale: _windows_of(passes, scale, scales, every) for scale in regions}
        parts = [extract_patches(regions[scale], around[scale], scales.patch_size) for scale in sorted(regions)]
        return estimator.joined(torch.stack([parts[0], parts[-1]], dim=1).float(), scales)
    one_scale = bool(((weights == 0) | (weights == 1)).all())
    if not one_scale or any(region.pixels.device.type != "cpu" for region in regions.values()):
        return mixed_patches(passes, regions, scales)
    found: dict[int, Tensor] = {}
    for scale, region in regions.items():
        rows = torch.nonzero(weights[:, scale])[:, 0]
        windows = _windows_of(passes, scale, scales, rows)
        corners = plain_corners(region, windows, scales.patch_size)
        patches = (
            extract_patches(region, windows, scales.patch_size)
            if corners is None
            else plain_patches(region, corners, scales.patch_size)
        )
        found |= dict(zip(rows.tolist(), patches, strict=True))
    return [found[row] for row in range(len(passes))]


def mixed_patches(passes: Passes, regions: dict[int, Region], scales: ScaleSet) -> Tensor:
    """As `inputs_of`, in one tensor (N, C, P, P)."""
    mixed: Tensor | None = None
    for scale, region in regions.items():
        weights = passes.scale_weights[:, scale]
        rows = torch.nonzero(weights > 0)[:, 0]
        if len(rows) == 0:
            continue
        device = region.pixels.device
        patches = extract_patches(region, _windows_of(passes, scale, scales, rows), scales.patch_size)
        if len(rows) == len(passes) and bool((weights == 1).all()):
            return patches  # there is nothing to mix
        if mixed is None:
            mixed = patches.new_zeros(len(passes), *patches.shape[1:], dtype=torch.float32)
        mixed.index_add_(0, on_device(rows, device), patches * on_device(weights[rows], device).view(-1, 1, 1, 1))
    assert mixed is not None  # every pass looks at some scale
    return mixed


def _windows_of(passes: Passes, scale: int, scales: ScaleSet, rows: Tensor) -> Windows:
    """What some of the passes see of a scale."""
    tops, lefts, side = patch_windows(passes.supports, scales.fields_of_view[scale])
    return Windows(tops[rows], lefts[rows], side)


def _read_region(passes: Passes, scale: int, source: PixelSource, scales: ScaleSet) -> Region:
    downsample = region_downsample(scales.downsample(scale))
    window = region_window(_windows_of(passes, scale, scales, passes.scale_weights[:, scale] > 0), downsample)
    size = Size(window.height // downsample, window.width // downsample)
    return Region(source.read(window, size), window.top // downsample, window.left // downsample, downsample)


# Predictions are brought to the image's resolution for so many pixels at a time: a wide support has many. Few stay in a
# processor's cache; a device has work for a moment.
_PIXELS_AT_ONCE = {"cpu": 2**18}
_PIXELS_ON_DEVICE = 2**23


def pixels_at_once(device: torch.device) -> int:
    """Pixels of a class that are brought to the image's resolution at a time."""
    return _PIXELS_AT_ONCE.get(device.type, _PIXELS_ON_DEVICE)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network makes of N passes.

    Attributes:
        logits: (N, C, P', P') over their windows.
        handed: (N, D, m, m) what a cascade's closer looks get of it; None without one.
    """

    logits: Tensor
    handed: Tensor | None = None

    def of(self, rows: int | slice) -> Seen:
        """What is made of some of the passes, or of one, without the axis N."""
        return self.after(lambda values: values[rows])

    def after(self, work: Callable[[Tensor], Tensor]) -> Seen:
        """The same after some work on each of the tensors."""
        return Seen(work(self.logits), None if self.handed is None else work(self.handed))

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return self.logits.nbytes + (0 if self.handed is None else self.handed.nbytes)


class Runner:
    """Runs the network on batches of one shape, in memory that is used again and again.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        config: of inference.
    """

    def __init__(self, segmenter: FoveatedSegmenter, source: PixelSource, config: InferenceConfig) -> None:
        self._segmenter, self._source, self._config = segmenter, source, config
        self._inputs: Tensor | None = None

    @torch.inference_mode()
    def __call__(
        self, inputs: Sequence[Tensor] | Tensor, scale_weights: Tensor, context: Context | None = None
    ) -> Seen:
        """What the network sees on inputs n x (C_in, P, P) in the file's range, at most a batch.

        The inputs were mixed by scale weights (n, S). Every forward pass has the shape of a whole batch, filled up with
        zeros: kernels are chosen once, and a patch's result does not depend on how many others were left.
        """
        filled = self.filled(inputs)
        with torch.autocast(filled.device.type, torch.bfloat16, enabled=self._config.precision == "bf16"):
            if isinstance(self._segmenter, CascadeSegmenter):
                seen = self._looked(self._segmenter, filled, int(scale_weights[0].argmax()), context)
            else:
                weights = torch.cat([scale_weights, scale_weights[-1:].expand(len(filled) - len(inputs), -1)])
                seen = Seen(self._seen(filled, on_device(weights, filled.device)))
        if seen.logits.untyped_storage().data_ptr() == filled.untyped_storage().data_ptr():
            self._inputs = None  # a network that gives back what it is given keeps that
        return seen.of(slice(len(inputs)))

    def _looked(self, cascade: CascadeSegmenter, patches: Tensor, scale: int, context: Context | None) -> Seen:
        if context is not None:
            handed, corners = (_filled(values, len(patches)) for values in (context.seen, context.corners))
            context = Context(handed, corners, context.share)
        found = cascade.look(patches, scale, context)
        return Seen(found.logits, found.handed)

    def _seen(self, patches: Tensor, scale_weights: Tensor) -> Tensor:
        """The network's logits; with `tta`, those of its mean probabilities over mirrored and turned patches."""
        if self._config.tta is None:
            return self._segmenter.predict_windows(patches, scale_weights)
        membership = self._segmenter.membership
        turns = (0, 2) if self._config.tta == "flips" else (0, 1, 2, 3)
        total: Tensor | None = None
        for turn, mirrored in product(turns, (False, True)):
            view = torch.rot90(patches.flip(-1) if mirrored else patches, turn, (-2, -1))
            seen = membership.probabilities(self._segmenter.predict_windows(view, scale_weights).float())
            back = torch.rot90(seen, -turn, (-2, -1))
            back = back.flip(-1) if mirrored else back
            total = back if total is None else total + back
        assert total is not None
        return membership.as_logits(total / self._config.passes_of_a_patch)

    @torch.inference_mode()
    def filled(self, inputs: Sequence[Tensor] | Tensor) -> Tensor:
        """Inputs in the network's range, filled up with zeros to a whole batch; valid until the next call."""
        size, first = max(len(inputs), self._config.batch_size), inputs[0]
        shape = (size, *first.shape)
        if self._inputs is None or self._inputs.shape != shape or self._inputs.device != first.device:
            order = torch.contiguous_format if first.device.type == "cpu" else torch.channels_last
            self._inputs = torch.empty(shape, device=first.device, memory_format=order)
        if first.device.type != "cpu":
            together = inputs if isinstance(inputs, Tensor) else torch.stack(list(inputs))
            self._source.normalised(together, out=self._inputs[: len(inputs)])
        else:  # one after the other, which stay in a processor's cache
            for patch, out in zip(inputs, self._inputs, strict=False):
                self._source.normalised(patch, out=out)
        self._inputs[len(inputs) :] = 0
        return self._inputs


def _filled(values: Tensor, size: int) -> Tensor:
    """Values (n, ...) with zeros up to (size, ...)."""
    return torch.cat([values, values.new_zeros(size - len(values), *values.shape[1:])])


@torch.inference_mode()
def add_outputs(
    stitcher: Stitcher,
    passes: Passes,
    output: Tensor,
    segmenter: FoveatedSegmenter,
    *,
    by_probability: bool,
    pixel_weights: Tensor | None = None,
) -> None:
    """Bring outputs (n, C, P', P') to the image's resolution over their supports, and stitch them."""
    side, weights = passes.supports.side, _weights_for(passes, output.device)
    rows = max(1, pixels_at_once(output.device) // side**2)
    for start in range(0, len(passes), rows):
        part = slice(start, start + rows)
        few = passes.select(part)
        logits = segmenter.over_supports(output[part], weights[part], side).float()
        stitcher.add(few, segmenter.membership.probabilities(logits) if by_probability else logits, pixel_weights)


def _weights_for(passes: Passes, device: torch.device) -> Tensor:
    """The scale weights; of passes of one scale on the processor, where they can be looked at without waiting."""
    weights = passes.scale_weights
    return weights if bool((weights == weights[:1]).all()) else on_device(weights, device)

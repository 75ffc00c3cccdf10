"""Passes: read what they look at, fill batches with them, run the network, each once for all blocks it counts in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice, product, takewhile
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.inference.source import PixelSource
from foveate.inference.stitch import Stitcher
from foveate.looks.passes import Begun, BlockArea, Foveation, Passes, Planner, begun_in
from foveate.patches.extraction import Region, Windows, extract_patches, on_device, region_downsample, region_window
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
    """

    window: Window
    groups: list[PassGroup]
    begun: Begun
    area: BlockArea | None = None


def prepare_block(
    block: Window,
    planner: Planner,
    foveation: Foveation,
    source: PixelSource,
    scales: ScaleSet,
    area: BlockArea | None = None,
) -> PreparedBlock:
    """Plan a block and read its regions: each pixel once per scale in use, however many patches share it.

    Passes that meet no pixel of the block that is looked at (`area`, None for everything) are left out.
    """
    planned = planner.passes(block, foveation)
    kept = planned if area is None else [passes.select(area.meets(passes.supports)) for passes in planned]
    groups = [PassGroup(passes, read_regions(passes, source, scales)) for passes in kept]
    return PreparedBlock(block, groups, begun_in(planned, block, area), area)


def read_regions(passes: Passes, source: PixelSource, scales: ScaleSet) -> dict[int, Region]:
    """The part of the image that the passes look at, by the scales they use."""
    used = [scale for scale in range(len(scales)) if bool((passes.scale_weights[:, scale] > 0).any())]
    return {scale: _read_region(passes, scale, source, scales) for scale in used}


def patch_windows(supports: Windows, side: int) -> Windows:
    """The windows of this side around the centres of the supports."""
    shift = (supports.side - side) // 2
    return Windows(supports.top + shift, supports.left + shift, side)


def mixed_patches(passes: Passes, regions: dict[int, Region], scales: ScaleSet) -> Tensor:
    """The input of each pass, (N, C, P, P) in the file's range: its scales' patches times their weights."""
    mixed: Tensor | None = None
    for scale, region in regions.items():
        weights = passes.scale_weights[:, scale]
        rows = torch.nonzero(weights > 0)[:, 0]
        if len(rows) == 0:
            continue
        tops, lefts, side = patch_windows(passes.supports, scales.fields_of_view[scale])
        device = region.pixels.device
        patches = extract_patches(region, Windows(tops[rows], lefts[rows], side), scales.patch_size)
        if len(rows) == len(passes) and bool((weights == 1).all()):
            return patches  # there is nothing to mix
        if mixed is None:
            mixed = patches.new_zeros(len(passes), *patches.shape[1:], dtype=torch.float32)
        mixed.index_add_(0, on_device(rows, device), patches * on_device(weights[rows], device).view(-1, 1, 1, 1))
    assert mixed is not None  # every pass looks at some scale
    return mixed


def _read_region(passes: Passes, scale: int, source: PixelSource, scales: ScaleSet) -> Region:
    rows = passes.scale_weights[:, scale] > 0
    tops, lefts, side = patch_windows(passes.supports, scales.fields_of_view[scale])
    downsample = region_downsample(scales.downsample(scale))
    window = region_window(Windows(tops[rows], lefts[rows], side), downsample)
    size = Size(window.height // downsample, window.width // downsample)
    return Region(source.read(window, size), window.top // downsample, window.left // downsample, downsample)


# Predictions are brought to the image's resolution for so many pixels at a time: a wide support has many. Few stay in a
# processor's cache; a device has work for a moment.
_PIXELS_AT_ONCE = {"cpu": 2**18}
_PIXELS_ON_DEVICE = 2**23


def pixels_at_once(device: torch.device) -> int:
    """Pixels of a class that are brought to the image's resolution at a time."""
    return _PIXELS_AT_ONCE.get(device.type, _PIXELS_ON_DEVICE)


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
    def __call__(self, inputs: Tensor, scale_weights: Tensor) -> Tensor:
        """The network's logits (n, C, P', P') on inputs (n, C_in, P, P) in the file's range, at most a batch.

        The inputs were mixed by scale weights (n, S). Every forward pass has the shape of a whole batch, filled up with
        zeros: kernels are chosen once, and a patch's result does not depend on how many others were left.
        """
        count, filled = len(inputs), self.filled(inputs)
        missing = len(filled) - count
        weights = torch.cat([scale_weights, scale_weights[-1:].expand(missing, -1)]) if missing else scale_weights
        with torch.autocast(filled.device.type, torch.bfloat16, enabled=self._config.precision == "bf16"):
            outputs = self._seen(filled, on_device(weights, filled.device))[:count]
        if outputs.untyped_storage().data_ptr() == filled.untyped_storage().data_ptr():
            self._inputs = None  # a network that gives back what it is given keeps that
        return outputs

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
    def filled(self, inputs: Tensor) -> Tensor:
        """Inputs in the network's range, filled up with zeros to a whole batch; valid until the next call."""
        size = max(len(inputs), self._config.batch_size)
        shape = (size, *inputs.shape[1:])
        if self._inputs is None or self._inputs.shape != shape or self._inputs.device != inputs.device:
            order = torch.contiguous_format if inputs.device.type == "cpu" else torch.channels_last
            self._inputs = torch.empty(shape, device=inputs.device, memory_format=order)
        self._source.normalised(inputs, out=self._inputs[: len(inputs)])
        self._inputs[len(inputs) :] = 0
        return self._inputs


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
    side = passes.supports.side
    rows = max(1, pixels_at_once(output.device) // side**2)
    for start in range(0, len(passes), rows):
        part = slice(start, start + rows)
        few = passes.select(part)
        logits = segmenter.over_supports(output[part], _weights_for(few, output.device), side).float()
        stitcher.add(few, segmenter.membership.probabilities(logits) if by_probability else logits, pixel_weights)


def _weights_for(passes: Passes, device: torch.device) -> Tensor:
    """The scale weights; of passes of one scale on the processor, where they can be looked at without waiting."""
    weights = passes.scale_weights
    return weights if bool((weights == weights[:1]).all()) else on_device(weights, device)


# Number of the look, top and left of its support.
_Key: TypeAlias = tuple[int, int, int]


class SharedPasses:
    """Makes the passes of blocks that follow one another.

    What reaches beyond its block is kept for the blocks that come later, as long as there is room, and the places that
    are left in a block's last batch are taken by passes of the next one. A pass has the same bits whatever else is in
    its batch, so neither changes a result: what was not kept is made again.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        config: of inference.
    """

    def __init__(self, segmenter: FoveatedSegmenter, source: PixelSource, config: InferenceConfig) -> None:
        self._segmenter, self._source, self._config = segmenter, source, config
        self._run = Runner(segmenter, source, config)
        self._fresh: dict[_Key, _Output] = {}  # of the last batch
        self._kept = _Kept(config.block_size)

    def outputs(
        self, block: PreparedBlock, ahead: Callable[[], PreparedBlock | None]
    ) -> Iterator[tuple[Passes, Tensor]]:
        """A block's passes in their order, some at a time, and the network's logits (n, C, P', P') over their windows.

        Args:
            block: the block.
            ahead: gives the next one, or None; asked when a batch has places left.
        """
        passes, number = _passes(block), 0
        while number < len(passes):
            if not self._knows(passes[number].key):
                self._make(self._batch(passes, number, ahead))
            some = self._known_from(passes, number)
            outputs = _joined([self._take(one.key) for one in some])
            yield some[0].group.passes.select(slice(some[0].row, some[-1].row + 1)), outputs
            for one, output in zip(some, outputs, strict=True):
                if self._counts_later(one, block.window):
                    self._kept.put(one.key, output)
            number += len(some)

    def _known_from(self, passes: list[_Pass], number: int) -> list[_Pass]:
        """The passes of one group, from a number on, that are made already; not too many."""
        first = passes[number]
        most = max(1, pixels_at_once(self._source.device) // first.group.passes.supports.side**2)
        some = islice(passes, number, number + most)
        return list(takewhile(lambda one: one.group is first.group and self._knows(one.key), some))

    def _take(self, key: _Key) -> _Output:
        output = self._fresh.pop(key, None)
        return _Output(self._kept.pop(key)[None], 0) if output is None else output

    def _knows(self, key: _Key) -> bool:
        return key in self._fresh or key in self._kept

    def _batch(self, passes: list[_Pass], number: int, ahead: Callable[[], PreparedBlock | None]) -> list[_Pass]:
        """What to make next: this pass of a block and those after it that are not known, then those of the next."""
        size = self._config.batch_size
        batch = list(islice(self._unknown(islice(passes, number, None)), size))
        if len(batch) < size and (following := ahead()) is not None:
            mine = {one.key for one in passes}
            others = (one for one in self._unknown(_passes(following)) if one.key not in mine)
            batch += islice(others, size - len(batch))
        return batch

    def _unknown(self, passes: Iterable[_Pass]) -> Iterator[_Pass]:
        return (one for one in passes if not self._knows(one.key))

    def _make(self, batch: list[_Pass]) -> None:
        parts, inputs = [], []
        for _, same in groupby(batch, lambda one: id(one.group)):
            ones = list(same)
            parts.append(ones[0].group.passes.select(torch.tensor([one.row for one in ones])))
            inputs.append(mixed_patches(parts[-1], ones[0].group.regions, self._segmenter.scales))
        patches = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
        scale_weights = torch.cat([part.scale_weights for part in parts])
        outputs = self._run(patches, scale_weights)
        self._fresh.update({one.key: _Output(outputs, row) for row, one in enumerate(batch)})

    def _counts_later(self, one: _Pass, block: Window) -> bool:
        """Whether a pass counts in blocks to the right or below."""
        (_, top, left), side, size = one.key, one.group.passes.supports.side, self._source.size
        return min(top + side, size.height) > block.bottom or min(left + side, size.width) > block.right


class _Pass(NamedTuple):
    """One row of a group."""

    key: _Key
    group: PassGroup
    row: int


class _Output(NamedTuple):
    """What the network said of a pass: a row of its batch (n, C, P', P')."""

    batch: Tensor
    row: int


def _joined(outputs: list[_Output]) -> Tensor:
    """Outputs as one tensor, which is not copied where they follow one another in a batch."""
    (batch, start), end = outputs[0], outputs[0].row + len(outputs)
    if all(one.batch is batch and one.row == row for one, row in zip(outputs, range(start, end), strict=True)):
        return batch[start:end]
    return torch.stack([one.batch[one.row] for one in outputs])


class _Kept:
    """Copies of outputs by pass, at most as large as the sums of one block; the oldest are forgotten first."""

    def __init__(self, side: int) -> None:
        self._block, self._pixels = side**2, 0
        self._outputs: OrderedDict[_Key, Tensor] = OrderedDict()

    def __contains__(self, key: _Key) -> bool:
        return key in self._outputs

    def put(self, key: _Key, output: Tensor) -> None:
        """Keep a copy of (C, P', P'): as a part of its batch it would keep all of that."""
        self._outputs[key] = output.clone()
        self._pixels += output[0].numel()
        while self._pixels > self._block:
            self._pixels -= self._outputs.popitem(last=False)[1][0].numel()

    def pop(self, key: _Key) -> Tensor:
        output = self._outputs.pop(key)
        self._pixels -= output[0].numel()
        return output


def blocks_abreast(side: int, stride: int, patch_size: int, looks: int) -> int:
    """How many blocks in a row can keep what reaches below them, beside what reaches to the right of the last one.

    Args:
        side: of the blocks.
        stride: between passes.
        patch_size: side of an output.
        looks: passes of each target.
    """
    return max(1, side * stride // (patch_size**2 * looks) - 2)


def _passes(block: PreparedBlock) -> list[_Pass]:
    return [
        _Pass((look, top, left), group, row)
        for look, group in enumerate(block.groups)
        for row, (top, left) in enumerate(
            zip(group.passes.supports.top.tolist(), group.passes.supports.left.tolist(), strict=True)
        )
    ]

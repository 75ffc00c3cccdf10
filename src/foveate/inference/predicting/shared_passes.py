"""Passes in full batches, each made once for all the blocks that it counts in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from foveate.geometry import Window
from foveate.inference.config import InferenceConfig
from foveate.inference.planning.plan import Passes
from foveate.inference.predicting.pixels import PixelSource
from foveate.inference.predicting.predict_block import network_outputs
from foveate.inference.predicting.prepare import PassGroup, PreparedBlock, mixed_patches
from foveate.segmenter import FoveatedSegmenter

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
        self._fresh: dict[_Key, Tensor] = {}  # of the last batch
        self._kept = _Kept(config.block_size)

    def outputs(
        self, block: PreparedBlock, ahead: Callable[[], PreparedBlock | None]
    ) -> Iterator[tuple[Passes, Tensor]]:
        """A block's passes one by one, and the network's logits (1, C, P', P') over the window of each.

        Args:
            block: the block.
            ahead: gives the next one, or None; asked when a batch has places left.
        """
        passes = _passes(block)
        for number, one in enumerate(passes):
            if not self._knows(one.key):
                self._make(self._batch(passes, number, ahead))
            output = self._fresh.pop(one.key, None)
            output = self._kept.pop(one.key) if output is None else output
            yield one.group.passes.select(slice(one.row, one.row + 1)), output[None]
            if self._counts_later(one, block.window):
                self._kept.put(one.key, output)

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
        outputs = network_outputs(patches, scale_weights, self._segmenter, self._source, self._config)
        self._fresh.update(zip((one.key for one in batch), outputs, strict=True))

    def _counts_later(self, one: _Pass, block: Window) -> bool:
        """Whether a pass counts in blocks to the right or below."""
        (_, top, left), side, size = one.key, one.group.passes.supports.side, self._source.size
        return min(top + side, size.height) > block.bottom or min(left + side, size.width) > block.right


class _Pass(NamedTuple):
    """One row of a group."""

    key: _Key
    group: PassGroup
    row: int


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

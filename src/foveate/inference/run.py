"""Walk over the blocks of an image: read ahead, predict, hand each finished block on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.geometry import Window
from foveate.inference.blocks import BlockGrid
from foveate.inference.config import InferenceConfig
from foveate.inference.foveation_field import FoveationField, TileObserver
from foveate.inference.per_target import PerTarget
from foveate.inference.pixels import PixelSource
from foveate.inference.predict_block import predict_block
from foveate.inference.prepare import PreparedBlock, prepare_block
from foveate.segmenter import FoveatedSegmenter

ReadyBlocks = Iterator[PreparedBlock]


class FinishedBlock(NamedTuple):
    """A block's result.

    Attributes:
        window: the block, level-0 pixels.
        logits: (C, h, w).
        passes: patches that went through the network for it.
    """

    window: Window
    logits: Tensor
    passes: int


def finished_blocks(
    segmenter: FoveatedSegmenter,
    source: PixelSource,
    config: InferenceConfig,
    *,
    blocks: Iterable[Window] | None = None,
    on_tile: TileObserver | None = None,
) -> Iterator[FinishedBlock]:
    """Predict an image block by block; memory is bounded by the block, not by the image.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        config: block size, overlap, blending, batch size, precision.
        blocks: which blocks, in which order; all of them, row by row, by default.
        on_tile: receives the policy's logits tile by tile as they are computed.
    """
    if blocks is None:
        blocks = BlockGrid(source.size, config.block_size)
    field = FoveationField(segmenter, source, on_tile)
    planner = PerTarget(source.size, segmenter.scales.target, config.overlap, segmenter.estimator)

    def prepare(block: Window) -> PreparedBlock:
        return prepare_block(block, planner, field, source, segmenter.scales)

    for ready in _ahead(prepare, blocks):
        logits = predict_block(ready, segmenter, source, config)
        yield FinishedBlock(ready.window, logits, sum(len(passes) for passes, _ in ready.groups))


def _ahead(prepare: Callable[[Window], PreparedBlock], blocks: Iterable[Window]) -> ReadyBlocks:
    """Prepare the next block in a thread (readers and torch release the lock) while the present one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        waiting = None
        for block in blocks:
            following = pool.submit(prepare, block)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def ready_to_predict(segmenter: FoveatedSegmenter, device: torch.device) -> FoveatedSegmenter:
    """The segmenter in eval mode on a device, in the memory layout in which convolutions are fastest."""
    segmenter = segmenter.eval().to(device)
    return segmenter.to(memory_format=torch.channels_last)

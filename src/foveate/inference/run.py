"""Walk over the blocks of an image: read ahead, predict, hand each finished block on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import torch

from foveate.geometry import Window
from foveate.inference.blocks import BlockGrid, block_side
from foveate.inference.config import InferenceConfig
from foveate.inference.foveation_field import FoveationField, TileObserver
from foveate.inference.pixels import PixelSource
from foveate.inference.predict_pyramid import PyramidPredictor
from foveate.inference.predict_targets import TargetPredictor
from foveate.inference.predictor import BlockPredictor, FinishedBlock
from foveate.inference.pyramid import root_side
from foveate.segmenter import FoveatedSegmenter


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
        config: planner, block size, overlap, blending, batch size, precision.
        blocks: which blocks, in which order; all of them, row by row, by default.
        on_tile: receives the policy's logits tile by tile as they are computed.

    Raises:
        ConfigError: when the planner does not fit the fields of view, or the budget is below the least possible.
    """
    if blocks is None:
        side = block_side(config.block_size, 1, root_side(config, segmenter.views_passed))
        blocks = BlockGrid(source.size, side)
    field = FoveationField(segmenter, source, on_tile)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reading:
        predictor = _predictor(segmenter, source, config, field, reading)

        def prepare(block: Window) -> Any:
            field.cover(block)
            return predictor.prepare(block)

        for ready in _ahead(prepare, blocks, reading):
            yield predictor.predict(ready)


def _predictor(
    segmenter: FoveatedSegmenter,
    source: PixelSource,
    config: InferenceConfig,
    field: FoveationField,
    reading: Executor,
) -> BlockPredictor[Any]:
    if config.planner == "pyramid":
        return PyramidPredictor(segmenter, source, config, field, reading)
    return TargetPredictor(segmenter, source, config, field)


def _ahead(prepare: Callable[[Window], Any], blocks: Iterable[Window], reading: Executor) -> Iterator[Any]:
    """Prepare the next block in a thread (readers and torch release the lock) while the present one is predicted."""
    waiting = None
    for block in blocks:
        following = reading.submit(prepare, block)
        if waiting is not None:
            yield waiting.result()
        waiting = following
    if waiting is not None:
        yield waiting.result()


def ready_to_predict(segmenter: FoveatedSegmenter, device: torch.device) -> FoveatedSegmenter:
    """The segmenter in eval mode on a device, in the memory layout in which convolutions are fastest."""
    segmenter = segmenter.eval().to(device)
    return segmenter.to(memory_format=torch.channels_last)

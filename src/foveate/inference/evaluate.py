"""Evaluate a segmenter on labelled images, whole and block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchmetrics import Metric

from foveate.data.labels import LabelReader
from foveate.geometry import Window
from foveate.inference.blocks import BlockGrid
from foveate.inference.class_ids import class_ids
from foveate.inference.config import InferenceConfig
from foveate.inference.cost import CostMeter
from foveate.inference.pixels import PixelSource
from foveate.inference.run import finished_blocks, ready_to_predict
from foveate.metrics.confusion import confusion_matrix
from foveate.metrics.scores import Scores, scores_from
from foveate.segmenter import FoveatedSegmenter
from foveate.types import LabelArray


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of evaluating some images.

    Attributes:
        scores: accuracy over all their labelled pixels.
        cost: passes, seconds and memory, over the blocks that hold a labelled pixel.
        images: number of images.
    """

    scores: Scores
    cost: dict[str, float | int]
    images: int

    def tree(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self.scores.tree(), **self.cost, "images": self.images}


class Evaluator:
    """Adds up the confusion matrix over images.

    Args:
        segmenter: put into eval mode and onto `device`.
        class_names: in the order of the class ids.
        ignore_index: label value that is not counted.
        config: of inference.
        device: to run on.
    """

    def __init__(
        self,
        segmenter: FoveatedSegmenter,
        class_names: list[str],
        ignore_index: int,
        config: InferenceConfig,
        device: torch.device,
    ) -> None:
        self._segmenter = ready_to_predict(segmenter, device)
        self._names = class_names
        self._ignore = ignore_index
        self._config = config
        self._matrix: Metric = confusion_matrix(len(class_names), ignore_index)
        self._cost = CostMeter()
        self._images = 0

    def add(self, source: PixelSource, labels: LabelReader, on_pixels: Callable[[int], None] | None = None) -> None:
        """Predict an image and count its labelled pixels; blocks without any are left out.

        Args:
            source: the image.
            labels: its labels, of the same size.
            on_pixels: told the number of pixels done after each block.
        """
        waiting: dict[Window, LabelArray] = {}
        blocks = self._labelled_blocks(BlockGrid(source.size, self._config.block_size), labels, waiting)
        for done in finished_blocks(self._segmenter, source, self._config, blocks=blocks):
            truth = torch.from_numpy(waiting.pop(done.window).astype(np.int64))
            self._matrix.update(class_ids(done.logits).long().cpu()[None], truth[None])
            self._cost.add(done.passes, done.window.size.pixels)
            if on_pixels is not None:
                on_pixels(done.window.size.pixels)
        self._images += 1

    def result(self) -> Evaluation:
        """Scores and cost of everything added so far."""
        return Evaluation(scores_from(self._matrix.compute(), self._names), self._cost.tree(), self._images)

    def _labelled_blocks(
        self, grid: BlockGrid, labels: LabelReader, waiting: dict[Window, LabelArray]
    ) -> Iterator[Window]:
        for block in grid:
            values = labels.read(block)
            if (values != self._ignore).any():
                waiting[block] = values
                yield block

"""What every look says about a labelled image, at evenly spread pixels: all that ways of looking are chosen by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.data.labels import LabelReader
from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.inference.planning.blocks import BlockGrid, block_side
from foveate.inference.planning.pyramid import PyramidGrid, PyramidLook
from foveate.inference.predicting.pixels import PixelSource
from foveate.inference.predicting.run import finished_blocks
from foveate.segmenter import FoveatedSegmenter

IGNORED = 255
_MOST_BYTES = 2**30
_CLOSEST = 4


@dataclass(frozen=True, slots=True)
class SampledImage:
    """An image at n x m pixels of a regular grid.

    Attributes:
        size: of the image.
        rows: (n,) level-0 rows of the grid.
        cols: (m,) level-0 columns.
        labels: (n, m) int64 class ids, 255 where none counts.
        probabilities: of every look made everywhere, (C, n, m), half precision.
    """

    size: Size
    rows: Tensor
    cols: Tensor
    labels: Tensor
    probabilities: dict[PyramidLook, Tensor]

    def inside(self, window: Window) -> tuple[slice, slice]:
        """The rows and columns of the grid inside a window of the image."""
        return _between(self.rows, window.top, window.bottom), _between(self.cols, window.left, window.right)


def sampling_step(sizes: Sequence[Size], classes: int, looks: int) -> int:
    """Pixels between samples: 4, or more where the samples of all images would take more than 1 GiB."""
    numbers = 2 * classes * looks * sum(size.pixels for size in sizes)
    return max(_CLOSEST, math.ceil(math.sqrt(numbers / _MOST_BYTES)))


def sample_labels(labels: LabelReader, size: Size, block_size: int, *, step: int, ignore_index: int) -> SampledImage:
    """The grid of an image and what is labelled there; no look yet.

    Args:
        labels: the mask.
        size: of the image.
        block_size: side of the windows that are read, level-0 pixels.
        step: level-0 pixels between the rows, and columns, of the grid.
        ignore_index: label value that does not count.
    """
    rows, cols = (torch.arange(min(step // 2, side - 1), side, step) for side in (size.height, size.width))
    ids = torch.full((len(rows), len(cols)), IGNORED)
    image = SampledImage(size, rows, cols, ids, {})
    for window in BlockGrid(size, block_size):
        here, there = image.inside(window)
        read = torch.from_numpy(labels.read(window)).long()
        ids[here, there] = read[rows[here] - window.top][:, cols[there] - window.left]
    ids[ids == ignore_index] = IGNORED
    return image


def sample_look(
    segmenter: FoveatedSegmenter,
    source: PixelSource,
    image: SampledImage,
    look: PyramidLook,
    config: InferenceConfig,
    classes: int,
) -> Tensor:
    """Look at an image in one way everywhere, and keep the predictions at its grid.

    Blocks without a label at the grid are left out.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        image: its grid.
        look: field of view, and the part of its windows that is kept.
        config: of inference; its planner, looks and budget are replaced.
        classes: number of classes C.

    Returns:
        Probabilities (C, n, m), half precision; zeros in blocks that were left out.
    """
    alone = config.model_copy(update={"planner": "pyramid", "looks": (look,), "budget": "all", "fusion": (1.0,)})
    found = torch.zeros(classes, *image.labels.shape, dtype=torch.float16)
    for done in finished_blocks(segmenter, source, alone, blocks=_labelled_blocks(image, look, config)):
        here, there = image.inside(done.window)
        assert done.logits is not None  # all of the image is looked at
        picked = done.logits[:, image.rows[here] - done.window.top][:, :, image.cols[there] - done.window.left]
        found[:, here, there] = picked.softmax(dim=0).half().cpu()
    return found


def _labelled_blocks(image: SampledImage, look: PyramidLook, config: InferenceConfig) -> Iterator[Window]:
    side = block_side(config.block_size, 1, PyramidGrid.of(image.size, [look]).sides[-1])
    for window in BlockGrid(image.size, side):
        if bool((image.labels[image.inside(window)] != IGNORED).any()):
            yield window


def _between(positions: Tensor, start: int, stop: int) -> slice:
    """The part of ascending positions (n,) in [start, stop)."""
    return slice(*torch.searchsorted(positions, torch.tensor([start, stop])).tolist())

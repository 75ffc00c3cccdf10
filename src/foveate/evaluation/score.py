"""Score the blocks of one labelled image."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import torch

from foveate.data import Area, LabelReader
from foveate.devices import PeakMemory
from foveate.geometry import ByteArray, FloatArray, IntArray, LabelArray, Size, Window, ceil_div
from foveate.inference import InferenceConfig, PixelSource
from foveate.inference.block import FinishedBlock, pass_bytes
from foveate.inference.field import scale_probabilities
from foveate.inference.pipeline import finished_blocks
from foveate.inference.plan import block_side
from foveate.looks.pyramid import per_cell
from foveate.membership import Membership
from foveate.metrics import confusion_matrix, iou_per_cell, loss_per_cell
from foveate.segmenter import FoveatedSegmenter

LONGEST_GRID = 2048


@dataclass(frozen=True, slots=True)
class Scoring:
    """What is measured, and how.

    Attributes:
        inference: how images are walked through.
        class_names: in the order of the class ids.
        membership: how classes are read off scores and labels.
        cell: side of a cell of the overview grid, level-0 pixels.
        root: side of the widest supports of the planner, 1 where there are none.
        maps: whether loss, IoU and scale probabilities are wanted per cell.
        hausdorff: whether the distances of boundaries are wanted.
    """

    inference: InferenceConfig
    class_names: tuple[str, ...]
    membership: Membership
    cell: int
    root: int = 1
    maps: bool = False
    hausdorff: bool = False

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def block_side(self) -> int:
        """Side of the blocks, such that no cell lies in two."""
        return block_side(self.inference.block_size, self.cell, self.root)

    @property
    def thins(self) -> bool:
        """Whether class ids are kept on a coarse grid."""
        return self.maps or self.hausdorff


class CellMaps(NamedTuple):
    """Values (h, w) of the cells of a block, NaN where no pixel is labelled.

    Attributes:
        loss: mean cross entropy.
        iou: mean IoU over the classes in the cell's labels or prediction.
    """

    loss: FloatArray
    iou: FloatArray


class ThinnedIds(NamedTuple):
    """Class ids (h, w) at the pixels of a block whose row and column in the image are multiples of a step."""

    prediction: LabelArray
    labels: LabelArray


class BlockScore(NamedTuple):
    """What is known about a block; where nothing is labelled, nothing was predicted and all but the window is empty.

    Attributes:
        window: the block, level-0 pixels.
        counts: (C, C) pixels, rows = label, columns = prediction, of overlapping classes (C, 2, 2), no and yes of
            each; None where nothing is labelled.
        passes: patches that went through the network.
        pixels: that were looked at.
        peak: memory of the process that worked on it.
        cells: maps, where wanted.
        ids: coarse class ids, where wanted.
        plan: (L, rows, cols) passes as bytes, see `PassMap.shares`, where maps are wanted.
        tiles: windows in cells, and the scales' probabilities (S, h, w) there, as the policy gave them so far, or of
            the block as it was looked at.
    """

    window: Window
    counts: IntArray | None = None
    passes: int = 0
    pixels: int = 0
    peak: PeakMemory | None = None
    cells: CellMaps | None = None
    ids: ThinnedIds | None = None
    tiles: tuple[tuple[Window, FloatArray], ...] = ()
    plan: ByteArray | None = None


def thinning_step(size: Size) -> int:
    """The step between rows, and columns, of the coarse grid of an image: its longer side is at most 2048."""
    return ceil_div(max(size.height, size.width), LONGEST_GRID)


def score_blocks(
    segmenter: FoveatedSegmenter,
    source: PixelSource,
    labels: LabelReader,
    blocks: Iterable[Window],
    scoring: Scoring,
    area: Area | None = None,
) -> Iterator[BlockScore]:
    """Predict and score blocks of an image; those without a labelled pixel are not predicted.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        labels: its labels, of the same size.
        blocks: disjoint windows; their corners are multiples of the cell where maps are wanted.
        scoring: what is measured.
        area: outside which nothing is labelled; None for everything.

    Yields:
        One score for every block, the unlabelled ones among the others.
    """
    waiting: dict[Window, LabelArray] = {}
    unlabelled: list[Window] = []
    tiles = _Tiles(segmenter)

    def labelled() -> Iterator[Window]:
        for block in blocks:
            values = labels.read(block)
            if (values == scoring.membership.ignore_index).all():
                unlabelled.append(block)
            else:
                waiting[block] = values
                yield block

    on_tile = tiles.add if scoring.maps else None
    options: dict[str, Any] = {"area": area, "on_tile": on_tile}
    for done in finished_blocks(segmenter, source, scoring.inference, blocks=labelled(), **options):
        score = _score(done, waiting.pop(done.window), scoring, thinning_step(source.size))
        chosen = tiles.take()
        yield score._replace(tiles=chosen if done.scale_weights is None else _looked_at(done, scoring))
        yield from _emptied(unlabelled)
    yield from _emptied(unlabelled)


def _emptied(unlabelled: list[Window]) -> Iterator[BlockScore]:
    while unlabelled:
        yield BlockScore(unlabelled.pop())


class _Tiles:
    """Tiles of the policy's answer, put in by the thread that reads ahead, taken out by the one that scores."""

    def __init__(self, segmenter: FoveatedSegmenter) -> None:
        self._estimator = segmenter.estimator
        self._queue: SimpleQueue[tuple[Window, FloatArray]] = SimpleQueue()

    def add(self, cells: Window, logits: torch.Tensor) -> None:
        self._queue.put((cells, scale_probabilities(logits, self._estimator).float().numpy()))

    def take(self) -> tuple[tuple[Window, FloatArray], ...]:
        return tuple(self._queue.get() for _ in range(self._queue.qsize()))


def _looked_at(done: FinishedBlock, scoring: Scoring) -> tuple[tuple[Window, FloatArray], ...]:
    """The scales' shares of the cells of a block, as it was looked at, where maps are wanted."""
    if done.scale_weights is None or not scoring.maps:
        return ()
    shares = per_cell(done.scale_weights, scoring.cell)
    place = Window(done.window.top // scoring.cell, done.window.left // scoring.cell, *shares.shape[1:])
    return ((place, shares.numpy()),)


def _score(done: FinishedBlock, labels: LabelArray, scoring: Scoring, step: int) -> BlockScore:
    membership, classes, logits = scoring.membership, scoring.classes, done.predicted()
    prediction = membership.decided(logits).cpu()
    guess, truth = prediction.long(), torch.from_numpy(labels.astype(np.int64))
    matrix = confusion_matrix(classes, membership)
    matrix.update(*(membership.answers(one[None], classes) for one in (guess, truth)))
    return BlockScore(
        done.window,
        matrix.compute().numpy(),
        done.passes,
        done.pixels,
        PeakMemory.of_this_process(),
        _cell_maps(logits, guess, truth, scoring) if scoring.maps else None,
        _thinned(done.window, prediction.numpy(), labels, step) if scoring.thins else None,
        plan=pass_bytes(done.plan) if scoring.maps and done.plan is not None else None,
    )


def _cell_maps(logits: torch.Tensor, guess: torch.Tensor, truth: torch.Tensor, scoring: Scoring) -> CellMaps:
    loss = loss_per_cell(logits, truth.to(logits.device), scoring.cell, scoring.membership)
    iou = iou_per_cell(guess, truth, scoring.cell, scoring.classes, scoring.membership)
    return CellMaps(loss.cpu().numpy(), iou.numpy())


def _thinned(window: Window, prediction: LabelArray, labels: LabelArray, step: int) -> ThinnedIds:
    chosen = np.s_[-window.top % step :: step, -window.left % step :: step]
    return ThinnedIds(prediction[chosen].copy(), labels[chosen].copy())

"""Score the blocks of one labelled image, and write the maps of where it went well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveate.data.area import Area
from foveate.data.labels import LabelReader
from foveate.data.sections import ClassConfig
from foveate.files import refuse_existing
from foveate.geometry import CellGrid, Georeference, Size, Window, ceil_div
from foveate.inference.block import pass_bytes
from foveate.inference.config import InferenceConfig
from foveate.inference.cost import PeakMemory
from foveate.inference.field import scale_probabilities
from foveate.inference.pipeline import finished_blocks
from foveate.inference.plan import block_side
from foveate.inference.predictor import FinishedBlock
from foveate.inference.source import PixelSource
from foveate.looks.passes import PassMap
from foveate.looks.pyramid import per_cell
from foveate.membership import Membership
from foveate.metrics import confusion_matrix, iou_per_cell, loss_per_cell
from foveate.segmenter import FoveatedSegmenter
from foveate.tiff.raster import NODATA, RasterSpec, RasterWriter, open_raster
from foveate.types import FloatArray, IntArray, LabelArray
from foveate.writers.outputs import passes_raster

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
    plan: NDArray[np.uint8] | None = None


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

    def add(self, cells: Window, logits: Tensor) -> None:
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
    assert done.logits is not None  # what is labelled is in the area
    membership, classes = scoring.membership, scoring.classes
    prediction = membership.decided(done.logits).cpu()
    guess, truth = prediction.long(), torch.from_numpy(labels.astype(np.int64))
    matrix = confusion_matrix(classes, membership)
    matrix.update(*(membership.answers(one[None], classes) for one in (guess, truth)))
    return BlockScore(
        done.window,
        matrix.compute().numpy(),
        done.passes,
        done.pixels,
        PeakMemory.of_this_process(),
        _cell_maps(done.logits, guess, truth, scoring) if scoring.maps else None,
        _thinned(done.window, prediction.numpy(), labels, step) if scoring.thins else None,
        plan=pass_bytes(done.plan) if scoring.maps and done.plan is not None else None,
    )


def _cell_maps(logits: Tensor, guess: Tensor, truth: Tensor, scoring: Scoring) -> CellMaps:
    loss = loss_per_cell(logits, truth.to(logits.device), scoring.cell, scoring.membership)
    iou = iou_per_cell(guess, truth, scoring.cell, scoring.classes, scoring.membership)
    return CellMaps(loss.cpu().numpy(), iou.numpy())


def _thinned(window: Window, prediction: LabelArray, labels: LabelArray, step: int) -> ThinnedIds:
    chosen = np.s_[-window.top % step :: step, -window.left % step :: step]
    return ThinnedIds(prediction[chosen].copy(), labels[chosen].copy())


@dataclass(frozen=True, slots=True)
class MapFiles:
    """Where the maps of one image lie.

    Attributes:
        loss: mean cross entropy per cell, float32, NaN where nothing is labelled.
        iou: mean IoU per cell, float32, NaN where nothing is labelled.
        scales: probability of every field of view per cell, a float32 band each, NaN where the policy was not asked.
        passes: which looks were made where, see `PassMap`.
        classes: predicted class ids at every step-th pixel, uint8, with a colour table; of overlapping classes a band
            of 0 and 1 for each, 255 where nothing was predicted.
        preview: picture for people.
    """

    loss: Path
    iou: Path
    scales: Path
    passes: Path
    classes: Path
    preview: Path

    @classmethod
    def in_folder(cls, folder: Path, stem: str) -> MapFiles:
        """The files for an image of this stem."""
        names = ("loss.tif", "iou.tif", "scales.tif", "passes.tif", "classes.tif", "preview.png")
        return cls(*(folder / f"{stem}.{name}" for name in names))

    def refuse_existing(self, overwrite: bool) -> None:
        """Raise `OutputExistsError` before any work if a map is already there."""
        for path in (self.loss, self.iou, self.scales, self.passes, self.classes, self.preview):
            refuse_existing(path, overwrite)


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What the maps of every image have in common.

    Attributes:
        folder: where they go.
        cell: side of a cell, level-0 pixels.
        fields_of_view: of the scales, level-0 pixels.
        classes: names and colours, in the order of the class ids.
        membership: whether the map of classes has ids, or a band of 0 and 1 for each class.
        passes: the grid of the map of passes.
        overwrite: replace existing maps.
    """

    folder: Path
    cell: int
    fields_of_view: Sequence[int]
    classes: Sequence[ClassConfig]
    membership: Membership
    passes: PassMap
    overwrite: bool = False


class MapWriter:
    """Writes what is known about blocks, in any order; made by `open_maps`."""

    def __init__(
        self, loss: RasterWriter, iou: RasterWriter, scales: RasterWriter, passes: RasterWriter, spec: MapSpec
    ) -> None:
        self._loss, self._iou, self._scales, self._passes = loss, iou, scales, passes
        self._cell, self._grid = spec.cell, spec.passes

    def write(self, score: BlockScore) -> None:
        """Write the maps of a block, and the tiles that the policy was asked for meanwhile.

        Raises:
            OutputWriteError: when that fails, for example on a full disk.
        """
        if score.cells is not None:
            place = Window(score.window.top // self._cell, score.window.left // self._cell, *score.cells.loss.shape)
            self._loss.write(place, score.cells.loss)
            self._iou.write(place, score.cells.iou)
        for window, probabilities in score.tiles:
            self._scales.write(window, probabilities)
        pixels = None if score.plan is None else self._grid.pixels_of(score.window)
        if score.plan is not None and pixels is not None:
            self._passes.write(pixels, score.plan)


@contextmanager
def open_maps(name: str, size: Size, place: Georeference | None, spec: MapSpec) -> Iterator[MapWriter]:
    """Open the maps per cell of an image; they stand under their names once the block ends well.

    Args:
        name: stem of the image.
        size: of the image, level-0 pixels.
        place: of the image.
        spec: folder, cell, fields of view.

    Raises:
        OutputExistsError: when a map exists and may not be replaced.
        OutputWriteError: when writing fails.
    """
    files = MapFiles.in_folder(spec.folder, name)
    files.refuse_existing(spec.overwrite)
    grid = CellGrid(size, spec.cell)
    cells, coarse = Size(grid.rows, grid.cols), place.coarser(spec.cell) if place else None
    views = [f"field of view {view}" for view in spec.fields_of_view]

    def opened(path: Path, bands: Sequence[str]) -> AbstractContextManager[RasterWriter]:
        raster = RasterSpec(cells, "float32", coarse, bands=bands, tags={"cell": str(spec.cell)})
        return open_raster(path, raster, overwrite=spec.overwrite)

    with (
        opened(files.loss, ["mean cross entropy"]) as loss,
        opened(files.iou, ["mean IoU"]) as iou,
        opened(files.scales, views) as scales,
        open_raster(files.passes, passes_raster(size, place, None, spec.passes), overwrite=spec.overwrite) as passes,
    ):
        yield MapWriter(loss, iou, scales, passes, spec)


def write_coarse_classes(
    name: str, prediction: LabelArray, step: int, place: Georeference | None, spec: MapSpec
) -> None:
    """Write the predicted classes at every step-th pixel of an image.

    Raises:
        OutputExistsError: when the file exists and may not be replaced.
        OutputWriteError: when writing fails.
    """
    path, size = MapFiles.in_folder(spec.folder, name).classes, Size(*prediction.shape)
    coarse = place.coarser(step) if place else None
    raster = RasterSpec(size, "uint8", coarse, colors=[c.rgb for c in spec.classes], overviews="mode")
    if spec.membership.overlapping:
        unknown, names = prediction == spec.membership.ignore_index, [c.name for c in spec.classes]
        raster = RasterSpec(size, "uint8", coarse, bands=names, nodata=NODATA, overviews="mode")
        prediction = np.stack(spec.membership.planes(prediction, len(names))).astype(np.uint8)
        prediction[:, unknown] = NODATA
    with open_raster(path, raster, overwrite=spec.overwrite) as writer:
        writer.write(Window.of(size), prediction)

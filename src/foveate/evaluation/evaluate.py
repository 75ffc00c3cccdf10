"""Evaluate labelled images from the scores of their blocks, which may come in any order from several processes."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from foveate.devices import CostMeter
from foveate.evaluation.maps import MapSpec, open_maps, write_coarse_classes
from foveate.evaluation.score import BlockScore, Scoring, ThinnedIds, thinning_step
from foveate.files import write_text
from foveate.geometry import Georeference, IntArray, Size, ceil_div
from foveate.inference.plan import BlockGrid
from foveate.metrics import Distances, Scores, hausdorff_distances, mean_distances, scores_from, without_nan
from foveate.texts import counted, percent, sealed, table_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image to evaluate.

    Attributes:
        name: unique among the images.
        size: of level 0.
        place: on the ground, when the file knows it.
    """

    name: str
    size: Size
    place: Georeference | None = None


@dataclass(frozen=True, slots=True)
class ImageScores:
    """The result of one image.

    Attributes:
        name: of the image.
        scores: accuracy over its labelled pixels.
        distances: 95 % Hausdorff distance per class, level-0 pixels, NaN for a class in neither label nor prediction,
            infinite for one in only one of both; None when not wanted.
    """

    name: str
    scores: Scores
    distances: tuple[float, ...] | None = None

    def tree(self) -> dict[str, Any]:
        """Plain values for JSON: the means, and the values of every class by its name."""
        s, names = self.scores, [c.name for c in self.scores.classes]
        tree = {
            "name": self.name,
            "miou": s.miou,
            "mean_dice": s.mean_dice,
            "pixel_accuracy": s.pixel_accuracy,
            "pixels": sum(c.pixels for c in s.classes),
            "iou": {c.name: c.iou for c in s.classes},
        }
        if self.distances is not None:
            named = dict(zip(names, self.distances, strict=True))
            tree["hausdorff_95"] = {name: d if math.isfinite(d) else None for name, d in named.items()}
            tree["hausdorff_undefined"] = [name for name, d in named.items() if math.isinf(d)]
        plain: dict[str, Any] = without_nan(tree)
        return plain


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of evaluating some images.

    Attributes:
        scores: accuracy over all their labelled pixels.
        cost: passes, seconds and memory, over the blocks that hold a labelled pixel.
        images: the scores of each.
        distances: means of the Hausdorff distances; None when not wanted.
    """

    scores: Scores
    cost: dict[str, float | int]
    images: tuple[ImageScores, ...]
    distances: Distances | None = None

    def tree(self) -> dict[str, Any]:
        """Plain values for JSON."""
        tree = {**self.scores.tree(), **self.cost, "images": [image.tree() for image in self.images]}
        return tree if self.distances is None else {**tree, "hausdorff_95": self.distances.tree()}

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the plain values as JSON with a checksum; `OutputExistsError` when the file may not be replaced."""
        write_text(path, sealed(self.tree()), overwrite=overwrite)

    def plot(self) -> "Figure":
        """The IoU of every class, as matplotlib's figure."""
        return scores_figure(self.scores)

    def _repr_html_(self) -> str:
        """The scores of every class, in a notebook."""
        cost = f"{self.cost['passes_per_megapixel']:.0f} passes per megapixel, {self.cost['seconds']:.1f} s"
        return scores_html(self.scores, f"{counted(len(self.images), 'image')}, {cost}")


def evaluation_of(
    images: Sequence[LabelledImage],
    blocks: Iterable[tuple[int, BlockScore]],
    scoring: Scoring,
    *,
    maps: MapSpec | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """Put the scores of all blocks together; the clock runs from the call on.

    Args:
        images: what is evaluated; their order is that of the result.
        blocks: the place of the image in `images` and the score of a block; every block of every image once.
        scoring: how the blocks were scored.
        maps: where to write maps; None for none.
        on_progress: told how much more of the work is done, in shares that add up to 1.

    Raises:
        OutputExistsError: when a map exists and may not be replaced.
        OutputWriteError: when a map could not be written.
    """
    cost, pixels = CostMeter(), sum(image.size.pixels for image in images)
    open_images: dict[int, _OpenImage] = {}
    done: dict[int, tuple[IntArray, tuple[float, ...] | None]] = {}
    with ExitStack() as stack:
        for index, score in blocks:
            if index not in open_images:
                open_images[index] = _OpenImage(images[index], scoring, maps, stack)
            open_images[index].add(score)
            if score.counts is not None:
                cost.add(score.passes, score.pixels, score.peak)
            if on_progress is not None:
                on_progress(score.window.size.pixels / pixels)
            if open_images[index].complete:
                done[index] = open_images.pop(index).finish()
    return _evaluation(images, [done[i] for i in range(len(images))], scoring, cost)


class _OpenImage:
    """An image some of whose blocks are done."""

    def __init__(self, image: LabelledImage, scoring: Scoring, maps: MapSpec | None, outer: ExitStack) -> None:
        self._image, self._scoring, self._maps = image, scoring, maps
        self._missing = len(BlockGrid(image.size, scoring.block_side))
        self._counts = np.zeros(_counts_shape(scoring), np.int64)
        self._step = thinning_step(image.size)
        shape = ceil_div(image.size.height, self._step), ceil_div(image.size.width, self._step)
        nothing = (np.full(shape, scoring.membership.ignore_index, scoring.membership.dtype) for _ in range(2))
        self._ids = ThinnedIds(*nothing) if scoring.thins else None
        # Only the stack is held by the outer one, so that a finished image is forgotten.
        self._files = outer.enter_context(ExitStack())
        opened = None if maps is None else open_maps(image.name, image.size, image.place, maps)
        self._writer = None if opened is None else self._files.enter_context(opened)

    @property
    def complete(self) -> bool:
        """Whether all blocks are there."""
        return self._missing == 0

    def add(self, score: BlockScore) -> None:
        """Count a block."""
        self._missing -= 1
        if score.counts is not None:
            self._counts += score.counts
        if self._writer is not None:
            self._writer.write(score)
        if self._ids is not None and score.ids is not None:
            top, left = (ceil_div(start, self._step) for start in (score.window.top, score.window.left))
            for whole, part in zip(self._ids, score.ids, strict=True):
                whole[top : top + part.shape[0], left : left + part.shape[1]] = part

    def finish(self) -> tuple[IntArray, tuple[float, ...] | None]:
        """Close the maps; the counts (C, C), and the distance of every class where wanted."""
        self._files.close()
        distances = None
        if self._ids is not None and self._maps is not None:
            write_coarse_classes(self._image.name, self._ids.prediction, self._step, self._image.place, self._maps)
        if self._ids is not None and self._scoring.hausdorff:
            prediction, labels = map(torch.from_numpy, self._ids)
            arguments = (self._scoring.classes, self._scoring.membership, self._step)
            distances = tuple(hausdorff_distances(prediction, labels, *arguments))
        return self._counts, distances


def _counts_shape(scoring: Scoring) -> tuple[int, ...]:
    """Of `BlockScore.counts`."""
    return (scoring.classes, 2, 2) if scoring.membership.overlapping else (scoring.classes, scoring.classes)


def _evaluation(
    images: Sequence[LabelledImage],
    results: Sequence[tuple[IntArray, tuple[float, ...] | None]],
    scoring: Scoring,
    cost: CostMeter,
) -> Evaluation:
    names = list(scoring.class_names)
    total = sum((counts for counts, _ in results), np.zeros(_counts_shape(scoring), np.int64))
    each = [
        ImageScores(image.name, scores_from(torch.from_numpy(counts), names), distances)
        for image, (counts, distances) in zip(images, results, strict=True)
    ]
    distances = None
    if scoring.hausdorff:
        step = max(thinning_step(image.size) for image in images)
        distances = mean_distances([image.distances or () for image in each], names, step)
    return Evaluation(scores_from(torch.from_numpy(total), names), cost.tree(), tuple(each), distances)


_BLUE, _GREY = "#0072b2", "#8a929c"


def scores_html(scores: Scores, caption: str = "") -> str:
    """Scores per class in percent, and their means, as an HTML table."""
    header = ("class", "IoU %", "Dice %", "precision %", "recall %", "pixels")
    rows = [
        (c.name, *(percent(value) for value in (c.iou, c.dice, c.precision, c.recall)), f"{c.pixels:,}")
        for c in scores.classes
    ]
    mean = ("mean", percent(scores.miou), percent(scores.mean_dice), "", "", "")
    return table_html(header, [*rows, mean], caption)


def scores_figure(scores: Scores) -> "Figure":
    """The IoU of every class as bars, and their mean as a line; a class without a labelled pixel has no bar."""
    # Slow to import, and nothing else here needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    names = [c.name for c in scores.classes]
    figure = Figure(figsize=(6, 1 + 0.3 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    values = [0.0 if math.isnan(c.iou) else 100 * c.iou for c in scores.classes]
    axes.barh(range(len(names)), values, color=_BLUE)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("IoU, %")
    if not math.isnan(scores.miou):
        axes.axvline(100 * scores.miou, color=_GREY, linestyle="--")
        axes.set_title(f"mIoU {percent(scores.miou)} %", loc="left")
    return figure

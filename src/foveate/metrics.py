"""Scores from a confusion matrix or of a grid's cells, Hausdorff distances, and whether two methods really differ."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from foveate.geometry import BoolArray, ceil_div
from foveate.membership import Membership

if TYPE_CHECKING:
    from torchmetrics import Metric

PERCENTILE = 95  # of the boundary's distances


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of one class, each in [0, 1], or NaN for a class without a labelled pixel."""

    name: str  # the class
    iou: float  # intersection over union
    dice: float  # twice the intersection over the sum of both
    precision: float  # share of the predicted pixels that are right; NaN when none is predicted
    recall: float  # share of the labelled pixels that are found
    pixels: int  # labelled pixels


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a data set."""

    miou: float  # mean intersection over union of the classes that have a labelled pixel
    mean_dice: float  # mean Dice of the same classes
    pixel_accuracy: float  # share of labelled pixels that are right; of overlapping classes of all their yes and no
    absent: tuple[str, ...]  # classes without a labelled pixel, left out of the means
    classes: tuple[ClassScores, ...]  # scores per class, in the order of the class ids

    def tree(self) -> dict[str, Any]:
        """Plain values for JSON, where NaN is null."""
        return dict(without_nan(asdict(self)))


def scores_from(matrix: torch.Tensor, names: list[str]) -> Scores:
    """Scores from counts (C, C), rows = label, columns = prediction; of overlapping classes (C, 2, 2), each its own.

    A class without a labelled pixel in the evaluated data is left out of the means (its false positives still lower
    the other classes' recall).
    """
    counts = matrix.double().cpu()
    each = counts.dim() == 3
    hit = counts[:, 1, 1] if each else counts.diagonal()
    labelled, predicted = (counts[:, 1].sum(1), counts[:, :, 1].sum(1)) if each else (counts.sum(1), counts.sum(0))
    right = counts.diagonal(dim1=-2, dim2=-1).sum()
    classes = tuple(
        _class_scores(name, float(hit[i]), float(labelled[i]), float(predicted[i])) for i, name in enumerate(names)
    )
    present = [c for c in classes if c.pixels > 0]
    return Scores(
        miou=mean_of([c.iou for c in present]),
        mean_dice=mean_of([c.dice for c in present]),
        pixel_accuracy=_ratio(float(right), float(counts.sum())),
        absent=tuple(c.name for c in classes if c.pixels == 0),
        classes=classes,
    )


def _class_scores(name: str, hit: float, labelled: float, predicted: float) -> ClassScores:
    if labelled == 0:
        return ClassScores(name, math.nan, math.nan, math.nan, math.nan, 0)
    return ClassScores(
        name=name,
        iou=_ratio(hit, labelled + predicted - hit),
        dice=_ratio(2 * hit, labelled + predicted),
        precision=_ratio(hit, predicted),
        recall=_ratio(hit, labelled),
        pixels=int(labelled),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def mean_of(values: list[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def without_nan(value: Any) -> Any:
    """Plain values with None, null in JSON, in place of every NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def confusion_matrix(classes: int, membership: Membership) -> "Metric":
    """A metric whose state is the (C, C) count of pixels, rows = label, columns = prediction.

    Of overlapping classes it is (C, 2, 2), the no and yes of each. `update(prediction, label)` adds pixels, given as
    `Membership.answers`; `compute()` gives the counts; it adds up over devices by itself.
    """
    # Slow to load, and scores alone need none of it.
    from torchmetrics import classification as kinds  # noqa: PLC0415

    kind = kinds.MultilabelConfusionMatrix if membership.overlapping else kinds.MulticlassConfusionMatrix
    ignored = None if 0 <= membership.ignore_index < classes else membership.ignore_index
    return kind(classes, ignore_index=ignored, validate_args=False)


def permutation_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Exact two-sided permutation test of equal means.

    Args:
        first: one value per seed; at most about ten, as all ways to split the values are tried.
        second: the same of the other method.

    Returns:
        Share of the ways to split all values into two groups of these sizes whose means differ at least as much, in
        (0, 1]. Three seeds against three can reach 0.1, two against two only 1/3, one against one nothing.

    Source: Fisher 1935; Pitman 1937.
    """
    values = [*first, *second]
    observed = abs(mean(first) - mean(second))
    rounding = 1e-12 * max(1.0, *map(abs, values))
    splits = list(combinations(range(len(values)), len(first)))
    total = sum(values)
    as_far = 0
    for split in splits:
        part = sum(values[i] for i in split)
        rest = (total - part) / len(second)
        as_far += abs(part / len(first) - rest) >= observed - rounding
    return as_far / len(splits)


def loss_per_cell(logits: torch.Tensor, labels: torch.Tensor, cell: int, membership: Membership) -> torch.Tensor:
    """Mean cross entropy of the labelled pixels of every cell.

    Args:
        logits: (C, H, W) logits or log-probabilities.
        labels: (H, W).
        cell: side of a cell in pixels; cells start at the upper left corner and are cut off at the other borders.
        membership: how logits and labels are read; of overlapping classes the mean over their yes or no is taken.

    Returns:
        (ceil(H / cell), ceil(W / cell)) float, NaN where no pixel is labelled.
    """
    answers = membership.answers(labels[None], len(logits))
    losses = pixel_losses(logits[None].float(), answers, membership)[0]
    return _cell_sums(losses, cell) / _cell_sums((labels != membership.ignore_index).float(), cell)


def pixel_losses(
    logits: torch.Tensor, answers: torch.Tensor, membership: Membership, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross entropy (N, H, W) of each pixel, 0 where it is not counted; of overlapping classes the mean over them.

    Args:
        logits: (N, C, H, W), float32.
        answers: of the labels, see `Membership.answers`.
        membership: how they are read.
        class_weights: (C,) factors on the loss of a class.
    """
    ignored = membership.ignore_index
    if not membership.overlapping:
        return torch.nn.functional.cross_entropy(logits, answers, class_weights, ignore_index=ignored, reduction="none")
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, answers.clamp(min=0).float(), reduction="none"
    )
    if class_weights is not None:
        losses = losses * class_weights.view(-1, 1, 1)
    return losses.mean(dim=1) * (answers[:, 0] != ignored)


def iou_per_cell(
    prediction: torch.Tensor, labels: torch.Tensor, cell: int, classes: int, membership: Membership
) -> torch.Tensor:
    """Mean IoU of every cell over the classes that its labels or its prediction hold.

    Args:
        prediction: (H, W) labels as `Membership.decided` gives them.
        labels: (H, W).
        cell: side of a cell in pixels, as for `loss_per_cell`.
        classes: number of classes.
        membership: how labels are read.

    Returns:
        (ceil(H / cell), ceil(W / cell)) float in [0, 1], NaN where no pixel is labelled.
    """
    rows, cols = (ceil_div(length, cell) for length in labels.shape)
    cell_rows = torch.arange(labels.shape[0], device=labels.device) // cell
    cell_cols = torch.arange(labels.shape[1], device=labels.device) // cell
    counted = labels != membership.ignore_index
    cells = (cell_rows[:, None] * cols + cell_cols)[counted]
    pairs = zip(
        membership.planes(labels[counted], classes), membership.planes(prediction[counted], classes), strict=True
    )

    def per_cell(chosen: torch.Tensor) -> torch.Tensor:
        return torch.bincount(cells[chosen], minlength=rows * cols).view(rows, cols)

    found = [(per_cell(truth & guess), per_cell(truth | guess)) for truth, guess in pairs]
    hit, union = (torch.stack(parts, dim=-1) for parts in zip(*found, strict=True))
    return (hit / union.clamp(min=1)).sum(dim=-1) / (union > 0).sum(dim=-1)


def _cell_sums(values: torch.Tensor, cell: int) -> torch.Tensor:
    """Sums over cells, in an order that is always the same (a scatter's is not, on a GPU)."""
    height, width = values.shape
    padded = torch.nn.functional.pad(values, (0, -width % cell, 0, -height % cell))
    return padded.view(padded.shape[0] // cell, cell, -1, cell).sum(dim=(1, 3))


@dataclass(frozen=True, slots=True)
class ClassDistance:
    """The distance of one class over several images."""

    name: str  # the class
    mean: float  # over the images that have the class in label and prediction, level-0 pixels; NaN when there is none
    images: int  # number of these images
    undefined: int  # number of images that have the class in only one of both, where there is no distance


@dataclass(frozen=True, slots=True)
class Distances:
    """The distances of a data set."""

    mean: float  # of the classes' means, level-0 pixels
    largest_step: int  # of the grids that were compared, level-0 pixels; a distance is known to about this
    classes: tuple[ClassDistance, ...]  # in the order of the class ids

    def tree(self) -> dict[str, Any]:
        """Plain values for JSON, where NaN is null."""
        return dict(without_nan(asdict(self)))


def hausdorff_distances(
    prediction: torch.Tensor, labels: torch.Tensor, classes: int, membership: Membership, step: int = 1
) -> list[float]:
    """The 95 % Hausdorff distance of every class in one image.

    The larger of two numbers: 95 % of the predicted boundary's pixels lie at most so far from the true boundary, and
    the other way round. Pixels that are not counted belong to no class on both sides, so they end a class alike.

    Args:
        prediction: (H, W) labels as `Membership.decided` gives them.
        labels: (H, W).
        classes: number of classes.
        membership: how labels are read.
        step: distance between neighbours of the given grid, level-0 pixels.

    Returns:
        Level-0 pixels per class: NaN for a class in neither, infinite for one in only one of both.
    """
    guess, truth = prediction.numpy(), labels.numpy()
    counted = truth != membership.ignore_index
    masks = zip(membership.planes(guess, classes), membership.planes(truth, classes), strict=True)
    return [_distance(counted & guess, counted & truth, step) for guess, truth in masks]


def mean_distances(images: Sequence[Sequence[float]], names: Sequence[str], largest_step: int) -> Distances:
    """Means over images, from the distances per image and class that `hausdorff_distances` gives."""
    classes = []
    for i, name in enumerate(names):
        values = [image[i] for image in images]
        known = [value for value in values if math.isfinite(value)]
        classes.append(ClassDistance(name, mean_of(known), len(known), sum(map(math.isinf, values))))
    return Distances(mean_of([c.mean for c in classes if c.images]), largest_step, tuple(classes))


def _distance(guess: BoolArray, truth: BoolArray, step: int) -> float:
    if not guess.any() or not truth.any():
        return math.inf if guess.any() or truth.any() else math.nan
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (guess, truth)]
    far = (ndimage.distance_transform_edt(~to)[of] for of, to in (edges, edges[::-1]))
    return step * max(float(np.percentile(distances, PERCENTILE)) for distances in far)

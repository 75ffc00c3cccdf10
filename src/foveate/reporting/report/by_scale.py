"""How well it went where which field of view was passed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from foveate.data.config import DataConfig
from foveate.data.images import open_labels
from foveate.data.labels import class_map
from foveate.data.manifest import Sample
from foveate.geometry import Size, Window
from foveate.inference.score import MapFiles, thinning_step
from foveate.membership import Membership
from foveate.metrics.scores import Scores, scores_from
from foveate.reporting.passes import PassesFile
from foveate.types import FloatArray, IntArray, LabelArray

NOT_PASSED = -1
_ROWS = 64  # of the coarse grid at a time


class SampledMaps(NamedTuple):
    """Rows of an image at every `step`-th pixel, all (h, w).

    Attributes:
        prediction: labels, see `Membership`.
        labels: the true ones.
        chosen: the scale that was passed; -1 where none was.
    """

    prediction: LabelArray
    labels: LabelArray
    chosen: IntArray


class ScaleRow(NamedTuple):
    """What is known of the places where one field of view was passed.

    Attributes:
        view: the field of view, level-0 pixels.
        share: of the labelled pixels that lie there, in [0, 1].
        scores: there; NaN where nothing is labelled.
    """

    view: int
    share: float
    scores: Scores

    @property
    def is_seen(self) -> bool:
        """Whether there is more than the 0.0 % that a table would show: scores of fewer pixels say nothing."""
        return self.share >= 0.0005


def scale_of(made: FloatArray, views: Sequence[int]) -> IntArray:
    """The scale (h, w) of fields of view (h, w), each one of `views`; -1 where there is none, which is NaN."""
    known = np.isfinite(made)
    scales: IntArray = np.where(known, np.searchsorted(views, np.where(known, made, views[0])), NOT_PASSED)
    return scales


def counts_by_scale(maps: SampledMaps, scales: int, classes: int, membership: Membership) -> IntArray:
    """Pixels by chosen scale, label and prediction, (S, C, C), of overlapping classes (S, C, 2, 2), no and yes of each.

    What is not counted in one of both, or has no scale, is left out.
    """
    prediction, labels, chosen = (np.asarray(values, np.int64) for values in maps)
    counted = (labels != membership.ignore_index) & (prediction != membership.ignore_index) & (chosen >= 0)
    prediction, labels, chosen = prediction[counted], labels[counted], chosen[counted]

    def pairs(truth: IntArray, guess: IntArray, answers: int) -> IntArray:
        key = (chosen * answers + truth) * answers + guess
        return np.bincount(key, minlength=scales * answers**2).reshape(scales, answers, answers)

    if not membership.overlapping:
        return pairs(labels, prediction, classes)
    masks = zip(membership.planes(labels, classes), membership.planes(prediction, classes), strict=True)
    return np.stack([pairs(truth * 1, guess * 1, 2) for truth, guess in masks], axis=1)


def image_counts(sample: Sample, files: MapFiles, config: DataConfig, views: Sequence[int]) -> IntArray:
    """Counts of one evaluated image at every step-th pixel, see `counts_by_scale` and `thinning_step`; strip by strip.

    Args:
        sample: the image with its labels.
        files: its maps.
        config: classes and label values.
        views: fields of view there are, level-0 pixels, ascending.

    Raises:
        ImageReadError: when a file is missing or damaged.
    """
    scales, classes = len(views), len(config.classes)
    strips = sampled_maps(sample, files, config, views)
    first, *others = (counts_by_scale(strip, scales, classes, config.membership) for strip in strips)
    return sum(others, first)


def sampled_maps(sample: Sample, files: MapFiles, config: DataConfig, views: Sequence[int]) -> Iterator[SampledMaps]:
    """Prediction, labels and passed scale of an image at every step-th pixel, in strips of rows."""
    passes = PassesFile.read(files.passes)
    with (
        open_labels(sample, config) as labels,
        class_map(files.classes, len(config.classes), config.membership) as classes,
    ):
        step, width = thinning_step(labels.size), classes.size.width
        for top in range(0, classes.size.height, _ROWS):
            height = min(_ROWS, classes.size.height - top)
            # Each pixel of a smaller size is the one at its centre, which the shift by half a step puts on multiples.
            around = Window(top * step - step // 2, -(step // 2), height * step, width * step)
            truth = labels.read(around, Size(height, width))
            guess = classes.read(Window(top, 0, height, width))
            made = passes.chosen(np.arange(top, top + height) * step, np.arange(width) * step)
            yield SampledMaps(guess, truth, scale_of(made, views))


def scale_rows(counts: IntArray, views: Sequence[int], names: Sequence[str]) -> list[ScaleRow]:
    """One row for every field of view, from counts by scale."""
    total = max(1, int(counts.sum()))
    return [
        ScaleRow(view, float(part.sum()) / total, scores_from(torch.from_numpy(part), list(names)))
        for view, part in zip(views, counts, strict=True)
    ]

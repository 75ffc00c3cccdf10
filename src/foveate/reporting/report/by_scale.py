"""How well it went where the policy chose which field of view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from foveate.data.config import DataConfig
from foveate.data.labels import class_map
from foveate.data.manifest import Sample
from foveate.data.readers import open_image
from foveate.data.readers.base import ImageReader
from foveate.data.sample_reader import open_labels
from foveate.geometry import Size, Window
from foveate.inference.score import MapFiles, thinning_step
from foveate.metrics.scores import Scores, scores_from
from foveate.types import FloatArray, IntArray, LabelArray

NOT_ASKED = -1
_ROWS = 64  # of the coarse grid at a time


class SampledMaps(NamedTuple):
    """Rows of an image at every `step`-th pixel, all (h, w).

    Attributes:
        prediction: class ids.
        labels: class ids.
        chosen: the scale of the highest probability; -1 where the policy was not asked.
    """

    prediction: LabelArray
    labels: LabelArray
    chosen: IntArray


class ScaleRow(NamedTuple):
    """What is known of the places where one field of view was chosen.

    Attributes:
        view: the field of view, level-0 pixels.
        share: of the labelled pixels that lie there, in [0, 1].
        scores: there; NaN where nothing is labelled.
    """

    view: int
    share: float
    scores: Scores


def chosen_scale(probabilities: FloatArray) -> IntArray:
    """The most probable scale (h, w) of probabilities (S, h, w), the narrowest of equals; -1 where they are NaN."""
    known = np.isfinite(probabilities).all(axis=0)
    chosen: IntArray = np.where(known, np.nan_to_num(probabilities).argmax(axis=0), NOT_ASKED)
    return chosen


def counts_by_scale(maps: SampledMaps, scales: int, classes: int) -> IntArray:
    """Pixels (S, C, C) by chosen scale, label and prediction; what has no class or no scale is not counted."""
    prediction, labels, chosen = (np.asarray(values, np.int64) for values in maps)
    counted = (labels < classes) & (prediction < classes) & (chosen >= 0)
    key = (chosen[counted] * classes + labels[counted]) * classes + prediction[counted]
    counts: IntArray = np.bincount(key, minlength=scales * classes**2).reshape(scales, classes, classes)
    return counts


def image_counts(sample: Sample, files: MapFiles, config: DataConfig, scales: int, cell: int) -> IntArray:
    """Counts (S, C, C) of one evaluated image, at every step-th pixel, see `thinning_step`; strip by strip.

    Args:
        sample: the image with its labels.
        files: its maps.
        config: classes and label values.
        scales: how many fields of view there are.
        cell: side of a cell, level-0 pixels.

    Raises:
        ImageReadError: when a file is missing or damaged.
    """
    classes = len(config.classes)
    total = np.zeros((scales, classes, classes), np.int64)
    for strip in sampled_maps(sample, files, config, cell):
        total += counts_by_scale(strip, scales, classes)
    return total


def sampled_maps(sample: Sample, files: MapFiles, config: DataConfig, cell: int) -> Iterator[SampledMaps]:
    """Prediction, labels and chosen scale of an image at every step-th pixel, in strips of rows."""
    with (
        open_labels(sample, config) as labels,
        class_map(files.classes, len(config.classes), config.ignore_index) as classes,
        open_image(files.scales) as scales,
    ):
        step, width = thinning_step(labels.size), classes.size.width
        for top in range(0, classes.size.height, _ROWS):
            height = min(_ROWS, classes.size.height - top)
            # Each pixel of a smaller size is the one at its centre, which the shift by half a step puts on multiples.
            around = Window(top * step - step // 2, -(step // 2), height * step, width * step)
            truth = labels.read(around, Size(height, width))
            guess = classes.read(Window(top, 0, height, width))
            rows, cols = (np.arange(top, top + height) * step // cell, np.arange(width) * step // cell)
            yield SampledMaps(guess, truth, _chosen_at(scales, rows, cols))


def scale_rows(counts: IntArray, views: Sequence[int], names: Sequence[str]) -> list[ScaleRow]:
    """One row for every field of view, from counts (S, C, C)."""
    total = max(1, int(counts.sum()))
    return [
        ScaleRow(view, float(part.sum()) / total, scores_from(torch.from_numpy(part), list(names)))
        for view, part in zip(views, counts, strict=True)
    ]


def _chosen_at(scales: ImageReader, rows: IntArray, cols: IntArray) -> IntArray:
    """The chosen scale at the crossings of rows and columns of cells."""
    window = Window(int(rows[0]), 0, int(rows[-1] - rows[0]) + 1, scales.size.width)
    chosen: IntArray = chosen_scale(scales.read(window))[np.ix_(rows - rows[0], cols)]
    return chosen

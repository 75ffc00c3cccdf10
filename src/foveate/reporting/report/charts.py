"""The charts of an evaluation: confused classes, and how well it went where which field of view was passed."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from foveate.data.config import DataConfig
from foveate.data.images import open_labels
from foveate.data.labels import class_map
from foveate.data.manifest import Sample
from foveate.evaluation.maps import MapFiles
from foveate.evaluation.score import thinning_step
from foveate.geometry import Size, Window
from foveate.membership import Membership
from foveate.metrics import Scores, scores_from
from foveate.reporting.panels import new_figure
from foveate.reporting.passes import PassesFile
from foveate.reporting.report import page
from foveate.runs.tuned import read_curve
from foveate.types import FloatArray, IntArray, LabelArray

NOT_PASSED = -1
_ROWS = 64  # of the coarse grid at a time
_LETTERS_ACROSS = 11  # letters of names on an inch of the axis
_MOST_NUMBERS = 12  # classes a side up to which a matrix has room for numbers
_MARKERS = "osD^vP*X"


class SampledMaps(NamedTuple):
    """Rows of an image at every `step`-th pixel, all (h, w)."""

    prediction: LabelArray  # labels, see `Membership`
    labels: LabelArray  # the true ones
    chosen: IntArray  # the scale that was passed; -1 where none was


class ScaleRow(NamedTuple):
    """What is known of the places where one field of view was passed."""

    view: int  # the field of view, level-0 pixels
    share: float  # of the labelled pixels that lie there, in [0, 1]
    scores: Scores  # there; NaN where nothing is labelled

    @property
    def is_seen(self) -> bool:
        """Whether there is more than the 0.0 % that a table would show: scores of fewer pixels say nothing."""
        return self.share >= 0.0005


def scale_of(made: FloatArray, views: Sequence[int]) -> IntArray:
    """The scale (h, w) of fields of view (h, w), each one of `views`; -1 where there is none, which is NaN."""
    known = np.isfinite(made)
    return np.where(known, np.searchsorted(views, np.where(known, made, views[0])), NOT_PASSED)


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
    """Counts of one evaluated image at every step-th pixel, see `counts_by_scale`, strip by strip."""
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


def confusion_chart(counts: IntArray, names: Sequence[str], figures: page.FigureFolder) -> page.Chart:
    """Shares of each label's pixels by what was predicted; rows without a labelled pixel are left empty.

    Args:
        counts: (C, C) pixels, rows = label, columns = prediction.
        names: of the classes.
        figures: where it is kept.
    """
    count = len(names)
    shares = 100 * counts / np.where(counts.sum(axis=1, keepdims=True) == 0, np.nan, counts.sum(axis=1, keepdims=True))
    side = max(2.6, min(0.75, 7.5 / count) * count)
    with page.style():
        figure = new_figure(side + 1.6, side + 0.9)
        axes = figure.subplots()
        axes.pcolormesh(
            np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=100, edgecolors=page.GRID, linewidth=0.4
        )
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_aspect("equal")
        shown = [page.short(name) for name in names]
        axes.set_xticks(
            np.arange(count) + 0.5, shown, rotation=90 if count * max(map(len, shown)) > _LETTERS_ACROSS * side else 0
        )
        axes.set_yticks(np.arange(count) + 0.5, shown)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("labelled")
        if count <= _MOST_NUMBERS:
            _write_numbers(axes, shares)
    right = ", ".join(f"{name} {shares[i, i]:.0f} %" for i, name in enumerate(names) if math.isfinite(shares[i, i]))
    return figures.chart("confusion", "Confusion matrix", f"Share of each label predicted as itself: {right}.", figure)


def scale_chart(rows: Sequence[ScaleRow], names: Sequence[str], figures: page.FigureFolder) -> page.Chart:
    """The IoU of every class at the places of every field of view that was passed."""
    lines = ["mean", *names]
    with page.style():
        figure = new_figure(5.0, 1.2 + 0.3 * len(lines))
        axes = figure.subplots()
        for row, color, marker in zip(rows, page.view_colors([row.view for row in rows]), _MARKERS, strict=False):
            values = [row.scores.miou, *(item.iou for item in row.scores.classes)]
            places = np.arange(len(lines))
            axes.plot(
                [100 * value for value in values], places, marker, color=color, markersize=7, mec=page.MUTED, mew=0.6,
                label=f"{row.view} px",
            )  # fmt: skip
        axes.set_yticks(np.arange(len(lines)), [page.short(line) for line in lines])
        axes.set_xlim(-3, 103)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlabel("IoU, %")
        axes.tick_params(axis="y", length=0)
        page.legend_above(figure, [f"{row.view} px" for row in rows])
    said = " ".join(f"{row.view} px: mean {100 * row.scores.miou:.0f} %." for row in rows)
    return figures.chart("iou-by-view", "IoU by field of view", said, figure)


def budget_chart(path: Path, figures: page.FigureFolder) -> page.Chart | None:
    """What `foveate tune` found that every budget buys, beside one field of view alone; None where it was not run."""
    lines = {"chosen": read_curve(path), "one field of view": read_curve(path, fixed=True)}
    if not lines["chosen"]:
        return None
    with page.style():
        figure = new_figure()
        axes = figure.subplots()
        for (label, points), color, marker in zip(lines.items(), page.SERIES, _MARKERS, strict=False):
            passes, scores = zip(*((point.passes_per_megapixel, 100 * point.miou) for point in points), strict=True)
            axes.plot(passes, scores, f"-{marker}", color=color, markersize=5, label=label)
        axes.set_xscale("log")
        axes.set_xlabel("forward passes per megapixel")
        axes.set_ylabel("mIoU, %")
        page.legend_above(figure, list(lines))
    said = " ".join(
        f"{point.passes_per_megapixel:.0f} passes: {100 * point.miou:.1f} %, by "
        f"{' + '.join(f'{view} px' for view, _ in point.looks)}."
        for point in lines["chosen"]
    )
    return figures.chart("budget", "mIoU against forward passes", said, figure)


def _write_numbers(axes: object, shares: np.ndarray) -> None:
    for (row, col), value in np.ndenumerate(shares):
        if math.isfinite(value):
            color = "#ffffff" if value > 55 else "#000000"
            axes.text(col + 0.5, row + 0.5, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8.5)  # type: ignore[attr-defined]

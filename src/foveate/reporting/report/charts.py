"""The charts of a run: its training, confused classes, and how well it went where which field of view was passed."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from foveate.data import DataConfig, Sample, class_map, open_labels
from foveate.evaluation.maps import MapFiles
from foveate.evaluation.score import thinning_step
from foveate.geometry import FloatArray, IntArray, LabelArray, Size, Window
from foveate.membership import Membership
from foveate.metrics import Scores, scores_from
from foveate.reporting.panels import new_figure
from foveate.reporting.passes import PassesFile
from foveate.reporting.report import page
from foveate.reporting.report.state import History
from foveate.runs.tuned import read_curve

NOT_PASSED = -1
_ROWS = 64  # of the coarse grid at a time
_LETTERS_ACROSS = 11  # letters of names on an inch of the axis
_MOST_NUMBERS = 12  # classes a side up to which a matrix has room for numbers
_MARKERS = "osD^vP*X"
_DASHES = ("-", "--", "-.", ":", "-")
_Points = tuple[list[float], list[float]]  # steps and values


def training_charts(
    history: History, views: Sequence[int], classes: Sequence[str], figures: page.FigureFolder
) -> list[page.Chart]:
    """The charts there are values for.

    Args:
        history: rows of metrics.csv.
        views: fields of view that a policy chooses from, level-0 pixels, ascending; none where there is no policy.
        classes: names, in the order of their ids.
        figures: where they are kept.
    """
    # The classes too where they are few enough to be told apart.
    each = {f"val/iou/{name}": name for name in classes} if len(classes) < len(page.SERIES) else {}
    scores = "IoU on validation locations, %" if each else "mIoU on validation locations, %"
    entropy = {"train/policy_entropy": "training", "val/policy_entropy": "validation"}
    # In the order in which they first have a value.
    rates = {name: name.removeprefix("lr/") for row in history for name in row if name.startswith("lr/")}
    lines = partial(_lines, history, figures)
    drawn = (
        lines("loss", "Loss", {"train/loss": "training", "val/loss": "validation"}),
        lines("miou", scores, {"val/miou": "mIoU"} | each, lambda axes: axes.set_ylim(0, 102), 100.0),
        _shares(history, views, figures) if views else None,
        lines("entropy", "Entropy of the policy, nats", entropy, partial(_up_to_alike, len(views))) if views else None,
        lines("learning-rates", "Learning rates", rates, _from_zero),
    )
    return [chart for chart in drawn if chart is not None]


def _points(history: History, column: str) -> _Points:
    """Where the column has values."""
    rows = [(row["step"], row[column]) for row in history if column in row]
    return [step for step, _ in rows], [value for _, value in rows]


def _lines(
    history: History,
    figures: page.FigureFolder,
    name: str,
    title: str,
    labels: dict[str, str],
    adjust: Callable[[Any], object] = lambda _axes: None,
    unit: float = 1.0,
) -> page.Chart | None:
    """One line for every column of `labels` that has values; None where none has."""
    found = {column: points for column in labels if (points := _points(history, column))[0]}
    if not found:
        return None
    said, axes = [], new_figure().subplots()
    for color, dashes, (column, (steps, values)) in zip(page.SERIES, _DASHES, found.items(), strict=False):
        marker = "o" if len(steps) < 30 and column.startswith("val/") else ""
        shown = [unit * value for value in values]
        axes.plot(steps, shown, dashes, color=color, label=page.short(labels[column]), marker=marker, markersize=4)
    for column, (steps, values) in found.items():
        first, last = (f"{unit * values[i]:.3g} at step {steps[i]:.0f}" for i in (0, -1))
        said.append(f"{labels[column]}: from {first} to {last}.")
    adjust(axes)
    _over_steps(axes, legend=len(found) > 1)
    return figures.chart(name, title, " ".join(said), axes)


def _up_to_alike(views: int, axes: Any) -> None:
    most = math.log(max(2, views))
    axes.set_ylim(0, 1.2 * most)
    axes.axhline(most, color=page.MUTED, linewidth=1, linestyle=(0, (2, 2)))
    axes.annotate(
        "all alike", (1, most), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
        fontsize=9, color=page.MUTED, ha="right",
    )  # fmt: skip


def _from_zero(axes: Any) -> None:
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _shares(history: History, views: Sequence[int], figures: page.FigureFolder) -> page.Chart | None:
    """How much each field of view was used, stacked to one."""
    stage = "val" if len(_points(history, f"val/share/{views[0]}")[0]) > 2 else "train"
    steps, found = zip(*(_points(history, f"{stage}/share/{view}") for view in views), strict=True)
    if not steps[0] or len(set(map(len, steps))) > 1:
        return None
    axes, shares = new_figure().subplots(), [[100 * value for value in values] for values in found]
    axes.stackplot(
        steps[0],
        shares,
        colors=page.view_colors(views),
        labels=[f"{view} px" for view in views],
        alpha=0.9,
        linewidth=0,
    )
    axes.set_ylim(0, 100)
    axes.margins(x=0)
    _over_steps(axes, legend=True)
    last = ", ".join(f"{view} px {values[-1]:.0f} %" for view, values in zip(views, shares, strict=True))
    said = f"Of {'validation' if stage == 'val' else 'training'} locations, at the last step: {last}."
    return figures.chart("shares", "Share of each field of view, %", said, axes)


def _over_steps(axes: Any, *, legend: bool) -> None:
    axes.set_xlabel("step")
    axes.grid(axis="x", visible=False)
    if legend:
        page.legend_above(axes)


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
    return np.where(np.isfinite(made), np.searchsorted(views, np.nan_to_num(made)), NOT_PASSED)


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
    count, total = len(names), counts.sum(axis=1, keepdims=True)
    shares = 100 * counts / np.where(total == 0, np.nan, total)
    side = max(2.6, min(0.75, 7.5 / count) * count)
    axes = new_figure(side + 1.6, side + 0.9).subplots()
    axes.pcolormesh(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=100, edgecolors=page.GRID, linewidth=0.4)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_aspect("equal")
    places, shown = np.arange(count) + 0.5, [page.short(name) for name in names]
    axes.set_xticks(places, shown, rotation=90 if count * max(map(len, shown)) > _LETTERS_ACROSS * side else 0)
    axes.set_yticks(places, shown)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    for (row, col), value in np.ndenumerate(shares):
        if math.isfinite(value) and count <= _MOST_NUMBERS:
            color = "#ffffff" if value > 55 else "#000000"
            axes.text(col + 0.5, row + 0.5, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8.5)
    right = ", ".join(f"{name} {shares[i, i]:.0f} %" for i, name in enumerate(names) if math.isfinite(shares[i, i]))
    return figures.chart("confusion", "Confusion matrix", f"Share of each label predicted as itself: {right}.", axes)


def scale_chart(rows: Sequence[ScaleRow], names: Sequence[str], figures: page.FigureFolder) -> page.Chart:
    """The IoU of every class at the places of every field of view that was passed."""
    lines = ["mean", *names]
    axes, places = new_figure(5.0, 1.2 + 0.3 * len(lines)).subplots(), np.arange(len(lines))
    for row, color, marker in zip(rows, page.view_colors([row.view for row in rows]), _MARKERS, strict=False):
        values = [100 * value for value in (row.scores.miou, *(item.iou for item in row.scores.classes))]
        axes.plot(values, places, marker, color=color, markersize=7, mec=page.MUTED, mew=0.6, label=f"{row.view} px")
    axes.set_yticks(places, [page.short(line) for line in lines])
    axes.set_xlim(-3, 103)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel("IoU, %")
    axes.tick_params(axis="y", length=0)
    page.legend_above(axes)
    said = " ".join(f"{row.view} px: mean {100 * row.scores.miou:.0f} %." for row in rows)
    return figures.chart("iou-by-view", "IoU by field of view", said, axes)


def budget_chart(path: Path, figures: page.FigureFolder) -> page.Chart | None:
    """What `foveate tune` found that every budget buys, beside one field of view alone; None where it was not run."""
    lines = {"chosen": read_curve(path), "one field of view": read_curve(path, fixed=True)}
    if not lines["chosen"]:
        return None
    axes = new_figure().subplots()
    for (label, points), color, marker in zip(lines.items(), page.SERIES, _MARKERS, strict=False):
        costs = [point.passes_per_megapixel for point in points]
        scores = [100 * point.miou for point in points]
        axes.plot(costs, scores, f"-{marker}", color=color, markersize=5, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("forward passes per megapixel")
    axes.set_ylabel("mIoU, %")
    page.legend_above(axes)
    said = " ".join(
        f"{point.passes_per_megapixel:.0f} passes: {100 * point.miou:.1f} %, by "
        f"{' + '.join(f'{view} px' for view, _ in point.looks)}."
        for point in lines["chosen"]
    )
    return figures.chart("budget", "mIoU against forward passes", said, axes)

"""The charts of an evaluation: which classes are taken for which, and how well it went at which field of view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foveate.reporting.report.by_scale import ScaleRow
from foveate.reporting.report.figures import (
    GRID,
    MUTED,
    SERIES,
    Chart,
    FigureFolder,
    legend_above,
    new_figure,
    short,
    style,
    view_colors,
)
from foveate.runs.tuned import read_curve
from foveate.types import IntArray

_LETTERS_ACROSS = 11  # letters of names on an inch of the axis
_MOST_NUMBERS = 12  # classes a side up to which a matrix has room for numbers
_MARKERS = "osD^vP*X"


def confusion_chart(counts: IntArray, names: Sequence[str], figures: FigureFolder) -> Chart:
    """Shares of each label's pixels by what was predicted; rows without a labelled pixel are left empty.

    Args:
        counts: (C, C) pixels, rows = label, columns = prediction.
        names: of the classes.
        figures: where it is kept.
    """
    count = len(names)
    shares = 100 * counts / np.where(counts.sum(axis=1, keepdims=True) == 0, np.nan, counts.sum(axis=1, keepdims=True))
    side = max(2.6, min(0.75, 7.5 / count) * count)
    with style():
        figure = new_figure(side + 1.6, side + 0.9)
        axes = figure.subplots()
        axes.pcolormesh(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=100, edgecolors=GRID, linewidth=0.4)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_aspect("equal")
        shown = [short(name) for name in names]
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


def scale_chart(rows: Sequence[ScaleRow], names: Sequence[str], figures: FigureFolder) -> Chart:
    """The IoU of every class at the places of every field of view that was passed."""
    lines = ["mean", *names]
    with style():
        figure = new_figure(5.0, 1.2 + 0.3 * len(lines))
        axes = figure.subplots()
        for row, color, marker in zip(rows, view_colors([row.view for row in rows]), _MARKERS, strict=False):
            values = [row.scores.miou, *(item.iou for item in row.scores.classes)]
            places = np.arange(len(lines))
            axes.plot(
                [100 * value for value in values], places, marker, color=color, markersize=7, mec=MUTED, mew=0.6,
                label=f"{row.view} px",
            )  # fmt: skip
        axes.set_yticks(np.arange(len(lines)), [short(line) for line in lines])
        axes.set_xlim(-3, 103)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlabel("IoU, %")
        axes.tick_params(axis="y", length=0)
        legend_above(figure, [f"{row.view} px" for row in rows])
    said = " ".join(f"{row.view} px: mean {100 * row.scores.miou:.0f} %." for row in rows)
    return figures.chart("iou-by-view", "IoU by field of view", said, figure)


def budget_chart(path: Path, figures: FigureFolder) -> Chart | None:
    """What `foveate tune` found that every budget buys, beside one field of view alone; None where it was not run.

    Raises:
        ConfigError: when its file is damaged.
    """
    lines = {"chosen": read_curve(path), "one field of view": read_curve(path, fixed=True)}
    if not lines["chosen"]:
        return None
    with style():
        figure = new_figure()
        axes = figure.subplots()
        for (label, points), color, marker in zip(lines.items(), SERIES, _MARKERS, strict=False):
            axes.plot(
                [point.passes for point in points], [100 * point.miou for point in points], f"-{marker}", color=color,
                markersize=5, label=label,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel("forward passes per megapixel")
        axes.set_ylabel("mIoU, %")
        legend_above(figure, list(lines))
    said = " ".join(
        f"{point.passes:.0f} passes: {100 * point.miou:.1f} %, by {' + '.join(f'{v} px' for v, _ in point.looks)}."
        for point in lines["chosen"]
    )
    return figures.chart("budget", "mIoU against forward passes", said, figure)


def _write_numbers(axes: object, shares: np.ndarray) -> None:
    for (row, col), value in np.ndenumerate(shares):
        if math.isfinite(value):
            color = "#ffffff" if value > 55 else "#000000"
            axes.text(col + 0.5, row + 0.5, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8.5)  # type: ignore[attr-defined]

"""The curves of a training: loss, accuracy, learning rates, and what the policy did."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from foveate.reporting.report.figures import (
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
from foveate.reporting.report.state import History, columns, series

_DASHES = ("-", "--", "-.", ":", "-")


def training_charts(
    history: History, views: Sequence[int], classes: Sequence[str], figures: FigureFolder
) -> list[Chart]:
    """The charts there are values for.

    Args:
        history: rows of metrics.csv.
        views: fields of view that a policy chooses from, level-0 pixels, ascending; none where there is no policy.
        classes: names, in the order of their ids.
        figures: where they are kept.
    """
    drawn = (
        _lines(history, figures, "loss", "Loss", {"train/loss": "training", "val/loss": "validation"}),
        _miou(history, classes, figures),
        _shares(history, views, figures) if views else None,
        _entropy(history, len(views), figures) if views else None,
        _learning_rates(history, figures),
    )
    return [chart for chart in drawn if chart is not None]


def _lines(
    history: History,
    figures: FigureFolder,
    name: str,
    title: str,
    labels: dict[str, str],
    adjust: Callable[[Any], None] = lambda _axes: None,
    unit: float = 1.0,
) -> Chart | None:
    """One line for every column of `labels` that has values; None where none has."""
    found = {column: series(history, column) for column in labels}
    found = {column: points for column, points in found.items() if points[0]}
    if not found:
        return None
    with style():
        figure = new_figure()
        axes = figure.subplots()
        for color, dashes, (column, (steps, values)) in zip(SERIES, _DASHES, found.items(), strict=False):
            marker = "o" if len(steps) < 30 and column.startswith("val/") else ""
            shown = [unit * value for value in values]
            axes.plot(steps, shown, dashes, color=color, label=short(labels[column]), marker=marker, markersize=4)
        adjust(axes)
        _finish(figure, axes, [short(labels[column]) for column in found] if len(found) > 1 else [])
    return figures.chart(name, title, _sentence(found, labels, unit), figure)


def _miou(history: History, classes: Sequence[str], figures: FigureFolder) -> Chart | None:
    """The mean, and the classes where there are few enough to be told apart."""

    def up_to_100(axes: Any) -> None:
        axes.set_ylim(0, 102)

    each = {f"val/iou/{name}": name for name in classes} if len(classes) < len(SERIES) else {}
    title = "IoU on validation locations, %" if each else "mIoU on validation locations, %"
    return _lines(history, figures, "miou", title, {"val/miou": "mIoU"} | each, up_to_100, 100.0)


def _entropy(history: History, views: int, figures: FigureFolder) -> Chart | None:
    def from_zero(axes: Any) -> None:
        most = math.log(max(2, views))
        axes.set_ylim(0, 1.2 * most)
        axes.axhline(most, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate(
            "all alike", (1, most), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
            fontsize=9, color=MUTED, ha="right",
        )  # fmt: skip

    labels = {"train/policy_entropy": "training", "val/policy_entropy": "validation"}
    return _lines(history, figures, "entropy", "Entropy of the policy, nats", labels, from_zero)


def _learning_rates(history: History, figures: FigureFolder) -> Chart | None:
    names = {name: name.removeprefix("lr/") for name in columns(history, "lr/")}

    def from_zero(axes: Any) -> None:
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))

    return _lines(history, figures, "learning-rates", "Learning rates", names, from_zero)


def _shares(history: History, views: Sequence[int], figures: FigureFolder) -> Chart | None:
    """How much each field of view was used, stacked to one."""
    stage = "val" if len(series(history, f"val/share/{views[0]}")[0]) > 2 else "train"
    found = [series(history, f"{stage}/share/{view}") for view in views]
    if not all(steps for steps, _ in found) or len({len(steps) for steps, _ in found}) > 1:
        return None
    with style():
        figure = new_figure()
        axes = figure.subplots()
        shares = [[100 * value for value in values] for _, values in found]
        axes.stackplot(
            found[0][0], shares, colors=view_colors(views), labels=[f"{v} px" for v in views], alpha=0.9, linewidth=0
        )
        axes.set_ylim(0, 100)
        axes.margins(x=0)
        _finish(figure, axes, [f"{v} px" for v in views])
    last = ", ".join(f"{view} px {values[-1]:.0f} %" for view, values in zip(views, shares, strict=True))
    where = "validation" if stage == "val" else "training"
    return figures.chart(
        "shares", "Share of each field of view, %", f"Of {where} locations, at the last step: {last}.", figure
    )


def _finish(figure: Figure, axes: Any, labels: Sequence[str]) -> None:
    axes.set_xlabel("step")
    axes.grid(axis="x", visible=False)
    if labels:
        legend_above(figure, labels)


def _sentence(found: dict[str, tuple[list[float], list[float]]], labels: dict[str, str], unit: float) -> str:
    """What the lines do, for those who cannot see them."""
    return " ".join(
        f"{labels[name]}: from {unit * values[0]:.3g} at step {steps[0]:.0f} to {unit * values[-1]:.3g} at step "
        f"{steps[-1]:.0f}."
        for name, (steps, values) in found.items()
    )

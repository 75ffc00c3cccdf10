"""The figure of a comparison: accuracy by method, and against its cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from foveate.files import written
from foveate.reporting.comparison import MEAN, ComparisonTable, Row

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
_LEARNED, _BASELINE, _ENSEMBLE = "#0072b2", "#7f7f7f", "#d55e00"
_BASELINES = ("random", "average")


def save_comparison_figure(path: Path, table: ComparisonTable, title: str) -> None:
    """Write a PNG or SVG; it follows from the runs, so an earlier one is replaced.

    Args:
        path: of the picture.
        table: with at least one row.
        title: above both parts.
    """
    height = 1.6 + 0.36 * len(table.rows)
    figure = Figure(figsize=(11, max(3.6, height)), layout="constrained")
    FigureCanvasAgg(figure)
    by_method, by_cost = figure.subplots(1, 2, width_ratios=(3, 2))
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    draw_methods(by_method, table)
    draw_cost(by_cost, table)
    with written(path, overwrite=True) as partial:
        figure.savefig(partial, dpi=140)


def draw_methods(axes: Any, table: ComparisonTable) -> None:
    """The mIoU of every method, best at the top: every seed a dot, the mean a bar."""
    rows = sorted(table.rows, key=lambda row: row.mean(MEAN))
    for place, row in enumerate(rows):
        values = [100 * value for value in row.scores[MEAN]]
        axes.plot(values, [place] * len(values), "o", color=_color(row), alpha=0.35, markersize=6, mew=0)
        axes.plot([100 * row.mean(MEAN)], [place], "|", color=_color(row), markersize=18, mew=2.5)
    axes.set_yticks(range(len(rows)), [_label(table, row) for row in rows])
    axes.set_xlabel("mIoU, % (dots: seeds, bar: mean;\n≈ not told from the best)")
    _tidy(axes)


def draw_cost(axes: Any, table: ComparisonTable) -> None:
    """The mean mIoU of every method against its passes per megapixel."""
    widest = max(row.cost["passes_per_megapixel"] for row in table.rows)
    named: list[tuple[float, float]] = []
    groups = sorted(_by_cost(table).items(), key=lambda item: -item[1][-1].mean(MEAN))
    spread = max(1.0, 100 * (groups[0][1][-1].mean(MEAN) - groups[-1][1][-1].mean(MEAN))) if groups else 1.0
    for x, rows in groups:
        # A little to the side in turn, or equal values would hide each other; all names are in the other part.
        for turn, row in enumerate(rows):
            shift = 0.012 * widest * (turn % 3 - 1) if len(rows) > 1 else 0.0
            axes.plot([x + shift], [100 * row.mean(MEAN)], "o", color=_color(row), markersize=6, mew=0)
        # Best first; a name that would run into one before it is in the other part only.
        place = (x / widest, 100 * rows[-1].mean(MEAN) / spread)
        if all(abs(place[0] - px) > 0.22 or abs(place[1] - py) > 0.09 for px, py in named):
            named.append(place)
            axes.annotate(
                rows[-1].method, (x, 100 * rows[-1].mean(MEAN)), xytext=(0, 8), textcoords="offset points",
                ha="center", fontsize=9,
            )  # fmt: skip
    axes.set_xlabel("passes per megapixel (of equal cost the best is named)")
    axes.set_ylabel("mIoU, %")
    axes.margins(x=0.2, y=0.12)
    axes.set_xlim(left=0)
    _tidy(axes)


def _by_cost(table: ComparisonTable) -> dict[int, list[Row]]:
    """Rows by their passes per megapixel, worst first."""
    groups: dict[int, list[Row]] = {}
    for row in sorted(table.rows, key=lambda row: row.mean(MEAN)):
        groups.setdefault(round(row.cost["passes_per_megapixel"]), []).append(row)
    return groups


def _label(table: ComparisonTable, row: Row) -> str:
    if table.is_best(row, MEAN):
        return f"{row.method} (best)"
    return f"{row.method} ≈" if table.is_within_noise(row, MEAN) else row.method


def _color(row: Row) -> str:
    if row.method == "ensemble":
        return _ENSEMBLE
    return _BASELINE if row.method.startswith("patch_") or row.method in _BASELINES else _LEARNED


def _tidy(axes: Any) -> None:
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

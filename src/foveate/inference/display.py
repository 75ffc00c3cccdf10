"""How results show themselves in a notebook."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from foveate.metrics.scores import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _GREY = "#0072b2", "#8a929c"


def table_html(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table as HTML; all text is escaped.

    Args:
        header: of the columns.
        rows: their texts.
        caption: above the table.
    """
    head = "".join(f"<th>{html.escape(text)}</th>" for text in header)
    lines = ("".join(f"<td>{html.escape(text)}</td>" for text in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    above = f'<caption style="text-align:left">{html.escape(caption)}</caption>' if caption else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def scores_html(scores: Scores, caption: str = "") -> str:
    """Scores per class in percent, and their means, as an HTML table."""
    header = ("class", "IoU %", "Dice %", "precision %", "recall %", "pixels")
    rows = [
        (c.name, *(_percent(value) for value in (c.iou, c.dice, c.precision, c.recall)), f"{c.pixels:,}")
        for c in scores.classes
    ]
    mean = ("mean", _percent(scores.miou), _percent(scores.mean_dice), "", "", "")
    return table_html(header, [*rows, mean], caption)


def scores_figure(scores: Scores) -> Figure:
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
        axes.set_title(f"mIoU {_percent(scores.miou)} %", loc="left")
    return figure


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"

"""Tables of the command line: of an image, labels, evaluations, comparisons, predictions, and what `tune` tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from foveate.data.area import LEFT_OUT
from foveate.texts import counted, length, percent

if TYPE_CHECKING:
    from foveate.data.label_index import ClassTable
    from foveate.data.readers.pyramid import ImageReader
    from foveate.evaluation.evaluate import Evaluation
    from foveate.metrics import ClassDistance
    from foveate.runs.tuned import Trial

_NO_DATA = ("pixels without data are marked in the file", "pixels that are marked, or are not finite")
_SHOWN = 4


def table_of(title: str, *columns: str, caption: str | None = None) -> Table:
    """A table without rows; a column whose name begins with ">" is aligned right, the others fold what is too long."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in columns:
        if name.startswith(">"):
            table.add_column(name[1:], justify="right")
        else:
            table.add_column(name, overflow="fold")
    return table


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Two columns: what, and its value."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, str(value))
    return table


def labels_table(labels: ClassTable) -> Table:
    """Pixels of each class in each split, and what of them does not count and why."""
    table = table_of("Labels, pixels", "class")
    columns: list[list[str]] = []
    for part in labels.splits:
        about = "about " if part.estimated else ""
        table.add_column(f"{part.split}, {counted(part.images, 'image')}", justify="right")
        columns.append([about + f"{count:,}" for count in (*part.tally.counts, part.tally.ignored)])
        for cause, counts in zip(LEFT_OUT, part.tally.left_out, strict=True):
            if counts.any():
                table.add_column(f"{cause}, not counted", justify="right")
                columns.append([*(about + f"{count:,}" for count in counts), ""])
    for name, *cells in zip((*labels.names, "ignored"), *columns, strict=True):
        table.add_row(Text(name), *cells)
    return table


def evaluation_table(title: str, evaluation: Evaluation) -> Table:
    """Scores per class in percent, their means, Hausdorff distances where measured, and the cost below."""
    scores, distances = evaluation.scores, evaluation.distances
    columns = ("class", ">IoU %", ">Dice %", ">precision %", ">recall %", ">share %", *[">HD95 px"][: bool(distances)])
    table = table_of(title, *columns, caption=_caption(evaluation))
    pixels = max(1, sum(c.pixels for c in scores.classes))
    for i, c in enumerate(scores.classes):
        shown = [percent(v) for v in (c.iou, c.dice, c.precision, c.recall, c.pixels / pixels)]
        table.add_row(c.name, *shown, *([_distance(distances.classes[i])] if distances else []))
    table.add_section()
    mean = [_pixels(distances.mean)] if distances else []
    table.add_row("mean", percent(scores.miou), percent(scores.mean_dice), "", "", "", *mean, style="bold")
    table.add_row("pixel accuracy", percent(scores.pixel_accuracy))
    return table


def _caption(evaluation: Evaluation) -> str:
    cost, absent, distances = evaluation.cost, evaluation.scores.absent, evaluation.distances
    lines = [
        f"{counted(len(evaluation.images), 'image')}, {cost['megapixels']:.1f} megapixels, "
        f"{cost['passes_per_megapixel']:.0f} passes per megapixel, "
        f"{cost['seconds']:.1f} s, peak memory {cost['peak_memory_mb']:.0f} MiB"
    ]
    if absent:
        lines.append(f"classes without a labelled pixel, left out of the means: {', '.join(absent)}")
    if distances:
        lines.append(
            "HD95: 95 % Hausdorff distance, the mean over images with the class in both label and prediction, accurate "
            f"to about {distances.largest_step} px. In brackets: images with the class in only one of the two"
        )
    return "\n".join(lines)


def _distance(distance: ClassDistance) -> str:
    return _pixels(distance.mean) + (f" ({distance.undefined})" if distance.undefined else "")


def _pixels(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def comparison_table(title: str, rows: Mapping[str, Evaluation]) -> Table:
    """One row per method: mIoU and IoU per class in percent, passes per megapixel, seconds; the best is bold."""
    names = [c.name for c in next(iter(rows.values())).scores.classes]
    columns = {
        method: [evaluation.scores.miou, *(c.iou for c in evaluation.scores.classes)]
        for method, evaluation in rows.items()
    }
    shown = (f">{name}" for name in ("mIoU", *names, "passes/MP", "seconds"))
    table = table_of(f"{title}; IoU in %", "method", *shown)
    best = [
        max((value for value in column if not math.isnan(value)), default=math.nan)
        for column in zip(*columns.values(), strict=True)
    ]
    for method, values in columns.items():
        cells = [Text(percent(v), "bold" if v == top else "") for v, top in zip(values, best, strict=True)]
        cost = rows[method].cost
        table.add_row(method, *cells, f"{cost['passes_per_megapixel']:.0f}", f"{cost['seconds']:.1f}")
    return table


def predictions_table(done: Mapping[Path, Mapping[str, Any]], failed: Mapping[Path, str]) -> Table:
    """One row an image: size, cost and classes; below, over the whole width, why the others failed."""
    reasons = "\n".join(f"{image.name} failed: {reason}" for image, reason in failed.items())
    columns = ("image", ">megapixels", ">passes/MP", ">seconds", ">peak MiB", "classes, % of pixels")
    table = table_of("Predictions", *columns, caption=reasons or None)
    for image, summary in done.items():
        numbers = (
            f"{summary['megapixels']:.1f}",
            f"{summary['passes_per_megapixel']:.0f}",
            f"{summary['seconds']:.1f}",
            f"{summary['peak_memory_mb']:.0f}",
        )
        table.add_row(image.name, *numbers, _shares(summary))
    return table


def _shares(summary: Mapping[str, Any]) -> Text:
    """Of the classes, in percent of the pixels that could be read; and how much could not."""
    pixels, empty = summary["class_pixels"], len(summary.get("failed_blocks", ()))
    total = max(1, sum(pixels.values()))
    shares = ", ".join(f"{name} {100 * n / total:.1f}" for name, n in pixels.items())
    left_empty = Text.assemble("; ", ("left empty:", "red"), f" {empty} blocks") if empty else ""
    return Text.assemble(shares, left_empty)


def image_facts(reader: ImageReader) -> dict[str, str]:
    """Size, bands, levels, georeference, pixel size, reader and reading cost, ready for a table."""
    return {
        "format": f"{reader.format}, read by {type(reader).__name__}",
        "width x height": f"{reader.size.text} ({reader.size.megapixels:.1f} megapixels)",
        "bands": _bands(reader),
        **({"no data": _NO_DATA[int(reader.dtype.kind == "f")]} if reader.masked else {}),
        "levels": ", ".join(size.text for size in reader.levels),
        "georeference": _georeference(reader),
        "pixel size": _pixel_size(reader),
        "reading": _reading_cost(reader),
        **({"note": "; ".join(reader.remarks)} if reader.remarks else {}),
    }


def _bands(reader: ImageReader) -> str:
    names = f": {', '.join(name or '-' for name in reader.band_names)}" if any(reader.band_names) else ""
    more = " and alpha" if reader.alpha else ", indices into a colour table" if reader.palette else ""
    return f"{reader.bands} x {reader.dtype}{more}{names}"


def _georeference(reader: ImageReader) -> str:
    place = reader.georeference
    if place is None:
        return "none"
    a, b, x, d, e, y = place.transform
    name = place.crs.split('"')[1] if '"' in place.crs else "no coordinate system"
    return f"{name}; first corner ({x:.10g}, {y:.10g}), pixel {math.hypot(a, d):g} x {math.hypot(b, e):g}"


def _pixel_size(reader: ImageReader) -> str:
    known = reader.resolution
    if known is None:
        return "not known"
    # Square but for rounding, as nearly all are.
    square = abs(known.row - known.col) < 1e-4 * known.row
    return length(known.row) if square else f"{length(known.col)} wide, {length(known.row)} high"


def _reading_cost(reader: ImageReader) -> str:
    decoded = reader.size.pixels * reader.bands * reader.dtype.itemsize / 2**20
    if not reader.random_access:
        return (
            f"no random access: decoded whole, once per use, to {decoded:.0f} MiB; "
            "`foveate convert` makes a pyramid that is read by windows"
        )
    if len(reader.levels) == 1 and reader.size.megapixels > 4:
        advice = "`foveate convert` adds a pyramid"
        return f"by windows, at full resolution only: wide views and the overview read every pixel; {advice}"
    return "by windows, at the level a view needs"


def tuning_table(title: str, trials: Sequence[Trial]) -> Table:
    """The best few trials of each budget, the chosen one bold, and the best fixed field of view."""
    table = table_of(title, ">budget, passes/MP", "looks", "weights", ">mIoU %", ">passes/MP")
    for budget, group in groupby(trials, lambda trial: trial.budget):
        for place, trial in enumerate(_shown(list(group))):
            scores = (f"{100 * trial.miou:.1f}", f"{trial.passes_per_megapixel:.1f}")
            parts = [f"{view} px" + (f" (central {keep:g})" if keep < 1 else "") for view, keep in trial.looks]
            looks = " + ".join(parts) + (f", {trial.tta}" if trial.tta else "")
            weights = ":".join(f"{weight:g}" for weight in trial.fusion)
            row = ("" if place else f"{budget:g}", looks, weights, *scores)
            table.add_row(*row, style=None if place else "bold")
        table.add_section()
    return table


def _shown(trials: list[Trial]) -> list[Trial]:
    best_fixed = next((trial for trial in trials if len(trial.looks) == 1), None)
    shown = trials[:_SHOWN]
    return shown if best_fixed is None or best_fixed in shown else [*shown, best_fixed]

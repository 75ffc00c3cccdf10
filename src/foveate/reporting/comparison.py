"""The table of a comparison, as Markdown, CSV, JSON and for the terminal, and its figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from foveate.files import write_text, written
from foveate.metrics import permutation_p_value, without_nan
from foveate.reporting.panels import new_figure
from foveate.reporting.tables import table_of
from foveate.texts import percent, sealed, table_html

# Three seeds against three reach 0.1 only if all of one side are better than all of the other.
P_LIMIT = 0.1
SAME = "≈"
MEAN = "mIoU"
COST = ("passes_per_megapixel", "seconds", "peak_memory_mb")
Results = Mapping[int, Mapping[str, Any]]  # by seed, as `foveate evaluate` writes them
# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
_LEARNED, _BASELINE, _ENSEMBLE = "#0072b2", "#7f7f7f", "#d55e00"
_BASELINES = ("random", "average")


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one estimator."""

    estimator: str  # its name
    seeds: tuple[int, ...]  # those that are done
    # by column ("mIoU" and the classes), one value in [0, 1] a seed; NaN where a class has no label
    scores: dict[str, list[float]]
    costs: dict[str, list[float]]  # passes per megapixel, seconds and peak memory in MiB: a value a seed, or one
    training_passes: int  # of one training

    @classmethod
    def of(cls, estimator: str, results: Results, training_passes: int) -> Row:
        """The row of an estimator's evaluations."""
        seeds = tuple(sorted(results))
        done = [results[seed] for seed in seeds]
        names = [item["name"] for item in done[0]["classes"]]
        scores = {MEAN: [_number(one["miou"]) for one in done]}
        for i, name in enumerate(names):
            scores[name] = [_number(one["classes"][i]["iou"]) for one in done]
        costs = {name: [float(one[name]) for one in done] for name in COST}
        return cls(estimator, seeds, scores, costs, training_passes)

    @property
    def cost(self) -> dict[str, float]:
        """Mean passes per megapixel and seconds, and the largest peak memory in MiB."""
        return {name: (max if name == "peak_memory_mb" else mean)(values) for name, values in self.costs.items()}

    def mean(self, column: str) -> float:
        """Mean over the seeds."""
        return mean(self.scores[column])

    def spread(self, column: str) -> float:
        """Sample standard deviation over the seeds; NaN of a single one."""
        return float(np.std(self.scores[column], ddof=1)) if len(self.seeds) > 1 else math.nan


class ComparisonTable:
    """Rows of estimators, with the best of each column, and the values that do not differ significantly from it."""

    header_cost = ("passes/MP", "seconds", "memory MiB", "training passes")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.columns = list(self.rows[0].scores) if self.rows else []
        self._best = {column: self._best_of(column) for column in self.columns}

    def is_best(self, row: Row, column: str) -> bool:
        """Whether this is the highest mean of the column."""
        return row is self._best[column]

    def is_within_noise(self, row: Row, column: str) -> bool:
        """Whether the seeds do not tell this from the best: p above 0.1 in an exact permutation test."""
        best = self._best[column]
        if best is None or row is best or math.isnan(row.mean(column)):
            return False
        return permutation_p_value(row.scores[column], best.scores[column]) > P_LIMIT

    def cells(self, row: Row, bold: str) -> list[str]:
        """The row as text; the best is put between two `bold` marks."""
        values = [row.estimator, *(self._score(row, column, bold) for column in self.columns)]
        return [*values, *self._cost(row)]

    @property
    def note(self) -> str:
        """How to read it."""
        seeds = sorted({seed for row in self.rows for seed in row.seeds})
        several = f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one seed"
        return (
            f"IoU in percent, {several}. Bold: best of the column. {SAME}: no significant difference from the best "
            f"with these seeds (exact permutation test, p > {P_LIMIT:g}). One or two seeds never show a difference."
        )

    def markdown(self) -> str:
        """As a Markdown table with its note."""
        header = ["estimator", *self.columns, *self.header_cost]
        lines = [header, ["---"] * len(header), *(self.cells(row, "**") for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{self.note}\n"

    def csv(self) -> str:
        """One line for each estimator and seed, shares in [0, 1]."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["estimator", "seed", *self.columns, *COST, "training_passes"])
        for row in self.rows:
            for i, seed in enumerate(row.seeds):
                scores = [row.scores[column][i] for column in self.columns]
                costs = [row.costs[name][i] for name in COST]
                writer.writerow([row.estimator, seed, *scores, *costs, row.training_passes])
        return text.getvalue()

    def tree(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {row.estimator: without_nan(self._row_tree(row)) for row in self.rows}

    def rich(self, title: str) -> Table:
        """For the terminal, which has no room for the classes."""
        columns = (f">{name}" for name in (f"{MEAN} %", *self.header_cost))
        table = table_of(title, "estimator", *columns, caption=self.note)
        for row in self.rows:
            style = "bold" if self.is_best(row, MEAN) else ""
            table.add_row(row.estimator, Text(self._score(row, MEAN, ""), style), *self._cost(row))
        return table

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        rows = [self.cells(row, "") for row in self.rows]
        return table_html(("estimator", *self.columns, *self.header_cost), rows, self.note)

    def _cost(self, row: Row) -> list[str]:
        passes, seconds, memory = (row.cost[name] for name in COST)
        return [f"{passes:.0f}", f"{seconds:.1f}", f"{memory:.0f}", str(row.training_passes)]

    def _best_of(self, column: str) -> Row | None:
        known = [row for row in self.rows if not math.isnan(row.mean(column))]
        return max(known, key=lambda row: row.mean(column), default=None)

    def _score(self, row: Row, column: str, bold: str) -> str:
        text = percent(row.mean(column))
        if self.is_best(row, column):
            text = f"{bold}{text}{bold}"
        if len(row.seeds) > 1 and not math.isnan(row.spread(column)):
            text += f" ± {100 * row.spread(column):.1f}"
        return f"{text} {SAME}" if self.is_within_noise(row, column) else text

    def _row_tree(self, row: Row) -> dict[str, Any]:
        scores = {
            column: {
                "mean": row.mean(column),
                "std": row.spread(column),
                "seeds": row.scores[column],
                "best": self.is_best(row, column),
                "within_noise_of_best": self.is_within_noise(row, column),
            }
            for column in self.columns
        }
        return {"seeds": list(row.seeds), "iou": scores, **row.cost, "training_passes": row.training_passes}


def save_tables(folder: Path, table: ComparisonTable, about: Mapping[str, Any]) -> list[Path]:
    """Write comparison.md, .csv and .json; these follow from the runs beside them, so earlier ones are replaced."""
    tree = {**about, "estimators": table.tree()}
    texts = {"md": table.markdown(), "csv": table.csv(), "json": sealed(tree)}
    paths = [folder / f"comparison.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text, overwrite=True)
    return paths


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def save_comparison_figure(path: Path, table: ComparisonTable, title: str) -> None:
    """Write a PNG or SVG; it follows from the runs, so an earlier one is replaced."""
    height = 1.6 + 0.36 * len(table.rows)
    figure = new_figure(11, max(3.6, height))
    by_estimator, by_cost = figure.subplots(1, 2, width_ratios=(3, 2))
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    draw_estimators(by_estimator, table)
    draw_cost(by_cost, table)
    with written(path, overwrite=True) as partial:
        figure.savefig(partial, dpi=140)


def draw_estimators(axes: Any, table: ComparisonTable) -> None:
    """The mIoU of every estimator, best at the top: every seed a dot, the mean a bar."""
    rows = sorted(table.rows, key=lambda row: row.mean(MEAN))
    for place, row in enumerate(rows):
        values = [100 * value for value in row.scores[MEAN]]
        axes.plot(values, [place] * len(values), "o", color=_color(row), alpha=0.35, markersize=6, mew=0)
        axes.plot([100 * row.mean(MEAN)], [place], "|", color=_color(row), markersize=18, mew=2.5)
    marks = (
        " (best)" if table.is_best(row, MEAN) else " ≈" if table.is_within_noise(row, MEAN) else "" for row in rows
    )
    axes.set_yticks(range(len(rows)), [row.estimator + mark for row, mark in zip(rows, marks, strict=True)])
    axes.set_xlabel("mIoU, % (dots: seeds, bar: mean;\n≈ no significant difference)")
    _tidy(axes)


def draw_cost(axes: Any, table: ComparisonTable) -> None:
    """The mean mIoU of every estimator against its passes per megapixel."""
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
                rows[-1].estimator, (x, 100 * rows[-1].mean(MEAN)), xytext=(0, 8), textcoords="offset points",
                ha="center", fontsize=9,
            )  # fmt: skip
    axes.set_xlabel("passes per megapixel (at equal cost, only the best is named)")
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


def _color(row: Row) -> str:
    if row.estimator == "ensemble":
        return _ENSEMBLE
    return _BASELINE if row.estimator.startswith("fixed_") or row.estimator in _BASELINES else _LEARNED


def _tidy(axes: Any) -> None:
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

"""The table of a comparison, as Markdown, CSV, JSON and for the terminal."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Self

import numpy as np
from rich.table import Table
from rich.text import Text

from foveate.files import write_text
from foveate.metrics import permutation_p_value, without_nan
from foveate.reporting.tables import table_of
from foveate.texts import percent, sealed, table_html

# Three seeds against three reach 0.1 only if all of one side are better than all of the other.
P_LIMIT = 0.1
SAME = "≈"
MEAN = "mIoU"
COST = ("passes_per_megapixel", "seconds", "peak_memory_mb")
TABLE = "comparison.json"


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
    def of(cls, estimator: str, results: Mapping[int, Mapping[str, Any]], training_passes: int) -> Self:
        """The row of an estimator's evaluations by seed, as `foveate evaluate` writes them."""
        seeds = tuple(sorted(results))
        done = [results[seed] for seed in seeds]
        scores = {MEAN: [_number(one["miou"]) for one in done]}
        for i, item in enumerate(done[0]["classes"]):
            scores[item["name"]] = [_number(one["classes"][i]["iou"]) for one in done]
        costs = {name: [float(one[name]) for one in done] for name in COST}
        return cls(estimator, seeds, scores, costs, training_passes)

    @classmethod
    def read(cls, estimator: str, tree: Mapping[str, Any]) -> Self:
        """The row from the JSON of a table."""
        scores = {column: [_number(value) for value in measured["seeds"]] for column, measured in tree["iou"].items()}
        costs = {name: [float(tree[name])] for name in COST}  # of all seeds
        return cls(estimator, tuple(tree["seeds"]), scores, costs, int(tree["training_passes"]))

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


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


class ComparisonTable:
    """Rows of estimators, with the best of each column, and the values that do not differ significantly from it."""

    header_cost = ("passes/MP", "seconds", "memory MiB", "training passes")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.columns = list(self.rows[0].scores) if self.rows else []
        self._best = {column: self._best_of(column) for column in self.columns}

    def _best_of(self, column: str) -> Row | None:
        known = [row for row in self.rows if not math.isnan(row.mean(column))]
        return max(known, key=lambda row: row.mean(column), default=None)

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

    def _score(self, row: Row, column: str, bold: str) -> str:
        text = percent(row.mean(column))
        if self.is_best(row, column):
            text = f"{bold}{text}{bold}"
        if len(row.seeds) > 1 and not math.isnan(row.spread(column)):
            text += f" ± {100 * row.spread(column):.1f}"
        return f"{text} {SAME}" if self.is_within_noise(row, column) else text

    def _cost(self, row: Row) -> list[str]:
        passes, seconds, memory = (row.cost[name] for name in COST)
        return [f"{passes:.0f}", f"{seconds:.1f}", f"{memory:.0f}", str(row.training_passes)]

    @property
    def note(self) -> str:
        """How to read it."""
        seeds = sorted({seed for row in self.rows for seed in row.seeds})
        several = f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one seed"
        return (
            f"IoU in percent, {several}. Bold: best of the column. {SAME}: no significant difference from the best "
            f"with these seeds (exact permutation test, p > {P_LIMIT:g}). One or two seeds never show a difference."
        )

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return ["estimator", *self.columns, *self.header_cost]

    def markdown(self) -> str:
        """As a Markdown table with its note."""
        lines = [self.header, ["---"] * len(self.header), *(self.cells(row, "**") for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{self.note}\n"

    def csv(self) -> str:
        """One line for each estimator and seed, shares in [0, 1]."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["estimator", "seed", *self.columns, *COST, "training_passes"])
        for row in self.rows:
            values = [*(row.scores[column] for column in self.columns), *(row.costs[name] for name in COST)]
            for seed, *measured in zip(row.seeds, *values, strict=True):
                writer.writerow([row.estimator, seed, *measured, row.training_passes])
        return text.getvalue()

    def tree(self) -> dict[str, Any]:
        """Plain values for JSON, which `Row.read` reads back."""
        return {
            row.estimator: without_nan(
                {
                    "seeds": list(row.seeds),
                    "iou": {column: self._measured(row, column) for column in self.columns},
                    **row.cost,
                    "training_passes": row.training_passes,
                }
            )
            for row in self.rows
        }

    def _measured(self, row: Row, column: str) -> dict[str, Any]:
        about = {"best": self.is_best(row, column), "within_noise_of_best": self.is_within_noise(row, column)}
        return {"mean": row.mean(column), "std": row.spread(column), "seeds": row.scores[column], **about}

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
        return table_html(self.header, [self.cells(row, "") for row in self.rows], self.note)


def save_tables(folder: Path, table: ComparisonTable, about: Mapping[str, Any]) -> list[Path]:
    """Write comparison.md, .csv and .json; these follow from the runs beside them, so earlier ones are replaced."""
    tree = {**about, "estimators": table.tree()}
    texts = {"md": table.markdown(), "csv": table.csv(), "json": sealed(tree)}
    paths = [(folder / TABLE).with_suffix(f".{suffix}") for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text, overwrite=True)
    return paths

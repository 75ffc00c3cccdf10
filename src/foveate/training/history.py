"""The history of a run: metrics.csv, one row a logged step."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from foveate.errors import ConfigError, translated
from foveate.files import write_text
from foveate.texts import read_text

Row = dict[str, Any]
_MOST_BYTES = 256 << 20
_REMEDY = "remove it, and the history of the training is lost"


class MetricsFile(Logger):
    """Writes every scalar that is logged to one CSV file, beginning with the column `step`.

    `step` is the number of optimiser steps done. What is logged for one step at several times, such as the loss and
    then the validation, is one row. Rows are on disk at once, so a killed run loses none.

    Lightning's own CSVLogger starts afresh where the file exists, puts it into a folder for itself, and writes a row
    for every call, so it can neither continue a run nor drop what a resumed run does again.

    Args:
        path: the file.
        after_step: rows of later steps in an existing file are dropped; 0 starts afresh.
    """

    def __init__(self, path: Path, *, after_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self.after_step = after_step
        self._columns: list[str] = []
        self._row: Row = {}
        self._row_start = 0

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def version(self) -> str:
        """None: a run has one history."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the configuration is saved with the run."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add the metrics of a step to its row."""
        if not self._columns:
            self._open()
        if step != self._row.get("step"):
            self._row, self._row_start = {"step": step}, self.path.stat().st_size
        self._row |= metrics
        new = sorted(set(self._row) - set(self._columns))
        if new:
            self._rewrite(self._columns + new)
        self._write_row()

    def _open(self) -> None:
        kept = [row for row in _text_rows(self.path) if int(row["step"]) <= self.after_step]
        columns = list(kept[0]) if kept else ["step"]
        self._save(columns, kept[:-1])
        self._row_start = self.path.stat().st_size
        if kept:
            self._row = kept[-1] | {"step": int(kept[-1]["step"])}
            self._write_row()

    def _rewrite(self, columns: list[str]) -> None:
        """Add columns; the row in work is left out, as it is written next."""
        self._save(columns, [row for row in _text_rows(self.path) if int(row["step"]) != self._row["step"]])
        self._row_start = self.path.stat().st_size

    def _save(self, columns: list[str], rows: list[Row]) -> None:
        self._columns = columns
        header = {column: column for column in columns}
        write_text(self.path, "".join(_csv_line(columns, row) for row in [header, *rows]), overwrite=True)

    def _write_row(self) -> None:
        with self.path.open("r+b") as file:
            file.seek(self._row_start)
            file.truncate()
            file.write(_csv_line(self._columns, self._row).encode())


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, without the columns that a row has no value for.

    Raises:
        ConfigError: when it holds something else.
    """
    return [{key: _number(text, path) for key, text in row.items() if text} for row in _text_rows(path)]


def _number(text: str, path: Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{path} holds {text[:40]!r} where a number belongs; {_REMEDY}") from None


def _csv_line(columns: list[str], row: Row) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([_as_text(row.get(column, "")) for column in columns])
    return text.getvalue()


def _as_text(value: Any) -> str:
    # Lightning keeps scalars in float32; more digits than these would be made up.
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _text_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the file, each of a whole step, without a last one that was cut off by a kill."""
    if not path.is_file():
        return []
    text = read_text(path, ConfigError, _REMEDY, _MOST_BYTES)
    with translated(ConfigError, f"{path} is damaged", _REMEDY):
        rows = [row for row in csv.DictReader(io.StringIO(text, newline="")) if None not in row.values()]
        for row in rows:
            if None in row or str(int(row["step"])) != row["step"]:
                raise ValueError(f"a row does not fit its columns: {list(row.values())[:3]}")
    return rows

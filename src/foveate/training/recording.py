"""What keeps the history of a run while it is trained: a logger for the metrics, and a callback for the foveation."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from foveate.data import FoveateDataModule, Sample, open_sample, select_channels
from foveate.files import write_text
from foveate.geometry import CellGrid, FloatArray, Size, Window, ceil_div
from foveate.networks.parts import evaluating
from foveate.patches.extraction import overview_window
from foveate.training.history import FoveationMap, kept_steps, text_rows, thin_out, write_maps
from foveate.training.task import SegmentationTask

Row = dict[str, Any]
MOST_IMAGES = 2
LONGEST_MAP = 128
# The policy looks at this much of an image: enough to see how it decides, at a cost that no validation notices.
LONGEST_OVERVIEW = 384


class MetricsFile(pl.loggers.Logger):
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

    @pl.utilities.rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the configuration is saved with the run."""

    @pl.utilities.rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add the metrics of a step to its row."""
        if not self._columns:
            self._open()
        if step != self._row.get("step"):
            self._row, self._row_start = {"step": step}, self.path.stat().st_size
        self._row |= metrics
        new = sorted(set(self._row) - set(self._columns))
        if new:  # the row in work is left out, as it is written next
            self._save(self._columns + new, [row for row in text_rows(self.path) if int(row["step"]) != step])
        self._write_row()

    def _open(self) -> None:
        kept = [row for row in text_rows(self.path) if int(row["step"]) <= self.after_step]
        self._save(list(kept[0]) if kept else ["step"], kept[:-1])
        if kept:
            self._row = kept[-1] | {"step": int(kept[-1]["step"])}
            self._write_row()

    def _save(self, columns: list[str], rows: list[Row]) -> None:
        header = {column: column for column in columns}
        write_text(self.path, "".join(_csv_line(columns, row) for row in [header, *rows]), overwrite=True)
        self._columns, self._row_start = columns, self.path.stat().st_size

    def _write_row(self) -> None:
        with self.path.open("r+b") as file:
            file.seek(self._row_start)
            file.truncate()
            file.write(_csv_line(self._columns, self._row).encode())


def _csv_line(columns: list[str], row: Row) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([_as_text(row.get(column, "")) for column in columns])
    return text.getvalue()


def _as_text(value: Any) -> str:
    # Lightning keeps scalars in float32; more digits than these would be made up.
    return f"{value:.7g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class _Overview:
    """What the policy sees of an image, read once: raw values (C, h + 2 m, w + 2 m) of the window's cells."""

    name: str
    window: Window
    pixels: torch.Tensor


class FoveationHistory(pl.Callback):
    """Keeps the policy's probabilities on the first validation images, before training and after each validation.

    Does nothing for an estimator that does not ask the policy, without validation images, or for data other than
    `FoveateDataModule`. It draws nothing at random and changes no weight, so a training is the same with and without.
    Of several processes the first one does the work. A resumed training drops what it is about to do again.

    Args:
        folder: for step-N.npz; at most 64 are kept, about evenly over the steps.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._overviews: list[_Overview] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the overviews; forget later steps than the one that is continued from."""
        if not trainer.is_global_zero:
            return
        for step, path in kept_steps(self.folder):
            if step > trainer.global_step or not trainer.global_step:
                path.unlink()
        task = _learning_task(pl_module)
        data = getattr(trainer, "datamodule", None)
        if task is None or not isinstance(data, FoveateDataModule):
            return
        self._overviews = [_read_overview(sample, data) for sample in data.samples("val")[:MOST_IMAGES]]
        if trainer.global_step == 0:
            self._keep(0, task)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the maps of this step."""
        task = _learning_task(pl_module)
        if task is not None and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._keep(trainer.global_step, task)

    def _keep(self, step: int, task: SegmentationTask) -> None:
        if not self._overviews:
            return
        maps = [FoveationMap(step, one.name, one.window, _probabilities(one, task)) for one in self._overviews]
        write_maps(self.folder / f"step-{step:08d}.npz", maps)
        thin_out(self.folder)


def _learning_task(module: pl.LightningModule) -> SegmentationTask | None:
    return module if isinstance(module, SegmentationTask) and module.segmenter.has_policy else None


def _read_overview(sample: Sample, data: FoveateDataModule) -> _Overview:
    config, cell = data.config, data.spec.overview_downsample
    with open_sample(sample, config) as image:
        cells = _central(CellGrid(image.size, cell))
        window, size = overview_window(cells, cell, data.spec.policy_margin)
        pixels = image.read(window, size)[select_channels(image, config.bands, config.in_channels)]
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float32)
    shown = Window(cells.top * cell, cells.left * cell, cells.height * cell, cells.width * cell)
    return _Overview(sample.name, shown, torch.from_numpy(pixels))


def _central(grid: CellGrid) -> Window:
    """The cells in the middle of an image, all of them where they are few."""
    size = Size(min(grid.rows, LONGEST_OVERVIEW), min(grid.cols, LONGEST_OVERVIEW))
    return Window((grid.rows - size.height) // 2, (grid.cols - size.width) // 2, size.height, size.width)


@torch.no_grad()
def _probabilities(overview: _Overview, task: SegmentationTask) -> FloatArray:
    with evaluating(task.segmenter.policy):
        logits = task.segmenter.scale_logits(task.normalise(overview.pixels.to(task.device))[None])
    probabilities = logits.float().softmax(dim=1)
    factor = ceil_div(max(probabilities.shape[-2:]), LONGEST_MAP)
    coarse = torch.nn.functional.avg_pool2d(probabilities, factor, ceil_mode=True, count_include_pad=False)
    return coarse[0].cpu().numpy()

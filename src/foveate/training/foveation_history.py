"""How the policy's choices changed in training: small maps of a few validation images, kept after each validation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from foveate.data.channels import select_channels
from foveate.data.datamodule import FoveateDataModule
from foveate.data.images import open_sample
from foveate.data.manifest import Sample
from foveate.errors import ImageReadError, translated
from foveate.files import written
from foveate.geometry import CellGrid, Size, Window, ceil_div
from foveate.patches.extraction import overview_window
from foveate.training.task import SegmentationTask
from foveate.types import FloatArray

FOLDER = "foveation"
MOST_IMAGES = 2
MOST_STEPS = 64  # at about 50 kB each
LONGEST_MAP = 128
# The policy looks at this much of an image: enough to see how it decides, at a cost that no validation notices.
LONGEST_OVERVIEW = 384
_MOST_BYTES = 1 << 30  # of a file, unpacked
_NAME = re.compile(r"step-(\d+)\.npz")


@dataclass(frozen=True, slots=True)
class FoveationMap:
    """What the policy chose for a part of an image after some steps of training.

    Attributes:
        step: optimiser steps done.
        name: stem of the image.
        window: the part of the image, level-0 pixels; it may end outside, at the last cell.
        probabilities: (S, h, w) of every field of view, float32; h and w at most 128, means over cells.
    """

    step: int
    name: str
    window: Window
    probabilities: FloatArray


@dataclass(frozen=True, slots=True)
class _Overview:
    """What the policy sees of an image, read once: raw values (C, h + 2 m, w + 2 m) of the window's cells."""

    name: str
    window: Window
    pixels: Tensor


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
        if task is not None and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._keep(trainer.global_step, task)

    def _keep(self, step: int, task: SegmentationTask) -> None:
        if not self._overviews:
            return
        maps = [FoveationMap(step, one.name, one.window, _probabilities(one, task)) for one in self._overviews]
        _write(self.folder / f"step-{step:08d}.npz", maps)
        thin_out(self.folder)


def kept_steps(folder: Path) -> list[tuple[int, Path]]:
    """Steps and files of the maps in a folder, in order; empty where there is none."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*.npz"))
    return sorted((int(match[1]), path) for match, path in found if match)


def read_maps(path: Path) -> list[FoveationMap]:
    """The maps of one step, one for each image.

    Raises:
        ImageReadError: when the file is damaged.
    """
    with translated(ImageReadError, f"the foveation map {path} is damaged", "remove it"):
        with ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > _MOST_BYTES:
                raise ValueError("it would unpack to more than a gigabyte")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            step, names, windows = int(arrays["step"]), arrays["names"].tolist(), arrays["windows"].tolist()
            maps = [arrays[f"probabilities_{i}"].astype(np.float32) for i in range(len(names))]
        places = (Window(*window) for window in windows)
        return [FoveationMap(step, *one) for one in zip(names, places, maps, strict=True)]


def thin_out(folder: Path, most: int = MOST_STEPS) -> None:
    """Remove maps until at most `most` are left, each time the one whose neighbours in time are the closest."""
    kept = kept_steps(folder)
    while len(kept) > max(2, most):
        gaps = [kept[i + 1][0] - kept[i - 1][0] for i in range(1, len(kept) - 1)]
        kept.pop(1 + int(np.argmin(gaps)))[1].unlink()


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
    with _evaluating(task.segmenter.policy):
        logits = task.segmenter.scale_logits(task.normalise(overview.pixels.to(task.device))[None])
    probabilities = logits.float().softmax(dim=1)
    factor = ceil_div(max(probabilities.shape[-2:]), LONGEST_MAP)
    coarse = F.avg_pool2d(probabilities, factor, ceil_mode=True, count_include_pad=False)
    values: FloatArray = coarse[0].cpu().numpy()
    return values


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _write(path: Path, maps: list[FoveationMap]) -> None:
    arrays: dict[str, Any] = {f"probabilities_{i}": one.probabilities.astype(np.float16) for i, one in enumerate(maps)}
    windows = [[one.window.top, one.window.left, one.window.height, one.window.width] for one in maps]
    with written(path, overwrite=True) as partial:
        names = np.array([one.name for one in maps])
        np.savez_compressed(partial, step=maps[0].step, names=names, windows=np.array(windows), **arrays)

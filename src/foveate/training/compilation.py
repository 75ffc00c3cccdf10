"""Compile a training's network and loss, and say what that brought."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning.pytorch as pl
import torch

from foveate.training.task import SegmentationTask

_log = logging.getLogger(__name__)

# Steps of this run: so many are measured as they are, after the first ones, in which kernels are chosen; then as many
# compiled ones, after those that compile.
_FIRST, _MEASURED = 5, 20


class Compilation(pl.Callback):
    """Trains some steps as they are, then compiles, and tells the time of a step before and after.

    A compiled network rounds differently. Its weights and their names stay as they are, so checkpoints are those of any
    run.
    """

    def __init__(self) -> None:
        self._steps, self._start, self._before = 0, 0.0, 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Measure, compile, measure again."""
        self._steps += 1
        if self._steps in (_FIRST, _FIRST + _MEASURED + _FIRST):
            self._start = _now(pl_module)
        elif self._steps == _FIRST + _MEASURED:
            self._before = (_now(pl_module) - self._start) / _MEASURED
            _compile(pl_module)
        elif self._steps == 2 * (_FIRST + _MEASURED):
            after = (_now(pl_module) - self._start) / _MEASURED
            _log.info("a step takes %.1f ms compiled, %.1f ms before", 1000 * after, 1000 * self._before)


def _now(module: pl.LightningModule) -> float:
    """The time when the device has done what it was given."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()


def _compile(module: pl.LightningModule) -> None:
    if isinstance(module, SegmentationTask):
        module.segmenter.network.compile()
        module.loss.compile()

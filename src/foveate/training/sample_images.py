"""Pictures for `training.logger`: a few places of the validation images, with their labels and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray
from torch import Tensor

from foveate.data.datamodule import FoveateDataModule
from foveate.data.locations import LocationBatch
from foveate.data.sections import ClassConfig
from foveate.membership import Membership
from foveate.patches.alignment import crop_central, resize_logits
from foveate.patches.scales import ScaleSet
from foveate.training.task import SegmentationTask

MOST_PLACES = 4
_KEY = "val/input, label, prediction"
_GAP = 4  # pixels between pictures


class SampleImages(pl.Callback):
    """Logs one picture at each validation: a row for each of some places, with its input, label and prediction.

    Does nothing for data other than `FoveateDataModule`, which has colours for classes.
    """

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: LocationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log the first places of the first batch; it is the same at each validation."""
        data = getattr(trainer, "datamodule", None)
        wanted = batch_idx == 0 and trainer.is_global_zero and not trainer.sanity_checking
        if not wanted or not isinstance(data, FoveateDataModule) or not isinstance(pl_module, SegmentationTask):
            return
        found, classes = outputs["prediction"][:MOST_PLACES], data.config.classes
        scenes = _inputs(batch, pl_module.segmenter.scales)
        labels = batch.label[:MOST_PLACES]
        rows = [_row(*one, classes, pl_module.membership) for one in zip(scenes, labels, found, strict=False)]
        for logger in trainer.loggers:
            log_image(logger, _stacked(rows, axis=0), trainer.global_step)


def log_image(logger: Logger, picture: NDArray[np.uint8], step: int) -> None:
    """Give a picture (h, w, 3) to a logger that takes any."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(_KEY, picture, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(_KEY, [picture], step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, picture, artifact_file=f"val/samples-{step:08d}.png")


def _inputs(batch: LocationBatch, scales: ScaleSet) -> Tensor:
    """The closest patches (n, C, T, T) of some places, over their targets, in the file's range."""
    closest = int(batch.scales[0].argmin())
    share = scales.target / scales.fields_of_view[int(batch.scales[0, closest])]
    patches = batch.patches[:MOST_PLACES, closest].float()
    return resize_logits(patches, scales.target) if share == 1 else crop_central(patches, share, scales.target)


def _row(
    scene: Tensor, label: Tensor, found: Tensor, classes: Sequence[ClassConfig], membership: Membership
) -> NDArray[np.uint8]:
    maps = [membership.picture(one.cpu().numpy(), [c.rgb for c in classes]) for one in (label, found)]
    return _stacked([_photo(scene.cpu().numpy()), *maps], axis=1)


def _photo(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels (C, h, w) of any range as a picture (h, w, 3), from their 2nd to their 98th percentile."""
    shown = pixels[:3] if len(pixels) >= 3 else pixels[:1].repeat(3, axis=0)
    known = shown[np.isfinite(shown)]
    low, high = np.percentile(known, [2, 98]) if known.size else (0.0, 1.0)
    share = np.clip((np.nan_to_num(shown) - low) / max(high - low, 1e-9), 0, 1)
    return np.moveaxis(np.rint(255 * share), 0, -1).astype(np.uint8)


def _stacked(pictures: Sequence[NDArray[np.uint8]], axis: int) -> NDArray[np.uint8]:
    """Pictures side by side (axis 1) or below each other (axis 0), with white between them."""
    gap = [(0, _GAP if axis == side else 0) for side in (0, 1)]
    padded = [np.pad(one, [*gap, (0, 0)], constant_values=255) for one in pictures]
    return np.concatenate(padded, axis=axis)

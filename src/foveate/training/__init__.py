"""Training a segmenter and its policy together, with Lightning's Trainer."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.training.config import LossConfig, TrainingConfig
    from foveate.training.losses import SegmentationLoss
    from foveate.training.task import SegmentationTask

__all__ = ["LossConfig", "SegmentationLoss", "SegmentationTask", "TrainingConfig"]

__getattr__, __dir__ = door(__name__, __file__)

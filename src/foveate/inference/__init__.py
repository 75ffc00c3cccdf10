"""Inference on images of any size: plan, read, predict, stitch and write, block by block."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.inference import executor, memory, session, team
    from foveate.inference.assemble import PredictionFiles
    from foveate.inference.config import InferenceConfig
    from foveate.inference.job import Prediction
    from foveate.inference.memory import MemoryModel
    from foveate.inference.pipeline import ready_to_predict
    from foveate.inference.plan import looks_of
    from foveate.inference.source import PixelSource

__all__ = [
    "InferenceConfig",
    "MemoryModel",
    "PixelSource",
    "Prediction",
    "PredictionFiles",
    "executor",
    "looks_of",
    "memory",
    "ready_to_predict",
    "session",
    "team",
]

__getattr__, __dir__ = door(__name__, __file__)

"""Runs: one folder that holds a resolved configuration, its checkpoints and its results."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.runs.config import RunConfig
    from foveate.runs.evaluate import EvaluationOptions, evaluate_run, evaluate_split
    from foveate.runs.folder import RunFolder, TrainedRun, load_run
    from foveate.runs.train import PreparedTraining, prepare_training, train_run

__all__ = [
    "EvaluationOptions",
    "PreparedTraining",
    "RunConfig",
    "RunFolder",
    "TrainedRun",
    "evaluate_run",
    "evaluate_split",
    "load_run",
    "prepare_training",
    "train_run",
]

__getattr__, __dir__ = door(__name__, __file__)

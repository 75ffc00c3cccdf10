"""Runs: one folder that holds a resolved configuration, its checkpoints and its results."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.runs import compare, init, predict, share, train, tune
    from foveate.runs.config import RunConfig
    from foveate.runs.evaluate import EvaluationOptions, Loading, evaluate_run, evaluate_split
    from foveate.runs.folder import RunFolder, TrainedRun, load_run, member_folders
    from foveate.runs.train import PreparedTraining, prepare_training, train_run

__all__ = [
    "EvaluationOptions",
    "Loading",
    "PreparedTraining",
    "RunConfig",
    "RunFolder",
    "TrainedRun",
    "compare",
    "evaluate_run",
    "evaluate_split",
    "init",
    "load_run",
    "member_folders",
    "predict",
    "prepare_training",
    "share",
    "train",
    "train_run",
    "tune",
]

__getattr__, __dir__ = door(__name__, __file__)

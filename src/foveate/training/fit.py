"""`fit`: train a task with Lightning's Trainer, into the folder of a run."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl

from foveate.build import MODEL_SECTIONS, check_same_config, load_checkpoint
from foveate.errors import ConfigError, FoveateError, OutputExistsError, OutputWriteError, WorkerError, reason_of
from foveate.processes import is_first_process
from foveate.training import callbacks as hooks
from foveate.training.config import TrainingConfig
from foveate.training.history import FOLDER
from foveate.training.processes import BatchNormSync, Processes, ended_together
from foveate.training.recording import FoveationHistory, MetricsFile
from foveate.training.task import SegmentationTask, deterministic_kernels

_log = logging.getLogger(__name__)

_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}

# What a resumed run may change; all else would make it another run, or would be silently ignored.
_FREE_ON_RESUME = {
    "steps",
    "validate_every",
    "validation_locations",
    "checkpoint_every",
    "deterministic",
    "logger",
    "compile",
}

# Warnings of Lightning and torch about what is so on purpose here.
_EXPECTED_WARNINGS = (
    r".*does not have many workers",  # the user's choice
    r".*checkpoint that ended before the epoch ended",  # the sampler starts at the step, so it is exact
    r".*is smaller than the logging interval",
    r".*does not have a deterministic implementation",  # deterministic where possible is what was asked for
    r".*in eval mode at the start of training",  # only what refuses train mode, as frozen encoders do
    r".*across ranks is zero",  # no validation data; said in our own words
    r".*recommended to use `self\.log.*sync_dist",  # these values are the same in every process already
    r".*find_unused_parameters=True was specified",  # other networks do have unused parameters
    r"Grad strides do not match bucket view strides",  # of 1 x 1 kernels, where both orders are the same
    r".*LeafSpec.*is deprecated",  # Lightning 2.6 with torch 2.10 and later
)


class FitResult(NamedTuple):
    """What a training left behind.

    Attributes:
        best_path: checkpoint of the highest val/miou; None without a validation.
        last_path: checkpoint of the last step.
        best_miou: highest val/miou in [0, 1]; NaN without a validation of labelled pixels.
        steps: steps done, with those before a resume.
        seconds: wall-clock time of this call.
    """

    best_path: Path | None
    last_path: Path
    best_miou: float
    steps: int
    seconds: float


def fit(
    task: SegmentationTask,
    datamodule: pl.LightningDataModule,
    run_dir: Path,
    *,
    resume: bool = False,
    processes: Processes | None = None,
    progress: bool = True,
    callbacks: Sequence[pl.Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train until `task.config.steps` steps are done.

    The folder gets checkpoints/best.ckpt and last.ckpt, metrics.csv, tensorboard/, and foveation/, see
    `FoveationHistory`.

    Of several processes the first one writes them, and all need to see the folder. Gradients, batch normalisation and
    scores are over the batches of all. Where neither torchrun nor SLURM started the processes, this one starts the
    others on its computer, by its own command line, and they come here by themselves.

    Args:
        task: what to train, in place.
        datamodule: its train loader must start at the step `trainer.global_step` and have the length of all steps.
        run_dir: folder of the run; made where missing.
        resume: continue from last.ckpt if there is one; the result is that of an uninterrupted run, to the bit on a
            CPU with the same number of threads.
        processes: how many, and on what; one on the best device by default.
        progress: show a progress bar, in the first process.
        callbacks: more of Lightning's callbacks.
        should_stop: asked after every step; where it says so, last.ckpt is written and training stops.

    Raises:
        StoppedError: when asked to stop before the last step.
        ConfigError: when the images of a step cannot be shared out evenly.
        OutputExistsError: when the folder holds checkpoints and `resume` is false.
        CheckpointError: when last.ckpt is damaged or of another configuration.
        NonFiniteLossError: when training diverged.
        OutputWriteError: when the disk is full.
        WorkerError: when another process ended early.
    """
    start = time.monotonic()
    processes = processes or Processes.of()
    processes.check_share(task.config.images_per_step)
    folder = run_dir / "checkpoints"
    resumed_step = step_to_resume(folder, task, resume)
    checkpoints = hooks.RunCheckpoints(folder, task.config, should_stop)
    further = _further(task.config, processes, progress)
    exact = task.config.exact(on_gpu=processes.on_gpu)
    with _quiet(), deterministic_kernels(exact):
        trainer = pl.Trainer(
            max_steps=task.config.steps,
            callbacks=[hooks.OwnHandlers(), checkpoints, FoveationHistory(run_dir / FOLDER), *further, *callbacks],
            logger=_loggers(run_dir, resumed_step, task),
            enable_progress_bar=_shows_bar(progress),
            **_options(task.config, exact),
            **_places(processes),
        )
        path = folder / hooks.LAST if resumed_step else None
        with _system_errors(run_dir), ended_together(trainer):
            task.train()  # also a network that came in eval mode
            trainer.fit(task, datamodule=datamodule, ckpt_path=path, weights_only=True)
    best = folder / hooks.BEST
    if not best.exists():
        _log.info("no image is in the validation split, so there is no %s", hooks.BEST)
    miou = checkpoints.best_miou if checkpoints.best_miou >= 0 else float("nan")
    seconds = time.monotonic() - start
    return FitResult(best if best.exists() else None, folder / hooks.LAST, miou, trainer.global_step, seconds)


@contextmanager
def _system_errors(run_dir: Path) -> Iterator[None]:
    """What the system raises in the middle of a training, as one error of ours."""
    try:
        yield
    except FoveateError:
        raise
    except (OSError, EOFError, RuntimeError) as error:
        # The first two are raised where such a process was about to hand a batch over.
        if isinstance(error, ConnectionError | EOFError) or "DataLoader worker" in str(error):
            raise WorkerError(
                f"a process that reads images ended: {reason_of(error)}; if memory ran out, reduce data.workers. "
                f"Continue with --resume"
            ) from error
        if isinstance(error, RuntimeError):
            raise
        raise OutputWriteError(
            f"training into {run_dir} stopped: {reason_of(error)}; free some space, or fix this, and continue with "
            f"--resume"
        ) from error


def step_to_resume(folder: Path, task: SegmentationTask, resume: bool) -> int:
    """The step to continue after, 0 for the beginning.

    Raises:
        OutputExistsError: when the folder holds checkpoints and `resume` is false.
        CheckpointError: when last.ckpt is damaged or of another configuration.
    """
    if not resume and not is_first_process():
        return 0  # the first one refuses for all, and is allowed to clear the folder
    found = [name for name in (hooks.BEST, hooks.LAST) if (folder / name).exists()]
    if found and not resume:
        raise OutputExistsError(
            f"{folder} holds {' and '.join(found)} of an earlier run; pass --resume to continue it, or choose another "
            f"folder with --out"
        )
    if hooks.LAST not in found:
        if resume and is_first_process():
            _log.warning("no %s in %s: starting from the beginning", hooks.LAST, folder)
        return 0
    state = load_checkpoint(folder / hooks.LAST)
    fixed = [f"training.{key}" for key in TrainingConfig.model_fields if key not in _FREE_ON_RESUME]
    check_same_config(task.read_config(state["config"]), task.config_tree, (*MODEL_SECTIONS, *fixed))
    return int(state["global_step"])


def _loggers(run_dir: Path, resumed_step: int, task: SegmentationTask) -> list[pl.loggers.Logger]:
    """metrics.csv, which the report reads, and what `training.logger` asks for, with the configuration."""
    own = MetricsFile(run_dir / "metrics.csv", after_step=resumed_step)
    chosen = _chosen_logger(task.config.logger, run_dir, resumed_step)
    if chosen is None:
        return [own]
    chosen.log_hyperparams(task.config_tree)
    return [own, chosen]


def _chosen_logger(name: str, run_dir: Path, resumed_step: int) -> pl.loggers.Logger | None:
    if name == "csv":
        return None
    if name == "tensorboard":
        # TensorBoard hides the events from purge_step on of the run before, which the resumed run makes again.
        purge_step = resumed_step + 1 if resumed_step else None
        return pl.loggers.TensorBoardLogger(run_dir, name="tensorboard", version="", purge_step=purge_step)
    try:
        if name == "wandb":
            return pl.loggers.WandbLogger(name=run_dir.name, save_dir=run_dir, id=run_dir.name, resume="allow")
        # As MLflow finds it: by MLFLOW_TRACKING_URI, else its default. Lightning's own is refused since MLflow 3.
        tracking = import_module("mlflow").get_tracking_uri()
        return pl.loggers.MLFlowLogger(run_name=run_dir.name, tracking_uri=tracking)
    except ModuleNotFoundError as error:
        raise ConfigError(f"training.logger {name} needs {error.name or name}; pip install {name}") from None


def _further(config: TrainingConfig, processes: Processes, progress: bool) -> list[pl.Callback]:
    """What shows the progress (a bar asks a GPU for the loss only where that is logged), pictures, what compiles."""
    bar = (
        hooks.StepBar(refresh_rate=config.log_interval if processes.on_gpu else 1)
        if _shows_bar(progress)
        else hooks.StepLines()
    )
    pictures = [] if config.logger == "csv" else [hooks.SampleImages()]
    return [*([bar] if progress else []), *pictures, *([hooks.Compilation()] if config.compile else [])]


def _shows_bar(progress: bool) -> bool:
    """A bar is for a terminal; a file or a pipe gets lines."""
    return progress and sys.stdout.isatty()


def _options(config: TrainingConfig, exact: bool) -> dict[str, Any]:
    return {
        "val_check_interval": config.validate_every,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": config.log_interval,
        "gradient_clip_val": config.gradient_clip,
        "precision": _PRECISIONS[config.precision],
        "benchmark": not exact,  # the shapes never change, so looking for the fastest kernel pays
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "use_distributed_sampler": False,  # the data module gives every process its own locations
        "plugins": [hooks.AtomicCheckpointIO(), BatchNormSync()],
    }


def _places(processes: Processes) -> dict[str, Any]:
    return {
        "accelerator": processes.accelerator,
        "devices": processes.per_node if processes.numbers is None else list(processes.numbers),
        "num_nodes": processes.nodes,
        # Some encoders have layers that no decoder asks for, which have no gradient to wait for.
        "strategy": "ddp_find_unused_parameters_true" if processes.count > 1 else "auto",
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's notes on hardware and products, and warnings of what is intended; real ones are shown."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

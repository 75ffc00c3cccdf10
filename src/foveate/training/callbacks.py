"""What happens between the steps: checkpoints, the progress bar, and compiling."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, RichProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from foveate.build import load_checkpoint, seal
from foveate.errors import NonFiniteLossError, StoppedError, reason_of
from foveate.files import written
from foveate.training.config import TrainingConfig
from foveate.training.task import SegmentationTask

# What Lightning asks a checkpoint for.
_TO_RESUME = (
    "state_dict", "config", "global_step", "epoch", "loops", "callbacks", "optimizer_states", "lr_schedulers",
    "pytorch-lightning_version",
)  # fmt: skip
BEST, LAST = "best.ckpt", "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name and renames, so that a kill leaves the previous checkpoint whole.

    Lightning's own writes to the system's temporary folder and moves the file from there, which between file systems
    is a copy that a kill can cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint in one step.

        Raises:
            OutputWriteError: when the disk is full or not writable.
        """
        with written(Path(path), overwrite=True) as partial:
            try:
                torch.save(checkpoint, partial)
            except RuntimeError as error:  # torch's own word for a write that failed
                raise OSError(f"{reason_of(error)}: the disk may be full") from error
            seal(partial)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint of this class; nothing in it is run, and its checksum is compared."""
        return load_checkpoint(Path(path), _TO_RESUME)


class RunCheckpoints(Checkpoint):
    """Keeps best.ckpt, of the highest val/miou, and last.ckpt, to resume from.

    Where a step is followed by a validation, last.ckpt is written after it. Lightning's ModelCheckpoint writes before
    it, and a run resumed from such a checkpoint skips that validation. It also forgets the best score where the
    folder of a run was moved.

    There is always a validation after the last step, whatever the interval.

    Args:
        folder: where the checkpoints are kept.
        config: gives the intervals.
        should_stop: asked after every step, and in one process after every batch of a validation.
    """

    def __init__(self, folder: Path, config: TrainingConfig, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.folder = folder
        self.config = config
        self.should_stop, self._stops_now = should_stop, False
        self.best_miou = -math.inf

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best_miou": self.best_miou}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the best score so far."""
        self.best_miou = state_dict["best_miou"]

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop where that was asked for; only now the loggers have written what belongs to the step before.

        Raises:
            StoppedError: when asked to stop; last.ckpt is of the step before.
        """
        if self._stops_now:
            raise self._stopped(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Write last.ckpt where it is due, or it is asked to stop, and no validation follows."""
        last = trainer.global_step >= self.config.steps
        if last:
            # Lightning validates before it stops early, and this is the only way to ask it for a validation now.
            trainer.should_stop = True
        if not self._validates_now(trainer, last):
            self._save_last_if_due(trainer, pl_module, last)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop in the middle of a validation, which may be long; resuming goes on before it.

        Raises:
            StoppedError: when asked to stop.
        """
        # Processes may have unequal numbers of batches, so that they cannot agree here.
        if trainer.world_size == 1 and trainer.state.fn == TrainerFn.FITTING and self.should_stop():
            raise self._stopped(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write best.ckpt if this is the best so far, then last.ckpt where it is due or it is asked to stop."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        miou = float(trainer.callback_metrics["val/miou"])
        score = -1.0 if math.isnan(miou) else miou  # of no labelled pixel at all: any other validation is better
        if score > self.best_miou:
            self.best_miou = score
            self._save(trainer, pl_module, BEST)
        self._save_last_if_due(trainer, pl_module, trainer.global_step >= self.config.steps)

    def _validates_now(self, trainer: pl.Trainer, last: bool) -> bool:
        if not trainer.enable_validation or not sum(trainer.num_val_batches):
            return False
        return last or trainer.global_step % self.config.validate_every == 0

    def _save_last_if_due(self, trainer: pl.Trainer, module: pl.LightningModule, last: bool) -> None:
        stops = not last and self._stops(trainer)
        if last or stops or trainer.global_step % self.config.checkpoint_interval == 0:
            self._save(trainer, module, LAST)
        self._stops_now = stops

    def _stops(self, trainer: pl.Trainer) -> bool:
        """Whether to stop, the same in all processes: a signal may reach only one of them."""
        wanted = self.should_stop()
        return wanted if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(wanted, all=False)

    def _stopped(self, trainer: pl.Trainer) -> StoppedError:
        return StoppedError(f"stopped after step {trainer.global_step} of {self.config.steps}")

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule, name: str) -> None:
        if isinstance(module, SegmentationTask):
            module.check_finite()
        _refuse_non_finite_weights(module, trainer.global_step)
        trainer.save_checkpoint(self.folder / name)


def _refuse_non_finite_weights(module: pl.LightningModule, step: int) -> None:
    """A finite loss can have a gradient that is not; the last good checkpoint must not be replaced by its result."""
    wrong = [name for name, value in module.named_parameters() if not bool(torch.isfinite(value).all())]
    if wrong:
        raise NonFiniteLossError(
            f"after step {step} the weights are not finite (first of {len(wrong)}: {wrong[0]}); the checkpoint of "
            f"before is kept. Try a lower learning_rate, a longer warmup_steps or precision '32', then --resume"
        )


class StepBar(RichProgressBar):
    """Lightning's bar, which would count epochs: there are none here, and it showed "Epoch 0/-2"."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"


class StepLines(pl.Callback):
    """The same in lines, for a file or a pipe: one every half minute."""

    SECONDS = 30.0

    def __init__(self) -> None:
        self._start = self._said = 0.0
        self._first: int | None = None  # step from which time is counted: before it, processes start

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Say the steps done, their rate and the time left."""
        now, done, steps = time.monotonic(), trainer.global_step, trainer.max_steps
        if self._first is None:
            self._first, self._start, self._said = done, now, now
            return
        if now - self._said < self.SECONDS or done >= steps or not trainer.is_global_zero:
            return
        self._said, rate = now, (done - self._first) / (now - self._start)
        left = timedelta(seconds=round((steps - done) / rate))
        print(f"training: step {done} of {steps}, {rate:.2f} steps/s, about {left} left", file=sys.stderr, flush=True)


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

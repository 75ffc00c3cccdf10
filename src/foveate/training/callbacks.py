"""What happens between the steps: signals, checkpoints, the progress bar, compiling, and pictures for the logger."""

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.utils import make_grid

from foveate.build import load_checkpoint, seal
from foveate.data import FoveateDataModule, LocationBatch
from foveate.errors import NonFiniteLossError, StoppedError, reason_of
from foveate.files import written
from foveate.patches import ScaleSet, crop_central, middle_of, resize_logits
from foveate.processes import SIGNALS
from foveate.training.config import TrainingConfig
from foveate.training.task import SegmentationTask

# What Lightning asks a checkpoint for.
_TO_RESUME = (
    "state_dict", "config", "global_step", "epoch", "loops", "callbacks", "optimizer_states", "lr_schedulers",
    "pytorch-lightning_version",
)  # fmt: skip
BEST, LAST = "best.ckpt", "last.ckpt"


class OwnHandlers(pl.Callback):
    """Keeps the program's handlers of signals.

    Lightning puts its own in front of them once training starts: those end it with exit code 0, as if it were done, and
    send to other processes what these do not wait for.
    """

    def __init__(self) -> None:
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put them back."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if handler is not None:
                    signal.signal(number, handler)


class AtomicCheckpointIO(pl.plugins.TorchCheckpointIO):
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


class RunCheckpoints(pl.callbacks.Checkpoint):
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
        if trainer.world_size == 1 and trainer.state.fn == "fit" and self.should_stop():
            raise self._stopped(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write best.ckpt if this is the best so far, then last.ckpt where it is due or it is asked to stop."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
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
            f"after step {step} the weights are not finite (first of {len(wrong)}: {wrong[0]}); the previous "
            f"checkpoint is kept. Try a lower learning_rate, a longer warmup_steps or precision '32', then --resume"
        )


class StepBar(pl.callbacks.RichProgressBar):
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
            if isinstance(pl_module, SegmentationTask):
                pl_module.segmenter.network.compile()
                pl_module.loss.compile()
        elif self._steps == 2 * (_FIRST + _MEASURED):
            after = (_now(pl_module) - self._start) / _MEASURED
            told = "a step takes %.1f ms compiled, %.1f ms before"
            logging.getLogger(__name__).info(told, 1000 * after, 1000 * self._before)


def _now(module: pl.LightningModule) -> float:
    """The time when the device has done what it was given."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()


MOST_PLACES, _KEY = 4, "val/input, label, prediction"
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
        pictures, colors = [], [one.rgb for one in data.config.classes]
        scenes = _inputs(batch, pl_module.segmenter.scales)
        for scene, *maps in zip(scenes, batch.label, outputs["prediction"], strict=False):
            pictures.append(_photo(scene.cpu().numpy()))
            pictures += [pl_module.membership.picture(one.cpu().numpy(), colors) for one in maps]
        tiles = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        grid = make_grid(tiles, nrow=3, padding=_GAP, pad_value=255)[:, _GAP:, _GAP:]
        for logger in trainer.loggers:
            log_image(logger, grid.permute(1, 2, 0).numpy(), trainer.global_step)


def log_image(logger: pl.loggers.Logger, picture: NDArray[np.uint8], step: int) -> None:
    """Give a picture (h, w, 3) to a logger that takes any."""
    if isinstance(logger, pl.loggers.TensorBoardLogger):
        logger.experiment.add_image(_KEY, picture, step, dataformats="HWC")
    elif isinstance(logger, pl.loggers.WandbLogger):
        logger.log_image(_KEY, [picture], step)
    elif isinstance(logger, pl.loggers.MLFlowLogger):
        logger.experiment.log_image(logger.run_id, picture, artifact_file=f"val/samples-{step:08d}.png")


def _inputs(batch: LocationBatch, scales: ScaleSet) -> torch.Tensor:
    """The closest patches (n, C, T, T) of some places, over their targets, in the file's range."""
    closest = int(batch.scales[0].argmin())
    share = scales.target / scales.fields_of_view[int(batch.scales[0, closest])]
    patches = middle_of(batch.patches[:MOST_PLACES, closest].float(), scales.middle_share)
    return resize_logits(patches, scales.target) if share == 1 else crop_central(patches, share, scales.target)


def _photo(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels (C, h, w) of any range as a picture (h, w, 3), from their 2nd to their 98th percentile."""
    shown = pixels[:3] if len(pixels) >= 3 else pixels[:1].repeat(3, axis=0)
    known = shown[np.isfinite(shown)]
    low, high = np.percentile(known, [2, 98]) if known.size else (0.0, 1.0)
    share = np.clip((np.nan_to_num(shown) - low) / max(high - low, 1e-9), 0, 1)
    return np.moveaxis(np.rint(255 * share), 0, -1).astype(np.uint8)

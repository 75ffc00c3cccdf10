"""When and how checkpoints are written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from foveate.checkpoint import load_checkpoint, seal
from foveate.errors import NonFiniteLossError
from foveate.files import written
from foveate.training.config import TrainingConfig

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
            torch.save(checkpoint, partial)
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
    """

    def __init__(self, folder: Path, config: TrainingConfig) -> None:
        self.folder = folder
        self.config = config
        self.best_miou = -math.inf

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best_miou": self.best_miou}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the best score so far."""
        self.best_miou = state_dict["best_miou"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Write last.ckpt where it is due and no validation follows."""
        last = trainer.global_step >= self.config.steps
        if last:
            # Lightning validates before it stops early, and this is the only way to ask it for a validation now.
            trainer.should_stop = True
        if not self._validates_now(trainer, last):
            self._save_last_if_due(trainer, pl_module, last)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write best.ckpt if this is the best so far, then last.ckpt where it is due."""
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
        if last or trainer.global_step % self.config.checkpoint_interval == 0:
            self._save(trainer, module, LAST)

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule, name: str) -> None:
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

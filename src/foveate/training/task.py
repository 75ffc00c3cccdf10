"""`SegmentationTask`: a step of training and of validation, with its optimiser, learning rate, seeds and kernels."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import lightning.pytorch as pl
import numpy as np
import torch

from foveate.config_base import ConfigTree
from foveate.data.locations import LocationBatch
from foveate.errors import NonFiniteLossError
from foveate.foveation.estimator import Draw, LocationOutput, LossParts
from foveate.geometry import IntArray, Window
from foveate.metrics import confusion_matrix, scores_from
from foveate.segmenter import FoveatedSegmenter, Places
from foveate.training.config import ScheduleName, TrainingConfig
from foveate.training.losses import SegmentationLoss, resolve_class_weights
from foveate.training.processes import mean_over_processes

_SHOWN = 3
_FAR = 100  # times the usual largest value of a location's patches
Normalise: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


class SegmentationTask(pl.LightningModule):
    """Trains a segmenter and its policy together, from the segmentation loss.

    Everything random in a step is drawn from seeds that are a function of the step, so the task has no state but
    the weights: a resumed run continues exactly.

    Args:
        segmenter: trained in place.
        config: how.
        class_names: the C classes, in the order of their ids.
        normalise: from raw values (..., C_in, h, w) of any type to the network's input, on the device.
        pixel_counts: labelled pixels of each class in the training images; needed for balanced class weights.
        config_tree: the resolved configuration of the whole run; kept in checkpoints, plain values only.
        read_config: from the configuration in a checkpoint to that of this version, which may know more keys.

    Raises:
        ConfigError: when the class weights do not fit the classes.
    """

    def __init__(
        self,
        segmenter: FoveatedSegmenter,
        config: TrainingConfig,
        *,
        class_names: Sequence[str],
        normalise: Normalise = torch.Tensor.float,
        pixel_counts: Sequence[int] | IntArray | None = None,
        config_tree: ConfigTree | None = None,
        read_config: Callable[[ConfigTree], ConfigTree] = dict,
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.config = config
        self.class_names = list(class_names)
        self.normalise = normalise
        self.config_tree: ConfigTree = config_tree or {"training": config.tree()}
        self.read_config = read_config
        weights = resolve_class_weights(config, len(self.class_names), pixel_counts)
        self.membership = segmenter.membership
        self.loss = SegmentationLoss(config.losses, self.membership, class_weights=weights)
        self.confusion = confusion_matrix(len(self.class_names), self.membership)
        # On the device: whether the step at hand goes wrong, and the first that did since the last look, from 1.
        self._wrong_now: torch.Tensor | bool = False
        self._first_wrong: torch.Tensor | int = 0
        self._places: dict[int, torch.Tensor] = {}  # of the steps since the last look
        # The memory order that convolutions on recent devices are fastest in. `Module.to` would change kernels of 1 x 1
        # too, which a CPU then computes to other digits.
        for parameter in segmenter.network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def configure_optimizers(self) -> Any:
        """The optimiser, and a learning rate that changes every step."""
        config, optimizer = self.config, build_optimizer(self.segmenter, self.config)

        def factor(step: int) -> float:
            return learning_rate_factor(config.schedule, step, config.steps, config.warmup_steps)

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor), "interval": "step"},
        }

    def on_train_batch_start(self, batch: LocationBatch, batch_idx: int) -> None:
        """Seed the global generators, which dropout and drop path draw from, as a function of the step."""
        torch.manual_seed(self._seed("network"))
        self._wrong_now = False

    def training_step(self, batch: LocationBatch, batch_idx: int) -> torch.Tensor:
        """The loss of a batch.

        Raises:
            NonFiniteLossError: before anything is learned from such a loss.
        """
        output = self._predict(batch, self._draw())
        loss = self.segmenter.estimator.loss(self.segmenter, output, batch, self.loss)
        # One for all processes, so that they stop together.
        reported = mean_over_processes(loss.total)
        if self.waits:
            self._refuse_non_finite(reported, output, batch)
        else:
            self._note_non_finite(reported)
            self._places[self.global_step] = batch.place
        self._log_training(reported, loss, output)
        return loss.total

    @property
    def waits(self) -> bool:
        """Whether each step looks at its loss before it learns: on a GPU that would keep it idle for a while."""
        return self.device.type != "cuda"

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm; without waiting, tell the optimiser on the device to skip a step that is not finite."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = gradient_clip_val or math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit) if gradient_clip_val or not self.waits else None
        if not self.waits and norm is not None:
            self._note_non_finite(norm)
            # What torch's own gradient scaler tells a fused rule: such a step changes neither weights nor moments.
            optimizer.found_inf = torch.as_tensor(self._wrong_now).float()  # type: ignore[attr-defined]

    def _note_non_finite(self, value: torch.Tensor) -> None:
        wrong = ~torch.isfinite(value.detach()).reshape(())
        self._wrong_now = wrong | self._wrong_now
        self._first_wrong = self._first_wrong + wrong * (self.global_step + 1) * (self._first_wrong == 0)

    def check_finite(self) -> None:
        """Ask the device whether a step since the last time was not finite, and skipped.

        Raises:
            NonFiniteLossError: naming the first of them.
        """
        first, self._first_wrong = int(self._first_wrong), 0
        places, self._places = self._places, {}
        if first:
            raise self._not_finite(f"a loss or gradient that is not finite in step {first}", places.get(first - 1))

    def validation_step(self, batch: LocationBatch, batch_idx: int) -> dict[str, torch.Tensor]:
        """Count the pixels of a batch, predicted as at inference; the prediction (N, T, T) goes to callbacks."""
        output = self._predict(batch, Draw())
        # Counts are exact in any order; torchmetrics' deterministic way takes classes ** 2 numbers of memory a pixel.
        with deterministic_kernels(False):
            found = torch.stack([self.membership.decided(one) for one in output.logits])
            self.confusion.update(
                *(self.membership.answers(one, len(self.class_names)) for one in (found, batch.label))
            )
        valid = int((batch.label != self.membership.ignore_index).sum())
        total = self.loss(output.logits, batch.label).total
        # Lightning takes the mean of these sizes over the processes, and rounds it down to a whole number.
        processes = self.trainer.world_size
        self.log("val/loss", total, batch_size=processes * valid, on_epoch=True, sync_dist=True)
        values = self._looks("val", output)
        self.log_dict(values, batch_size=processes * len(batch.label), on_epoch=True, sync_dist=True)
        return {"prediction": found}

    def on_validation_epoch_end(self) -> None:
        """Scores of all the counted pixels."""
        scores = scores_from(self.confusion.compute(), self.class_names)
        self.confusion.reset()
        self.log("val/miou", scores.miou, prog_bar=True)
        # A class without a labelled pixel has no score.
        self.log_dict({f"val/iou/{item.name}": item.iou for item in scores.classes if item.pixels})
        self.log("step", float(self.global_step))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the configuration, by which a checkpoint of another one is told."""
        checkpoint["config"] = self.config_tree

    def _predict(self, batch: LocationBatch, draw: Draw) -> LocationOutput:
        patches = self.normalise(batch.patches)
        places = Places(patches, batch.scales, batch.nesting, lambda: self.normalise(batch.overview))
        return self.segmenter.forward_places(places, draw)

    def _draw(self) -> Draw:
        generator = torch.Generator(self.device).manual_seed(self._seed("policy"))
        return Draw(progress=self.global_step / self.config.steps, generator=generator)

    def _seed(self, purpose: Any) -> int:
        return step_seed(self.config.seed, self.global_step, self.global_rank, purpose)

    def _refuse_non_finite(self, loss: torch.Tensor, output: LocationOutput, batch: LocationBatch) -> None:
        if not bool(torch.isfinite(loss)):
            places = batch.place[self._suspects(output, batch)] if len(batch.place) else None
            raise self._not_finite(f"the loss became {loss.item()} in step {self.global_step + 1}", places)

    def _not_finite(self, problem: str, places: torch.Tensor | None) -> NonFiniteLossError:
        """The error, with the files and windows of some places (n, 5)."""
        if places is not None and len(places):
            samples = self.trainer.datamodule.samples("train")  # type: ignore[attr-defined]  # Lightning has no type for it
            named = [f"{samples[image].image} at {Window(*window)}" for image, *window in places[:_SHOWN].tolist()]
            more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
            problem = f"{problem}, of {', '.join(named)}{more}"
        rates = ", ".join(f"{name} {rate:g}" for name, rate in self._learning_rates().items())
        return NonFiniteLossError(
            f"{problem} (learning rates: {rates}); the weights were not changed. Try a lower learning_rate, a longer "
            "warmup_steps, a smaller gradient_clip, precision '32', or look for images with values that are not numbers"
        )

    def _suspects(self, output: LocationOutput, batch: LocationBatch) -> torch.Tensor:
        """Which locations (N,) of a batch may be why its loss is not finite: batch norm spreads that to all of them."""
        values = self.normalise(batch.patches).float().abs().flatten(1).amax(dim=1)
        candidates = (
            ~torch.isfinite(values),
            values > _FAR * values.median(),
            ~torch.isfinite(self.loss.of_each(output.logits.detach(), batch.label)),
        )
        return next((wrong for wrong in candidates if bool(wrong.any())), torch.ones_like(candidates[0]))

    def _learning_rates(self) -> dict[str, float]:
        return {group["name"]: group["lr"] for group in self.trainer.optimizers[0].param_groups}

    def _log_training(self, total: torch.Tensor, loss: LossParts, output: LocationOutput) -> None:
        step = self.global_step + 1
        logs = step % self.config.log_interval == 0 or step >= self.config.steps
        if self.waits or logs:
            self.log("train/loss", total, prog_bar=True)
        if not logs:
            return  # Lightning would write none of it now, and each value costs a step about half a millisecond
        self.check_finite()
        self.log_dict({f"train/{name}": value for name, value in loss.parts.items()}, sync_dist=True)
        self.log_dict(self._looks("train", output), sync_dist=True)
        self.log_dict({f"lr/{name}": rate for name, rate in self._learning_rates().items()})
        # Lightning counts from 0 where it logs; the number of steps done reads better, as in the checkpoints.
        self.log("step", float(step))

    def _looks(self, stage: str, output: LocationOutput) -> dict[str, torch.Tensor]:
        """How much of each field of view was used, and how undecided the policy is."""
        shares = output.scale_weights.detach().mean(dim=0)
        views = self.segmenter.scales.fields_of_view
        values = {f"{stage}/share/{view}": share for view, share in zip(views, shares, strict=True)}
        if self.segmenter.has_policy:
            # In nats: 0 for a decided policy, log S for an undecided one.
            log_probs = output.scale_logits.detach().log_softmax(dim=-1)
            values[f"{stage}/policy_entropy"] = -(log_probs.exp() * log_probs).sum(dim=-1).mean()
        return values


def build_optimizer(segmenter: FoveatedSegmenter, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser with the groups "network" and "policy" of what learns; a group without any is left out."""
    told = [] if segmenter.scale_embedding is None else segmenter.scale_embedding.parameters()
    parts = {"network": [*segmenter.network.parameters(), *told], "policy": segmenter.policy.parameters()}
    rates = {"network": config.learning_rate, "policy": config.policy_learning_rate or config.learning_rate}
    learning = {name: [p for p in parameters if p.requires_grad] for name, parameters in parts.items()}
    groups = [{"name": name, "params": found, "lr": rates[name]} for name, found in learning.items() if found]
    # One kernel for all tensors: on a CPU a tenth of a small network's step went into one call per tensor. It
    # also skips a step that is not finite without asking the device: see `SegmentationTask`.
    devices = {p.device.type for found in learning.values() for p in found}
    fused = devices == {"cuda"} or (devices <= {"cpu", "cuda"} and config.precision == "32")
    if config.optimizer == "sgd":  # on a CPU as it was: the fused rule rounds differently
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=config.weight_decay, fused=devices == {"cuda"})
    rule = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return rule(groups, weight_decay=config.weight_decay, fused=fused)


# By progress, 0 to 1. The first is usual in semantic segmentation (DeepLab, arXiv 1606.00915).
_COURSES: dict[ScheduleName, Callable[[float], float]] = {
    "poly": lambda progress: float((1 - progress) ** 0.9),
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "constant": lambda progress: 1.0,
}


def learning_rate_factor(schedule: ScheduleName, step: int, steps: int, warmup_steps: int = 0) -> float:
    """The factor of the learning rate in a step.

    Args:
        schedule: its course after the warm-up.
        step: number of steps done before this one, 0 for the first.
        steps: number of steps in all; the factor stays at its end value after them.
        warmup_steps: number of steps before the schedule begins.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)  # the first step is not wasted on a factor of 0
    progress = min(1.0, (step - warmup_steps) / (steps - warmup_steps))
    return _COURSES[schedule](progress)


def step_seed(seed: int, step: int, rank: int, purpose: Literal["network", "policy"]) -> int:
    """A seed, unrelated to that of any other step, rank and purpose.

    Args:
        seed: seed of the run.
        step: number of optimiser steps done.
        rank: number of the process, from 0.
        purpose: what draws from it: the network's dropout and drop path, or the policy's estimator.
    """
    state = np.random.SeedSequence((seed, step, rank, ("network", "policy").index(purpose))).generate_state(
        1, np.uint64
    )
    return int(state[0] >> np.uint64(1))  # torch takes signed 64 bits


@contextmanager
def deterministic_kernels(preferred: bool) -> Iterator[None]:
    """Within the block use deterministic kernels where torch has them, or whatever is fastest.

    Lightning's own option stays set for the rest of the process, where it would slow down inference.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if preferred:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may add in any order
    torch.use_deterministic_algorithms(preferred, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

"""`SegmentationTask`: what one step of training and of validation is, as a LightningModule."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from foveate.config_base import ConfigTree
from foveate.data.locations import LocationBatch
from foveate.errors import NonFiniteLossError
from foveate.foveation.estimator import Draw, LocationOutput, LossParts
from foveate.geometry import Window
from foveate.metrics import confusion_matrix, scores_from
from foveate.segmenter import FoveatedSegmenter, Places
from foveate.training import step as stepping
from foveate.training.config import TrainingConfig
from foveate.training.losses import SegmentationLoss, resolve_class_weights
from foveate.types import IntArray

_SHOWN = 3
_FAR = 100  # times the usual largest value of a location's patches
Normalise: TypeAlias = Callable[[Tensor], Tensor]


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
        normalise: Normalise = Tensor.float,
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
        self._noted_step, self._wrong_now = -1, torch.zeros((), dtype=torch.bool)
        self._first_wrong: Tensor | None = None
        self._places: dict[int, Tensor] = {}  # of the steps since the last look
        _use_channels_last(segmenter.network)

    def configure_optimizers(self) -> Any:
        """The optimiser, and a learning rate that changes every step."""
        config = self.config
        optimizer = stepping.build_optimizer(self.segmenter, config)

        def factor(step: int) -> float:
            return stepping.learning_rate_factor(config.schedule, step, config.steps, config.warmup_steps)

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def on_train_batch_start(self, batch: LocationBatch, batch_idx: int) -> None:
        """Seed the global generators, which dropout and drop path draw from, as a function of the step."""
        torch.manual_seed(self._seed("network"))

    def training_step(self, batch: LocationBatch, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Raises:
            NonFiniteLossError: before anything is learned from such a loss.
        """
        output = self._predict(batch, self._draw())
        loss = self.segmenter.estimator.loss(self.segmenter, output, batch, self.loss)
        # One for all processes, so that they stop together.
        reported = stepping.mean_over_processes(loss.total)
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
        optimizer: Optimizer,
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
            optimizer.found_inf = self._wrong_now.float()  # type: ignore[attr-defined]

    def _note_non_finite(self, value: Tensor) -> None:
        """Note on the device that the step at hand goes wrong, and which was the first that did."""
        wrong = ~torch.isfinite(value.detach()).reshape(())
        if self._noted_step != self.global_step:
            self._noted_step, self._wrong_now = self.global_step, torch.zeros_like(wrong)
        self._wrong_now = self._wrong_now | wrong
        first = torch.where(wrong, self.global_step + 1, 0)
        self._first_wrong = (
            first if self._first_wrong is None else torch.where(self._first_wrong > 0, self._first_wrong, first)
        )

    def check_finite(self) -> None:
        """Ask the device whether a step since the last time was not finite, and skipped.

        Raises:
            NonFiniteLossError: naming the first of them.
        """
        first, self._first_wrong = self._first_wrong, None
        places, self._places = self._places, {}
        step = 0 if first is None else int(first)
        if step:
            whence = self._whence(places.get(step - 1, torch.empty(0, 5)))
            problem = f"a loss or gradient that is not finite in step {step}{whence}"
            raise NonFiniteLossError(_told(problem, self._rates()))

    def validation_step(self, batch: LocationBatch, batch_idx: int) -> dict[str, Tensor]:
        """Count the pixels of a batch, predicted as at inference; the prediction (N, T, T) goes to callbacks."""
        output = self._predict(batch, Draw())
        # Counts are exact in any order; torchmetrics' deterministic way takes classes ** 2 numbers of memory a pixel.
        with stepping.deterministic_kernels(False):
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
        return stepping.step_seed(self.config.seed, self.global_step, self.global_rank, purpose)

    def _refuse_non_finite(self, loss: Tensor, output: LocationOutput, batch: LocationBatch) -> None:
        if not bool(torch.isfinite(loss)):
            places = batch.place[self._suspects(output, batch)] if len(batch.place) else batch.place
            problem = f"the loss became {loss.item()} in step {self.global_step + 1}{self._whence(places)}"
            raise NonFiniteLossError(_told(problem, self._rates()))

    def _rates(self) -> str:
        return ", ".join(f"{name} {rate:g}" for name, rate in self._learning_rates().items())

    def _whence(self, chosen: Tensor) -> str:
        """The files and windows of some places (n, 5)."""
        if not len(chosen):
            return ""
        samples = self.trainer.datamodule.samples("train")  # type: ignore[attr-defined]  # Lightning has no type for it
        places = [f"{samples[image].image} at {Window(*window)}" for image, *window in chosen[:_SHOWN].tolist()]
        more = f" and {len(chosen) - _SHOWN} more" if len(chosen) > _SHOWN else ""
        return f", of {', '.join(places)}{more}"

    def _suspects(self, output: LocationOutput, batch: LocationBatch) -> Tensor:
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

    def _log_training(self, total: Tensor, loss: LossParts, output: LocationOutput) -> None:
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

    def _looks(self, stage: str, output: LocationOutput) -> dict[str, Tensor]:
        """How much of each field of view was used, and how undecided the policy is."""
        shares = output.scale_weights.detach().mean(dim=0)
        views = self.segmenter.scales.fields_of_view
        values = {f"{stage}/share/{view}": share for view, share in zip(views, shares, strict=True)}
        entropy = policy_entropy(output.scale_logits.detach())
        return values | ({f"{stage}/policy_entropy": entropy} if self.segmenter.has_policy else {})


def _told(problem: str, rates: str) -> str:
    return (
        f"{problem} (learning rates: {rates}); the weights were not changed. Try a lower learning_rate, a longer "
        f"warmup_steps, a smaller gradient_clip, precision '32', or look for images with values that are not numbers"
    )


def policy_entropy(scale_logits: Tensor) -> Tensor:
    """Mean entropy of the rows of scale logits (N, S), in nats: 0 for a decided policy, log S for an undecided one."""
    log_probs = scale_logits.log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1).mean()


def _use_channels_last(network: nn.Module) -> None:
    """The memory order that convolutions on recent devices are fastest in; it changes no value."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
